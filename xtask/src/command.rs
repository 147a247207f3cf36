//! Running other programs, mostly cargo.

use std::path::PathBuf;
use std::process::Command;

/// What went wrong, for the person who ran the task.
pub(crate) type Failure = String;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent().map_or(here.clone(), PathBuf::from)
}

/// The cargo that runs this task, in the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The target that this machine's compiler builds for unless it is told another, as rustc names it.
pub(crate) fn host_tuple() -> Result<String, Failure> {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "host-tuple"]).current_dir(root());
    let output = rustc.output().map_err(|error| format!("cannot run rustc: {error}"))?;
    let tuple = String::from_utf8_lossy(&output.stdout).trim_end().to_owned();
    if output.status.success() && !tuple.is_empty() {
        return Ok(tuple);
    }
    Err(format!(
        "{} failed ({}): {}",
        describe(&rustc),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// Runs to the end; an exit status other than 0 is a failure.
pub(crate) fn execute(mut command: Command) -> Result<(), Failure> {
    println!("$ {}", describe(&command));
    let status =
        command.status().map_err(|error| format!("cannot run {}: {error}", describe(&command)))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", describe(&command))) }
}

/// The command as a person would type it.
pub(crate) fn describe(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
