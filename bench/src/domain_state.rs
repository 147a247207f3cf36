//! Reading and applying the Xenstore state of one domain, beside the same requests one at a time over the same socket.

use std::error::Error;
use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use snapshot::xenstore_state::{ApplyRequest, Consistency, ExtractRequest, apply, extract};
use stock_xenstore::{Kind, Packages, StockDaemon};
use xenstore_migration::domain_state::{Change, DomainState, RestorePolicy};
use xenstored::{Embedded, Store};
use xsclient::{
    Client, Commit, DomId, Endpoint, Nodes, OperationError, Options, Path, PathOrSpecial, Request,
};

use crate::host;
use crate::measure::{median, micros_each, ratio};

/// How many nodes the guest has written, below those that every domain has.
const SIZES: [usize; 2] = [100, 1000];
const DOMAIN: DomId = DomId::new(host::FIRST);
const TIMEOUT: Duration = Duration::from_secs(120);
const RUNS: usize = 21;
/// What the guest's nodes hold.
const VALUE: &[u8] = b"a value of usual length, 36 octets...";
/// Nodes a directory.
const WIDTH: usize = 10;

/// Each figure with the budget it is held to.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    println!(
        "singly: the same requests, each sent after the reply to the one before; median of {RUNS} runs"
    );
    println!("extract: budget 5 on the embedded server, 2 on C xenstored");
    println!(
        "{:<12} {:>7} {:>6} {:>5} | {:>10} {:>9} {:>12} {:>6} | {:>10} {:>12} {:>6}",
        "server",
        "guest's",
        "nodes",
        "trips",
        "extract us",
        "us/node",
        "singly us",
        "ratio",
        "apply us",
        "singly us",
        "ratio"
    );
    for size in SIZES {
        let text = host::xenstore(1);
        match Packages::of_workspace() {
            Ok(packages) => {
                let daemon = StockDaemon::start(Kind::C, packages)?;
                daemon.fill(&text)?;
                compare("C 4.17", daemon.socket(), size)?;
            }
            Err(reason) => println!("{:<12} {size:>7} skipped: {reason}", "C 4.17"),
        }
        let scratch = tempfile::tempdir()?;
        let embedded = Embedded::new(Store::from_text(&text)?);
        let socket = scratch.path().join("socket");
        let _server = embedded.serve_unix(&socket)?;
        compare("embedded", &socket, size)?;
    }
    Ok(())
}

fn compare(server: &str, socket: &FilePath, size: usize) -> Result<(), Box<dyn Error>> {
    let endpoint = Endpoint::UnixSocket(socket.to_owned());
    let mut client = Client::open(endpoint, Options::with_timeout(TIMEOUT))?;
    client.introduce(DOMAIN, 1, 1)?;
    let data: Path = format!("/local/domain/{DOMAIN}/data").parse()?;
    fill(&mut client, &data, size)?;

    let (state, trips) = extracted(&mut client)?;
    let reads = reads_of(&state);
    let together = median(RUNS, || extracted(&mut client).map(drop))?;
    let singly = median(RUNS, || one_by_one(&mut client, &reads))?;

    let writes = empty_and_apply(&mut client, &data, &state)?.1;
    let applying =
        spread(RUNS, || empty_and_apply(&mut client, &data, &state).map(|(time, _)| time))?;
    let one_at_a_time = spread(RUNS, || {
        client.rm(&data)?;
        let start = Instant::now();
        let mut transaction = client.transaction()?;
        one_by_one(&mut transaction, &reads_of_trunk(&reads, &data))?;
        one_by_one(&mut transaction, &writes)?;
        if transaction.commit()? != Commit::Committed {
            return Err("nobody else is there, and yet there was a conflict".into());
        }
        Ok::<_, Box<dyn Error>>(start.elapsed())
    })?;
    println!(
        "{server:<12} {size:>7} {:>6} {trips:>5} | {:>10.0} {:>9.2} {:>12.0} {:>6.2} | {:>10.0} {:>12.0} {:>6.2}",
        state.nodes.len(),
        micros_each(together, 1),
        micros_each(together, state.nodes.len()),
        micros_each(singly, 1),
        ratio(singly, together),
        micros_each(applying, 1),
        micros_each(one_at_a_time, 1),
        ratio(one_at_a_time, applying),
    );
    Ok(())
}

