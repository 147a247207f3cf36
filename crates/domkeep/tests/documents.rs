//! README and docs/: every session is played, each page in a directory of its own, and has to print what the page says.
//!
//! `DOMKEEP_WRITE_PAGES=1 cargo test -p domkeep --test documents` puts into the pages what was printed. Read what
//! has changed before you commit it. How sessions are written is told in the crate `documents`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use documents::{Kind, Page, Played, Stage, pages, project};
use stock_xenstore::{Client, Kind as Daemon, Packages, StartError, StockDaemon};

const WRITE_PAGES: &str = "DOMKEEP_WRITE_PAGES";
/// For a command, on a machine with other work.
const LIMIT: Duration = Duration::from_mins(2);

/// What a page can say that it needs, in a comment `<!-- needs: ... -->`; anything else is a program.
const QEMU: &str = "QEMU's programs";
const STOCK: &str = "a stock xenstored";

#[test]
fn every_command_of_every_page_prints_what_the_page_says() {
    const TEST: &str = "every_command_of_every_page_prints_what_the_page_says";
    let pages = pages(&project()).unwrap();
    let played = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for page in &pages {
            let played = &played;
            scope.spawn(move || {
                let outcome = play(page);
                played.lock().unwrap().push((page, outcome));
            });
        }
    });
    let (mut commands, mut differences) = (0, Vec::new());
    for (page, outcome) in played.into_inner().unwrap() {
        match outcome {
            Err(reason) => println!("skipped: {TEST}: {}: {reason}", page.name),
            Ok(outcome) => {
                if outcome.commands > 0 {
                    println!("{}: {} commands", page.name, outcome.commands);
                }
                commands += outcome.commands;
                if std::env::var_os(WRITE_PAGES).is_some() && outcome.page != page.text {
                    fs::write(project().join(&page.name), &outcome.page).unwrap();
                }
                differences.extend(outcome.differences);
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(commands >= 40, "only {commands} commands were found");
}

/// Plays a page; or says why that cannot be done here.
fn play(page: &Page) -> Result<Played, String> {
    let directory = tempfile::tempdir().unwrap();
    let programs = directory.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for program in [env!("CARGO_BIN_EXE_domkeep"), env!("CARGO_BIN_EXE_xenstored")] {
        let program = Path::new(program);
        std::os::unix::fs::symlink(program, programs.join(program.file_name().unwrap())).unwrap();
    }
    let mut path = OsString::from(&programs);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut variables = vec![("PATH".into(), path)];
    let mut daemon = None;
    for need in &page.needs {
        match need.as_str() {
            QEMU => {
                ["qemu-img", "qemu-storage-daemon", "setpriv"].into_iter().try_for_each(starts)?;
            }
            STOCK => {
                let started = daemon.insert(stock(&programs)?);
                variables.push(("XENSTORED_RUNDIR".into(), started.directory().into()));
                variables.push(("PID".into(), started.pid().to_string().into()));
            }
            program => starts(program)?,
        }
    }
    let stage = directory.path().join("stage");
    fs::create_dir(&stage).unwrap();
    let stage = Stage { directory: stage, project: project(), variables, limit: LIMIT };
    Ok(page.play(&Kind::Console, &stage).unwrap())
}

fn starts(program: &str) -> Result<(), String> {
    let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
    match started {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!("{program} cannot be started")),
    }
}

/// A stock daemon, and the stock tools among the programs.
fn stock(programs: &Path) -> Result<StockDaemon, String> {
    let packages = Packages::of_workspace().map_err(ToString::to_string)?;
    let daemon = match StockDaemon::start(Daemon::C, packages) {
        Err(StartError::Unavailable(reason)) => return Err(reason.to_string()),
        started => started.unwrap(),
    };
    for (name, client) in [
        ("xenstore-control", Client::Control),
        ("xenstore-ls", Client::Ls),
        ("xenstore-read", Client::Read),
        ("xenstore-write", Client::Write),
        ("xenstore-watch", Client::Watch),
    ] {
        write_wrapper(&programs.join(name), &daemon.client(client));
    }
    Ok(daemon)
}

/// The tools are started with variables of their own, and so is a program of theirs.
fn write_wrapper(file: &PathBuf, tool: &Command) {
    let mut script = "#!/bin/sh\n".to_owned();
    for (name, value) in tool.get_envs() {
        let (name, value) = (name.to_str().unwrap(), value.map(|value| value.to_str().unwrap()));
        match value {
            Some(value) => writeln!(script, "export {name}='{value}'").unwrap(),
            None => writeln!(script, "unset {name}").unwrap(),
        }
    }
    let words: Vec<_> = std::iter::once(tool.get_program())
        .chain(tool.get_args())
        .map(|word| word.to_str().unwrap())
        .collect();
    writeln!(script, "exec '{}' \"$@\"", words.join("' '")).unwrap();
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
