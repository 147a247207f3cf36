//! `retrieve` of 1, 100 and 1000 domains, beside reading the same keys one request at a time over the same socket.

use std::error::Error;
use std::path::Path;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use libxl_config::retrieve::{Consistency, Means, Retriever};
use libxl_config::template::{UserdataDir, create};
use stock_xenstore::{Kind, Packages, StockDaemon};
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Nodes, OperationError, Options, Request, UnixSocket};

use crate::host;
use crate::measure::{median, micros_each, per, ratio};
use crate::recording::Recording;

/// How many domains, unless `BENCH_DOMAINS` names others (`100,1000`).
const SIZES: [u16; 3] = [1, 100, 1000];
const TIMEOUT: Duration = Duration::from_secs(120);

/// Each figure with the budget it is held to.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!(
        "each domain: 2 vbd, 1 vif, 1 console; templates in a UserdataDir, read before and after; median of several runs"
    );
    println!(
        "round trips: budget 4 a domain; ratio: budget for 100 domains 5 on the embedded server, 3 on C xenstored"
    );
    println!(
        "{:<12} {:>7} {:>9} {:>9} | {:>10} {:>7} | {:>10} | {:>12} {:>6} | {:>12}",
        "server",
        "domains",
        "reads",
        "trips/dom",
        "fence us",
        "ratio",
        "1-dom us",
        "transact. us",
        "ratio",
        "singly us"
    );
    let sizes = match std::env::var("BENCH_DOMAINS") {
        Ok(named) => named.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>()?,
        Err(_) => SIZES.to_vec(),
    };
    for guests in sizes {
        let text = host::xenstore(guests);
        let scratch = tempfile::tempdir()?;
        let templates = UserdataDir::open(scratch.path())?;
        for domid in host::FIRST..host::FIRST + guests {
            let (key, template) = host::template(domid);
            create(&templates, &key, &template, Instant::now() + TIMEOUT)?;
        }
        match Packages::of_workspace() {
            Ok(packages) => {
                let daemon = StockDaemon::start(Kind::C, packages)?;
                daemon.fill(&text)?;
                compare("C 4.17", daemon.socket(), guests, &templates)?;
            }
            Err(reason) => println!("{:<12} {guests:>7} skipped: {reason}", "C 4.17"),
        }
        let embedded = Embedded::new(Store::from_text(&text)?);
        let socket = scratch.path().join("socket");
        let _server = embedded.serve_unix(&socket)?;
        compare("embedded", &socket, guests, &templates)?;
    }
    Ok(())
}

fn compare(
    server: &str,
    socket: &Path,
    guests: u16,
    templates: &UserdataDir,
) -> Result<(), Box<dyn Error>> {
    let domids: Vec<DomId> = (host::FIRST..host::FIRST + guests).map(DomId::new).collect();
    let count = domids.len();
    let runs = if guests >= 1000 { 5 } else { 21 };
    let options = || Options::with_timeout(TIMEOUT);
    let reads = reads_of(socket, &domids, templates)?;

    let mut client = Client::open(Endpoint::UnixSocket(socket.to_owned()), options())?;
    let before = client.statistics();
    all_together(&mut client, &domids, templates, Means::Fence)?;
    let shared = client.statistics().since(&before).round_trips;
    let before = client.statistics();
    one_by_one(&mut client, &domids[..1], templates)?;
    let alone = client.statistics().since(&before).round_trips;

    let fence = median(runs, || all_together(&mut client, &domids, templates, Means::Fence))?;
    let each = median(runs, || one_by_one(&mut client, &domids, templates))?;
    let transaction =
        median(runs, || all_together(&mut client, &domids, templates, Means::Transaction))?;
    let singly = median(runs, || singly(&mut client, &reads))?;
    println!(
        "{server:<12} {count:>7} {:>9.1} {:>5}/{alone:<3} | {:>10.1} {:>7.2} | {:>10.1} | {:>12.1} {:>6.2} | {:>12.1}",
        per(reads.len(), count),
        format!("{:.2}", per(usize::try_from(shared)?, count)),
        micros_each(fence, count),
        ratio(singly, fence),
        micros_each(each, count),
        micros_each(transaction, count),
        ratio(singly, transaction),
        micros_each(singly, count),
    );
    Ok(())
}

/// What `retrieve` reads, in its order.
fn reads_of(
    socket: &Path,
    domids: &[DomId],
    templates: &UserdataDir,
) -> Result<Vec<Request>, Box<dyn Error>> {
    let (transport, reads) = Recording::new(UnixSocket::connect(socket, Instant::now() + TIMEOUT)?);
    let mut client = Client::over(Box::new(transport), Options::with_timeout(TIMEOUT));
    all_together(&mut client, domids, templates, Means::Fence)?;
    let reads = reads.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Ok(reads)
}

fn all_together(
    client: &mut Client,
    domids: &[DomId],
    templates: &UserdataDir,
    means: Means,
) -> Result<(), Box<dyn Error>> {
    let answers =
        Retriever::new(client, templates).means(means).timeout(TIMEOUT).retrieve_all(domids);
    for (domid, answer) in answers {
        let retrieved = answer?;
        let whole = retrieved.config.disks.len() == 2 && retrieved.report.is_clean();
        let consistent = matches!(retrieved.report.consistency, Consistency::Consistent { .. });
        if !whole || !consistent {
            return Err(format!(
                "domain {domid} was not retrieved as it is: {:?}",
                retrieved.report
            )
            .into());
        }
    }
    Ok(())
}

fn one_by_one(
    client: &mut Client,
    domids: &[DomId],
    templates: &UserdataDir,
) -> Result<(), Box<dyn Error>> {
    domids.iter().try_for_each(|domid| all_together(client, &[*domid], templates, Means::Fence))
}

/// The same reads, each sent after the reply to the one before.
fn singly(client: &mut Client, reads: &[Request]) -> Result<(), OperationError> {
    for read in reads {
        match client.request(read) {
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
