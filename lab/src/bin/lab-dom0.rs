//! Runs one scenario on the host, and leaves its report on the share. `--start DAEMON` starts one of the host's daemons.

#![forbid(unsafe_code)]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use domkeep_lab::dom0::{Failure, Host, daemons};
use domkeep_lab::report::{FILE, Outcome};
use domkeep_lab::scenarios::ALL;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    if let [option, daemon] = words.as_slice()
        && option == "--start"
    {
        return start(daemon);
    }
    let name = words.first().cloned().unwrap_or_default();
    let Some(scenario) = ALL.iter().find(|scenario| scenario.name == name) else {
        eprintln!("lab-dom0: there is no scenario {name}");
        return ExitCode::from(2);
    };
    let mut host = Host::new(scenario.name);
    let outcome = catch_unwind(AssertUnwindSafe(|| (scenario.run)(&mut host)));
    let outcome =
        outcome.unwrap_or_else(|_| Err(Failure::because("the scenario panicked; see its output")));
    let report = host.report(outcome);
    println!("lab-dom0: {:?}", report.outcome);
    let written = serde_json::to_string(&report)
        .map_err(Into::into)
        .and_then(|text| fs::write(format!("/lab/share/{FILE}"), text));
    if let Err(error) = written {
        eprintln!("lab-dom0: cannot write the report: {error}");
        return ExitCode::from(2);
    }
    match report.outcome {
        Outcome::Failed(_) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// At the host's start.
fn start(daemon: &str) -> ExitCode {
    let started = match daemon {
        "xenstored" => daemons::start_xenstored(daemons::xenstored()),
        "xenconsoled" => daemons::start_xenconsoled(),
        _ => Err(Failure::because("there is no such daemon")),
    };
    if let Err(failure) = started {
        eprintln!("lab-dom0: {daemon}: {failure:?}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
