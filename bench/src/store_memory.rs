//! What a node costs in memory: the embedded server's store beside stock C xenstored, filled with the same nodes.

use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;

use stock_xenstore::{Kind, Packages, StockDaemon};
use xenstored::{Embedded, Store};
use xsclient::{Path, Perms, Reply, Request};

use crate::host;
use crate::measure::{per, resident};

/// What this program is called with to measure one store.
pub(crate) const CHILD: &str = "store-memory-child";

/// About 100,000 small nodes.
const GUESTS: u16 = 760;

/// The budget is 180 octets resident a node.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let text = host::xenstore(GUESTS);
    let nodes = text.lines().count();
    println!("{nodes} nodes of {GUESTS} guests; budget 180 octets resident a node");

    let ours = embedded(&text)?;
    println!("embedded: {:.0} octets a node", per(ours, nodes));

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

/// Octets resident of a store, measured in a process of its own: in this one, memory that is free already would be used
/// again and not count.
fn embedded(text: &str) -> Result<usize, Box<dyn Error>> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg(CHILD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().ok_or("no input of the child")?.write_all(text.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// Has a server write the nodes of a listing on standard input one by one, as a daemon is filled, and prints how many octets resident
/// they take.
pub(crate) fn child() -> Result<(), Box<dyn Error>> {
    let text = std::io::read_to_string(std::io::stdin())?;
    let nodes: Vec<(Path, &str, Perms)> = text.lines().map(node).collect::<Result<_, _>>()?;
    let before = resident("self")?;
    let server = Embedded::new(Store::new());
    for (path, value, perms) in &nodes {
        let (path, value) = (path.clone(), value.as_bytes().to_vec());
        let set_perms = Request::SetPerms { path: path.clone().into(), perms: perms.clone() };
        for request in [Request::Write { path, value }, set_perms] {
            match server.apply(request) {
                Reply::Ok => {}
                refused => return Err(format!("{refused:?}").into()),
            }
        }
    }
    println!("{}", resident("self")?.saturating_sub(before));
    black_box((server, nodes));
    Ok(())
}

/// A line of the host's listing, which has nothing escaped in it.
fn node(line: &str) -> Result<(Path, &str, Perms), Box<dyn Error>> {
    let (path, rest) = line.split_once(" = \"").ok_or("no value")?;
    let (value, perms) = rest.split_once("\"   (").ok_or("no permissions")?;
    Ok((path.parse()?, value, perms.trim_end_matches(')').parse()?))
}
