//! The Xenstore daemon beside stock C xenstored and stock oxenstored, each a process of its own on a socket of its own.
//!
//! A case runs several rounds. In each it is measured on every daemon, in turns and one at a time, and each daemon is started
//! afresh for it. What is printed is each daemon's median.

mod daemons;
mod load;
mod nodes;
mod scale;
mod table;
mod transactions;
mod updating;
mod upstream;
mod watching;
mod wire;

use std::error::Error;

use stock_xenstore::Packages;

pub(crate) use daemons::Ours;
use daemons::{Daemon, Kind};
use scale::Scale;
use table::{Figure, Table, Verdicts};
pub(crate) use wire::{Batch, Client};

use crate::Effort;

/// Measures a case on a daemon that has just been started.
type Measure = fn(&Daemon, &Packages, &Scale) -> Figures;

/// What was measured once.
type Figures = Result<Vec<Figure>, Box<dyn Error>>;

/// What is measured: its name after `xenstored:`, what it is called in the output, and what measures it.
struct Case {
    name: &'static str,
    title: &'static str,
    measure: Measure,
    /// Whether stock C xenstored is so slow that one round of it is enough.
    c_once: bool,
}

const CASES: &[Case] = &[
    case("round-trip", "one request after the other", load::round_trip),
    case(
        "many-clients",
        "8 clients, 32 requests in flight each, one in four a write",
        load::many_clients,
    ),
    case("one-client", "one client, 32 requests in flight, one in four a write", load::one_client),
    case(
        "transactions",
        "8 clients at once, each making domains of 30 nodes, one a transaction",
        transactions::measure,
    ),
    case("watches", "writes while watches elsewhere are set", watching::writes),
    case("fill", "domains of 100 nodes, written by one client", nodes::fill),
    case("idle", "reads while other connections are idle", load::idle_connections),
    Case {
        c_once: true,
        ..case("removal", "a tree is removed in which watches are set", watching::removal)
    },
    case("memory", "resident memory of the nodes of `fill`", nodes::memory),
    case(
        "live-update",
        "an update of the nodes of `fill` and 300 watches into the same program",
        updating::measure,
    ),
    case("upstream", "upstream's test-xenstore, the average of each test", upstream::measure),
];

const fn case(name: &'static str, title: &'static str, measure: Measure) -> Case {
    Case { name, title, measure, c_once: false }
}

/// Runs the cases of these names, or all.
pub(crate) fn run(effort: Effort, names: &[&str]) -> Result<(), Box<dyn Error>> {
    if let Some(unknown) = names.iter().find(|name| !CASES.iter().any(|case| case.name == **name)) {
        let known: Vec<_> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no case {unknown}; there are {}", known.join(", ")).into());
    }
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => {
            println!("skipped: there are no stock daemons to compare with: {reason}");
            return Ok(());
        }
    };
    let scale = Scale::of(effort);
    println!(
        "stock daemons of Debian's xen-utils {}; medians of {} rounds",
        packages.version(),
        scale.rounds
    );
    if effort == Effort::Quick {
        println!("quick: so small that the figures say little and the budgets nothing");
    }
    let mut verdicts = Verdicts::default();
    for case in CASES.iter().filter(|case| names.is_empty() || names.contains(&case.name)) {
        println!("\n{}: {}", case.name, case.title);
        let mut table = Table::default();
        for round in 0..scale.rounds {
            for turn in 0..Kind::ALL.len() {
                let kind = Kind::ALL[(round + turn) % Kind::ALL.len()];
                if kind == Kind::C && case.c_once && round > 0 {
                    continue;
                }
                let daemon = Daemon::start(kind, packages)?;
                let figures = (case.measure)(&daemon, packages, &scale)
                    .map_err(|error| format!("{} on {kind}: {error}", case.name))?;
                table.add(kind, figures)?;
            }
        }
        table.print(case.name, &mut verdicts);
    }
    println!("\n{verdicts}");
    Ok(())
}
