//! What the README shows of the programs.

/// The lines behind the command that runs a program.
#[track_caller]
pub(crate) fn shown_of(program: &str) -> String {
    let command = format!("    $ cargo run -p domkeep-examples --bin {program}");
    let mut lines = include_str!("../../README.md").lines();
    assert!(lines.any(|line| line.starts_with(&command)), "the README does not show {program}");
    lines.map_while(|line| line.strip_prefix("    ")).map(|line| format!("{line}\n")).collect()
}
