//! `dk_retrieve_domain_configuration` called from C, beside the same call in Rust.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::Layout;
use libxl_config::retrieve::Retriever;
use libxl_config::template::{UserdataDir, create};
use stock_xenstore::{Kind, Packages, StockDaemon};
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Options};

use crate::host;

const TIMEOUT: Duration = Duration::from_secs(60);
/// Calls of a block: some hundred milliseconds.
const ROUNDS: u32 = 500;
/// Blocks of each, in turns, so that both meet the same moods of the machine.
const BLOCKS: usize = 15;
/// How much longer it may take.
const BUDGET: f64 = 1.10;

/// Each figure with the budget it is held to.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!(
        "one domain with 2 vbd, 1 vif, 1 console: configuration and report as JSON; medians of {BLOCKS} blocks of {ROUNDS} calls"
    );
    println!("{:<12} {:>9} {:>9} {:>7}  budget {BUDGET}", "server", "Rust us", "C us", "ratio");
    let text = host::xenstore(1);
    let scratch = tempfile::tempdir()?;
    let directory = scratch.path().join("templates");
    std::fs::create_dir(&directory)?;
    let templates = UserdataDir::open(&directory)?;
    let (key, template) = host::template(host::FIRST);
    create(&templates, &key, &template, Instant::now() + TIMEOUT)?;
    let program = build(scratch.path())?;
    match Packages::of_workspace() {
        Ok(packages) => {
            let daemon = StockDaemon::start(Kind::C, packages)?;
            daemon.fill(&text)?;
            compare("C 4.17", daemon.socket(), &templates, &directory, &program)?;
        }
        Err(reason) => println!("{:<12} skipped: {reason}", "C 4.17"),
    }
    let embedded = Embedded::new(Store::from_text(&text)?);
    let socket = scratch.path().join("socket");
    let _server = embedded.serve_unix(&socket)?;
    compare("embedded", &socket, &templates, &directory, &program)
}

/// The program in C, with the shared library that was built for release.
fn build(directory: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let library = std::env::current_exe()?.with_file_name("libdomkeep.so");
    for name in ["libdomkeep.so", "libdomkeep.so.0"] {
        symlink(&library, directory.join(name))?;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = directory.join("c_api");
    let status = Command::new("gcc")
        .args(["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(here.join("src/c_api.c"))
        .arg("-I")
        .arg(here.join("../crates/domkeep-capi/include"))
        .arg("-L")
        .arg(directory)
        .arg("-ldomkeep")
        .arg(format!("-Wl,-rpath,{}", directory.display()))
        .status()?;
    if status.success() { Ok(program) } else { Err("the program in C was not built".into()) }
}

fn compare(
    server: &str,
    socket: &Path,
    templates: &UserdataDir,
    directory: &Path,
    program: &Path,
) -> Result<(), Box<dyn Error>> {
    let options = Options::with_timeout(TIMEOUT);
    let mut client = Client::open(Endpoint::UnixSocket(socket.to_owned()), options)?;
    let mut c = C::start(program, socket, directory)?;
    let (mut in_rust, mut in_c) = (Vec::new(), Vec::new());
    for block in 0..=BLOCKS {
        let rust = rust(&mut client, templates)?;
        let c = c.block()?;
        // The first warms both up.
        if block > 0 {
            in_rust.push(rust);
            in_c.push(c);
        }
    }
    let (rust, c) = (middle(in_rust), middle(in_c));
    let ratio = c.as_secs_f64() / rust.as_secs_f64();
    let verdict = if ratio <= BUDGET { "kept" } else { "missed" };
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{server:<12} {:>9.1} {:>9.1} {ratio:>7.3}  {verdict}", micros(rust), micros(c));
    Ok(())
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// What the C function does, without C.
fn rust(client: &mut Client, templates: &UserdataDir) -> Result<Duration, Box<dyn Error>> {
    let began = Instant::now();
    for _ in 0..ROUNDS {
        let retrieved = Retriever::new(client, templates).retrieve(DomId::new(host::FIRST))?;
        let configuration = retrieved.config.to_json(Layout::Yajl);
        let report = serde_json::to_string(&retrieved.report)?;
        std::hint::black_box((configuration, report));
    }
    Ok(began.elapsed() / ROUNDS)
}

/// The program in C, waiting for a line.
struct C {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl C {
    fn start(program: &Path, socket: &Path, templates: &Path) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(program)
            .arg(socket)
            .arg(format!("userdata:{}", templates.display()))
            .args([host::FIRST.to_string(), ROUNDS.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no answers")?);
        Ok(Self { child, answers })
    }

    fn block(&mut self) -> Result<Duration, Box<dyn Error>> {
        self.child.stdin.as_mut().ok_or("no stdin")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Duration::from_nanos(line.trim().parse()?))
    }
}

impl Drop for C {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if let Err(error) = self.child.wait() {
            eprintln!("the program in C cannot be waited for: {error}");
        }
    }
}
