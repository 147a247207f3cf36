//! What the project runs on itself: `cargo xtask test`, `lab`, `bench`, `soak`, `kills`, `differential`, `fuzz` and `dist`.

mod bench;
mod command;
mod differential;
mod dist;
#[cfg(test)]
mod documented;
mod fuzz;
mod header;
mod kills;
mod lab;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What the project runs on itself")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Everything that needs no Xen: format, lints, documentation, tests, licences.
    Test,
    /// Scenarios on a real Xen host under QEMU; `--help` tells more.
    #[command(disable_help_flag = true)]
    Lab {
        /// Scenarios, `list`, or `run -- COMMAND`. All scenarios, if none is named.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The header of the C library, made from its source.
    Header,
    /// Benchmarks side by side with the stock servers, printed as ratios.
    Bench {
        /// Which: retrieve, c-api, templates, store-memory, migration, snapshot, xenstored, or one case of the last, such as
        /// xenstored:fill. All, if none is named.
        names: Vec<String>,
        /// So little of xenstored that it only shows that it works.
        #[arg(long)]
        quick: bool,
    },
    /// The Xenstore daemon under mixed clients that come and go: latencies, and whether anything grows.
    Soak {
        /// For how long.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Savers, restorers and Xenstore servers killed at random moments, more of them than `test` has time for.
    Kills {
        /// How many.
        #[arg(long, default_value_t = 200)]
        kills: u32,
        /// What the moments are drawn from.
        #[arg(long, default_value_t = 4)]
        seed: u64,
    },
    /// The Xenstore server beside the stock one on random requests, more of them than `test` has time for, and upstream's
    /// own random test.
    Differential {
        /// How many sequences of requests.
        #[arg(long, default_value_t = 10_000)]
        sequences: u32,
        /// What they are drawn from.
        #[arg(long, default_value_t = 6)]
        seed: u64,
        /// Seconds of upstream's random test.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Each fuzz target for a bounded time.
    Fuzz {
        /// Seconds for each target.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
        /// Which targets. All, if none is named.
        targets: Vec<String>,
    },
    /// A Debian package with the programs, the C library, manual pages and completions (docs/packaging.md).
    Dist(dist::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test => test::run(),
        Task::Lab { arguments } => lab::run(&arguments),
        Task::Header => header::write(),
        Task::Bench { names, quick } => bench::run(&names, quick),
        Task::Soak { minutes } => bench::soak(minutes),
        Task::Kills { kills, seed } => kills::run(kills, seed),
        Task::Differential { sequences, seed, seconds } => {
            differential::run(sequences, seed, seconds)
        }
        Task::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Task::Dist(options) => dist::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