fn fill(client: &mut Client, data: &Path, size: usize) -> Result<(), Box<dyn Error>> {
    let owned = format!("n{DOMAIN}").parse()?;
    client.write(data, b"")?;
    client.set_perms(&PathOrSpecial::Node(data.clone()), &owned)?;
    for number in 0..size / WIDTH {
        // With its directory there are as many as wanted.
        for key in 1..WIDTH {
            client.write(&data.join(&format!("d{number}/key-{key}"))?, VALUE)?;
        }
    }
    Ok(())
}

fn extracted(client: &mut Client) -> Result<(DomainState, u64), Box<dyn Error>> {
    let extracted = extract(client, &ExtractRequest::new(DOMAIN, Instant::now() + TIMEOUT))?;
    match extracted.consistency {
        Consistency::Consistent { .. } => Ok((extracted.state, extracted.round_trips)),
        changing => Err(format!("nobody else is there, and yet {changing:?}").into()),
    }
}

/// Removes what the guest has written, and has it applied again: how long that took, and what was written.
fn empty_and_apply(
    client: &mut Client,
    data: &Path,
    state: &DomainState,
) -> Result<(Duration, Vec<Request>), Box<dyn Error>> {
    client.rm(data)?;
    let request = ApplyRequest::new(RestorePolicy::cooperative(), Instant::now() + TIMEOUT);
    let start = Instant::now();
    let applied = apply(client, state, &request)?;
    let time = start.elapsed();
    let created = state.nodes.keys().filter(|path| path.is_at_or_below(data)).count();
    if !applied.committed || applied.plan.changes.len() != created {
        return Err(format!("{created} nodes were to be created: {:?}", applied.plan).into());
    }
    Ok((time, applied.plan.changes.iter().flat_map(writes_of).collect()))
}

fn writes_of(change: &Change) -> Vec<Request> {
    match change {
        Change::Create { path, value, perms } => vec![
            Request::Write { path: path.clone(), value: value.clone() },
            Request::SetPerms { path: path.clone().into(), perms: perms.clone() },
        ],
        _ => Vec::new(),
    }
}

/// What has to be asked to know a state.
fn reads_of(state: &DomainState) -> Vec<Request> {
    let each = |path: &Path| {
        [
            Request::Directory(path.clone()),
            Request::Read(path.clone()),
            Request::GetPerms(path.clone().into()),
        ]
    };
    state.nodes.keys().flat_map(each).collect()
}

/// What has to be asked while `data` is not there.
fn reads_of_trunk(reads: &[Request], data: &Path) -> Vec<Request> {
    let below = |request: &&Request| match request {
        Request::Directory(path) | Request::Read(path) => path.is_at_or_below(data),
        Request::GetPerms(PathOrSpecial::Node(path)) => path.is_at_or_below(data),
        _ => false,
    };
    reads.iter().filter(|request| !below(request)).cloned().collect()
}

fn one_by_one(nodes: &mut dyn Nodes, requests: &[Request]) -> Result<(), OperationError> {
    requests.iter().try_for_each(|request| nodes.request(request).map(drop))
}

/// The median of times that are measured inside of what is run.
fn spread<E>(runs: usize, mut run: impl FnMut() -> Result<Duration, E>) -> Result<Duration, E> {
    run()?;
    let mut times = (0..runs).map(|_| run()).collect::<Result<Vec<_>, E>>()?;
    times.sort_unstable();
    Ok(times[runs / 2])
}
