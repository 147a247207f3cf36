//! Benchmarks side by side with stock servers: `cargo xtask bench [NAME...]`; and `cargo xtask soak`.
//!
//! Every figure is measured in the run that prints it, next to what it is compared with, and the ratio is what counts:
//! the absolute times are those of the machine.

mod c_api;
mod domain_state;
mod host;
mod measure;
mod migration;
mod migration_codec;
mod recording;
mod retrieve;
mod snapshot;
mod soak;
mod store_memory;
mod templates;
mod xenstored;

use std::error::Error;
use std::process::ExitCode;

/// A benchmark: its name on the command line, and what runs it, or those of its cases that are named.
type Benchmark = (&'static str, fn(Effort, &[&str]) -> Result<(), Box<dyn Error>>);

const ALL: &[Benchmark] = &[
    ("retrieve", |_, _| retrieve::run()),
    ("c-api", |_, _| c_api::run()),
    ("templates", |_, _| templates::run()),
    ("store-memory", |_, _| store_memory::run()),
    ("migration", |_, _| migration::run()),
    ("snapshot", |_, _| snapshot::run()),
    ("xenstored", xenstored::run),
];

/// How much of a benchmark is done: all, or so little that it only shows that it works.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

/// The option for little of it.
const QUICK: &str = "--quick";

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
        // No benchmark: it has an outcome.
        [soak::NAME, seconds] => return outcome(soak::NAME, soak::run(seconds)),
        _ => {}
    }
    let effort = if words.contains(&QUICK) { Effort::Quick } else { Effort::Full };
    // `xenstored:fill` is the case `fill` of `xenstored`.
    let wanted: Vec<(&str, Option<&str>)> = words
        .iter()
        .filter(|word| **word != QUICK)
        .map(|word| word.split_once(':').map_or((*word, None), |(name, case)| (name, Some(case))))
        .collect();
    let unknown = wanted.iter().find(|(name, _)| !ALL.iter().any(|(known, _)| known == name));
    if let Some((unknown, _)) = unknown {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        eprintln!("no benchmark {unknown}; there are {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    for (name, run) in ALL {
        let asked: Vec<_> = wanted.iter().filter(|(wanted, _)| wanted == name).collect();
        if asked.is_empty() && !wanted.is_empty() {
            continue;
        }
        let cases: Vec<&str> = asked.iter().filter_map(|(_, case)| *case).collect();
        println!("== {name}");
        let outcome = outcome(name, run(effort, &cases));
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
