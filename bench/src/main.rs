//! Benchmarks side by side with stock servers: `cargo xtask bench [NAME...]`.
//!
//! Every figure is measured in the run that prints it, next to what it is compared with, and the ratio is what counts:
//! the absolute times are those of the machine.

mod domain_state;
mod host;
mod measure;
mod migration;
mod migration_codec;
mod recording;
mod retrieve;
mod snapshot;
mod store_memory;
mod templates;

use std::error::Error;
use std::process::ExitCode;

/// A benchmark: its name on the command line, and what runs it.
type Benchmark = (&'static str, fn() -> Result<(), Box<dyn Error>>);

const ALL: &[Benchmark] = &[
    ("retrieve", retrieve::run),
    ("templates", templates::run),
    ("store-memory", store_memory::run),
    ("migration", migration::run),
    ("snapshot", snapshot::run),
];

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = wanted.iter().map(String::as_str).collect();
    // What benchmarks start this program as.
    match &*words {
        [store_memory::CHILD] => return outcome(store_memory::CHILD, store_memory::child()),
        [migration_codec::CHILD, nodes] => {
            return outcome(migration_codec::CHILD, migration_codec::child(nodes));
        }
        [snapshot::CHILD, format] => return outcome(snapshot::CHILD, snapshot::child(format)),
        [snapshot::HOST, directory] => return outcome(snapshot::HOST, snapshot::host(directory)),
        [snapshot::GUARDIAN] => return outcome(snapshot::GUARDIAN, snapshot::guardian()),
        _ => {}
    }
    if let Some(unknown) = wanted.iter().find(|name| !ALL.iter().any(|(known, _)| known == name)) {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no benchmark {unknown}; there are {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    for (name, run) in
        ALL.iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|w| w == name))
    {
        println!("== {name}");
        let outcome = outcome(name, run());
        if outcome != ExitCode::SUCCESS {
            return outcome;
        }
    }
    ExitCode::SUCCESS
}

fn outcome(name: &str, result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}
