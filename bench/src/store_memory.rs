//! What a node costs in memory: the embedded server's store beside stock C xenstored, filled with the same nodes.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::time::Instant;

use stock_xenstore::{Kind, Packages, StockDaemon};
use xenstored::Store;

use crate::host;
use crate::measure::per;

/// About 100,000 small nodes.
const GUESTS: u16 = 760;

/// The budget is 180 octets resident a node.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let text = host::xenstore(GUESTS);
    let nodes = text.lines().count();
    println!("{nodes} nodes of {GUESTS} guests; budget 180 octets resident a node");

    // The store is built twice and the first dropped, so that what only building needs is there before measuring.
    drop(black_box(Store::from_text(&text)?));
    let before = resident("self")?;
    let start = Instant::now();
    let store = Store::from_text(&text)?;
    let built = start.elapsed();
    let kept: Vec<Store> = vec![store.clone(), store];
    let first = resident("self")?.saturating_sub(before);
    // Memory that the first store left may have been used again: the larger of this and a second, separate store counts.
    let before = resident("self")?;
    let second = Store::from_text(&text)?;
    let ours = first.max(resident("self")?.saturating_sub(before));
    println!("embedded: {:.0} octets a node, loaded in {built:.1?}", per(ours, nodes));
    black_box((kept, second));

    match Packages::of_workspace() {
        Ok(packages) => {
            let daemon = StockDaemon::start(Kind::C, packages)?;
            let pid = daemon.pid().to_string();
            let before = resident(&pid)?;
            let start = Instant::now();
            daemon.fill(&text)?;
            let filled = start.elapsed();
            let theirs = resident(&pid)?.saturating_sub(before);
            println!(
                "C 4.17:   {:.0} octets a node, filled over its socket in {filled:.1?}",
                per(theirs, nodes)
            );
            println!("embedded / C: {:.2}", per(ours, theirs));
        }
        Err(reason) => println!("C 4.17: skipped: {reason}"),
    }
    Ok(())
}

/// Octets resident of a process.
fn resident(pid: &str) -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS in the status")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
