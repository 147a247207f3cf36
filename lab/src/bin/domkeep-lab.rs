//! Runs scenarios on a real Xen host under QEMU. `cargo xtask lab` builds what it needs and calls it.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use domkeep_lab::host::{Lab, LabError};
use domkeep_lab::report::Outcome;
use domkeep_lab::scenarios::{ALL, Scenario};
use domkeep_lab::xenstored::Xenstored;
use rustix::process::{Signal, set_parent_process_death_signal};

#[derive(Parser)]
#[command(name = "cargo xtask lab", about = "Scenarios on a real Xen host under QEMU")]
struct Arguments {
    /// Scenarios; all, if none is named. `list` names them. `run` runs COMMAND on the host.
    names: Vec<String>,
    /// With `run`: a command of the shell.
    #[arg(last = true)]
    command: Vec<String>,
    /// Multiplies every time limit, for machines with other work to do.
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// Runs what is built for release. Times should be compared with that.
    #[arg(long)]
    release: bool,
    /// The Xenstore daemon of the hosts, instead of the scenarios' own.
    #[arg(long, value_enum)]
    xenstored: Option<Xenstored>,
    /// Seconds that the command of `run` may take.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

fn main() -> ExitCode {
    // QEMU ends with this program; this ends with the one that called it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        eprintln!("lab: cannot be bound to the calling program: {error}");
    }
    match run(&Arguments::parse()) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("lab: {}", xsclient::on_one_line(&error));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, LabError> {
    if arguments.names == ["list"] {
        for scenario in ALL {
            println!("{:14} {}", scenario.name, scenario.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.names == ["run"] {
        let limit = Duration::from_secs(arguments.seconds);
        let status = lab(arguments)?.script(&arguments.command.join(" "), limit)?;
        let status = status.and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX);
        return Ok(ExitCode::from(status));
    }
    let chosen = chosen(&arguments.names)?;
    let lab = lab(arguments)?;
    let mut reports = Vec::new();
    for scenario in chosen {
        println!("lab: {}: {}", scenario.name, scenario.about);
        reports.push(lab.scenario(scenario)?);
    }
    let (mut passed, mut failed) = (0, 0);
    println!();
    for report in &reports {
        let (word, reason) = match &report.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(reason) => ("failed", reason.as_str()),
            Outcome::Skipped(reason) => ("skipped", reason.as_str()),
            _ => ("unknown", ""),
        };
        passed += u32::from(word == "passed");
        failed += u32::from(word == "failed");
        println!("{:20} {word:8} {:6.1} s  {reason}", report.scenario, report.seconds);
    }
    let figures: Vec<_> = reports.iter().flat_map(|report| &report.figures).collect();
    for (name, figure) in &figures {
        println!("{figure:8.3}  {name}");
    }
    if !figures.is_empty() && !arguments.release {
        println!("these figures are of programs that were not built for release");
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>, LabError> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        let found = ALL.iter().find(|scenario| scenario.name == name);
        found.ok_or_else(|| LabError::NoScenario { name: name.clone() })
    };
    names.iter().map(find).collect()
}

/// The lab below the target directory that this program was built in.
fn lab(arguments: &Arguments) -> Result<Lab, LabError> {
    let program = std::env::current_exe()
        .map_err(|source| LabError::File { path: PathBuf::from("/proc/self/exe"), source })?;
    let programs = program.parent().unwrap_or(Path::new("."));
    let target = programs.parent().unwrap_or(programs);
    let lab = Lab::open(&target.join("lab"), programs, arguments.patience.max(1))?;
    Ok(lab.with_xenstored(arguments.xenstored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_labs_page_is_taken() {
        let page = std::fs::read_to_string(documents::project().join("docs/lab.md")).unwrap();
        let lines = page.lines().filter_map(|line| line.strip_prefix("cargo xtask lab"));
        let mut count = 0;
        for line in lines {
            let line = line.split('#').next().unwrap_or_default();
            let words = line.split('\'').next().unwrap_or_default().split_whitespace();
            let parsed = Arguments::try_parse_from(["lab"].into_iter().chain(words));
            let parsed = parsed.unwrap_or_else(|error| panic!("{line}: {error}"));
            if !matches!(parsed.names.first().map(String::as_str), Some("list" | "run")) {
                assert!(chosen(&parsed.names).is_ok(), "{line}");
            }
            count += 1;
        }
        assert!(count > 4, "{count}");
    }
}
