//! The end of `demo`: a running guest is saved and brought back, on a simulated host in a process of its own.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::Value;

use crate::commands::ids::random_uuid;
use crate::exit::CommandError;

/// What makes, opens and guards real qcow2 images, and the Debian package that it is in.
const PROGRAMS: [(&str, &str); 3] =
    [("qemu-img", "qemu-utils"), ("qemu-storage-daemon", "qemu-utils"), ("setpriv", "util-linux")];

/// Octets of each disk.
const DISK: u64 = 8 << 20;

/// The host's directory is shown by this name.
const SHOWN: &str = "DIR";

/// What was done and answered.
#[derive(Serialize)]
pub(in crate::commands) struct Told {
    /// What the disks are.
    images: &'static str,
    /// Programs that qcow2 images would need and that are not here.
    missing_programs: Vec<&'static str>,
    saved: Value,
    verified: Value,
    restored: Value,
    domains: Value,
    #[serde(skip)]
    words: String,
}

impl Told {
    /// For people: each command with what it printed.
    pub(in crate::commands) fn in_words(&self) -> &str {
        &self.words
    }
}

/// Saves a running domain and restores it beside itself.
pub(in crate::commands) fn run(json: bool) -> Result<Told, CommandError> {
    let absent = PROGRAMS.into_iter().filter(|(program, _)| !is_there(program));
    let (missing, mut packages): (Vec<_>, Vec<_>) = absent.unzip();
    packages.dedup();
    let mut scene = Scene::new(json)?;
    let made = if missing.is_empty() { scene.with_qcow2() } else { scene.with_raw() };
    let Answers { saved, verified, restored, domains } = made.map_err(broken)?;
    let images = if missing.is_empty() { "qcow2" } else { "raw" };
    let mut words = String::new();
    if !missing.is_empty() {
        words.push_str(&format!(
            "Without {}, which cannot be started here (Debian: {}), the disks are raw and are copied:\n\n",
            missing.join(" and "),
            packages.join(", ")
        ));
    }
    words.push_str(&scene.words);
    Ok(Told { images, missing_programs: missing, saved, verified, restored, domains, words })
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn broken(error: io::Error) -> CommandError {
    CommandError::Demo(Box::new(error))
}

struct Answers {
    saved: Value,
    verified: Value,
    restored: Value,
    domains: Value,
}

/// A simulated host, and the directory where everything is. Both are gone with this value.
struct Scene {
    program: PathBuf,
    directory: PathBuf,
    /// What serves the host.
    host: Option<Child>,
    json: bool,
    words: String,
}

impl Scene {
    fn new(json: bool) -> Result<Self, CommandError> {
        let program = env::current_exe().map_err(broken)?;
        // A name that is as short as the path of a socket has to be, and that nobody has guessed.
        let id = random_uuid()?.simple().to_string();
        let directory = env::temp_dir().join(format!("domkeep-demo-{}", &id[..12]));
        DirBuilder::new().mode(0o700).create(&directory).map_err(broken)?;
        let mut scene = Self { program, directory, host: None, json, words: String::new() };
        scene.serve().map_err(broken)?;
        Ok(scene)
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(["simulate", "serve", "--json"]).arg(&self.directory);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let told = child.stdout.take();
        self.host = Some(child);
        let mut line = String::new();
        if let Some(told) = told {
            BufReader::new(told).read_line(&mut line)?;
        }
        if line.is_empty() {
            Err(io::Error::other("the simulated host does not serve"))
        } else {
            Ok(())
        }
    }

    fn with_qcow2(&mut self) -> io::Result<Answers> {
        for image in ["root.qcow2", "data.qcow2"] {
            let mut create = Command::new("qemu-img");
            create.args(["create", "-q", "-f", "qcow2", image]).arg(DISK.to_string());
            let created = create.current_dir(&self.directory).output()?;
            if !created.status.success() {
                return Err(io::Error::other(
                    String::from_utf8_lossy(&created.stderr).into_owned(),
                ));
            }
        }
        let disks = ["--disk", "xvda=root.qcow2:qcow2", "--disk", "xvdb=data.qcow2:qcow2"];
        self.create(&disks)?;
        let save = [
            "--disk",
            "xvda=overlay:root-1.qcow2",
            "--disk",
            "xvdb=overlay:data-1.qcow2",
            "--qmp",
            "qmp-libxl-1",
        ];
        let restore =
            ["--disk", "xvda=overlay:root-2.qcow2", "--disk", "xvdb=overlay:data-2.qcow2"];
        self.session(&save, &[], &restore)
    }

    fn with_raw(&mut self) -> io::Result<Answers> {
        for image in ["root.img", "data.img"] {
            File::create_new(self.directory.join(image))?.set_len(DISK)?;
        }
        self.create(&["--disk", "xvda=root.img:raw", "--disk", "xvdb=data.img:raw"])?;
        let save = ["--disk", "xvda=copy:root-1.img", "--disk", "xvdb=copy:data-1.img"];
        let restore = [
            "--disk",
            "xvda=image:root-2.img,format=raw,verify",
            "--disk",
            "xvdb=image:data-2.img,format=raw,verify",
        ];
        let copies = [("root-1.img", "root-2.img"), ("data-1.img", "data-2.img")];
        self.session(&save, &copies, &restore)
    }

    fn create(&mut self, disks: &[&str]) -> io::Result<Value> {
        self.ask(
            &[&["simulate", "create", "host", "--name", "web"][..], disks, &["--start"]].concat(),
        )
    }

    fn session(
        &mut self,
        save: &[&str],
        copies: &[(&str, &str)],
        restore: &[&str],
    ) -> io::Result<Answers> {
        let control = ["--control", "simulated:host"];
        let files = [
            "--memory",
            "web.memory",
            "--xenstore-state",
            "web.xenstore",
            "--digest-disks",
            "--journal",
            "web.journal",
            "--manifest",
            "web.snapshot",
        ];
        let saved =
            self.ask(&[&["snapshot", "save", "web"][..], &control, &files, save].concat())?;
        let verified = self.ask(&["snapshot", "verify", "web.snapshot", "--depth", "full"])?;
        // What is frozen is not written: the new guest gets a copy of it.
        for (frozen, own) in copies {
            fs::copy(self.directory.join(frozen), self.directory.join(own))?;
            if !self.json {
                self.words.push_str(&format!("$ cp {frozen} {own}\n\n"));
            }
        }
        let restoring = ["snapshot", "restore", "web.snapshot"];
        let identity = ["--as-name", "web-again", "--uuid", "new"];
        let restored = self.ask(&[&restoring[..], &control, &identity, restore].concat())?;
        let domains = self.ask(&["simulate", "list", "host"])?;
        Ok(Answers { saved, verified, restored, domains })
    }

    /// Runs this program itself, and shows what was asked for and what it answered.
    fn ask(&mut self, arguments: &[&str]) -> io::Result<Value> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null());
        if self.json {
            command.arg("--json");
        }
        let answer = command.output()?;
        if !answer.status.success() {
            let said = [answer.stdout, answer.stderr].concat();
            return Err(io::Error::other(String::from_utf8_lossy(&said).into_owned()));
        }
        if self.json {
            return Ok(serde_json::from_slice(&answer.stdout)?);
        }
        let printed = String::from_utf8_lossy(&answer.stdout);
        let directory = self.directory.display().to_string();
        self.words.push_str(&shown(arguments));
        self.words.push_str(&printed.replace(&directory, SHOWN));
        self.words.push('\n');
        Ok(Value::Null)
    }
}

/// A command as one would type it, broken before options.
fn shown(arguments: &[&str]) -> String {
    const WIDTH: usize = 110;
    let mut text = String::from("$ domkeep");
    let mut width = text.len();
    for argument in arguments {
        if width + argument.len() > WIDTH && argument.starts_with("--") {
            text.push_str(" \\\n   ");
            width = 3;
        }
        text.push(' ');
        text.push_str(argument);
        width += 1 + argument.len();
    }
    text.push('\n');
    text
}

impl Drop for Scene {
    fn drop(&mut self) {
        if let Some(mut host) = self.host.take() {
            // It ends its domains' processes as well.
            if let Err(error) = kill_process(Pid::from_child(&host), Signal::TERM) {
                tracing::warn!(%error, "the simulated host cannot be told to end");
            }
            if let Err(error) = host.wait() {
                tracing::warn!(%error, "the simulated host cannot be waited for");
            }
        }
        remove(&self.directory);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = fs::remove_dir_all(directory) {
        tracing::warn!(directory = %directory.display(), %error, "the demonstration leaves its directory behind");
    }
}
