//! Programs that are not cargo.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::command::{Failure, describe};

/// A program, and the Debian package that it is in.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
}

/// Fails, with the packages to install, unless all these programs are there.
pub(super) fn need(programs: &[Program]) -> Result<(), Failure> {
    let missing: Vec<_> = programs.iter().filter(|program| !is_there(program.name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|program| program.name).collect();
    let packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    Err(format!(
        "not installed: {}; on Debian: apt-get install {}",
        names.join(", "),
        packages.join(" ")
    ))
}

fn is_there(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(name).is_file())
}

/// A command in a neutral locale.
pub(super) fn command<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C.UTF-8");
    command
}

/// What a command prints, once it has ended well.
pub(super) fn answer(command: Command) -> Result<String, Failure> {
    let printed = octets(command, &[])?;
    String::from_utf8(printed).map_err(|error| format!("what was printed is no text: {error}"))
}

/// The same with something on stdin, and as octets.
pub(super) fn octets(mut command: Command, input: &[u8]) -> Result<Vec<u8>, Failure> {
    let failed = |command: &Command, error| format!("cannot run {}: {error}", describe(command));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(&command, error))?;
    let stdin = child.stdin.take();
    // Written beside the reading: either side may have more than a pipe holds.
    let (written, output) = std::thread::scope(|scope| {
        let writer = scope.spawn(move || stdin.map_or(Ok(()), |mut pipe| pipe.write_all(input)));
        let output = child.wait_with_output();
        (writer.join(), output)
    });
    let output = output.map_err(|error| failed(&command, error))?;
    if !output.status.success() {
        return Err(format!(
            "{} failed ({})\n{}{}",
            describe(&command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    match written {
        Ok(Ok(())) => Ok(output.stdout),
        Ok(Err(error)) => Err(failed(&command, error)),
        Err(_) => Err(format!("{}: what writes to it has panicked", describe(&command))),
    }
}

/// Compressed without name and time, so that the same octets come out each time.
pub(super) fn gzip(text: &[u8]) -> Result<Vec<u8>, Failure> {
    octets(command("gzip", &["-9nc"]), text)
}
