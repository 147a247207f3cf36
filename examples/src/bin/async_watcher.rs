//! Domains that come and go, and the states of their devices, as they change; until ctrl-c.
//!
//! `async_watcher [PATH]` watches PATH, `/local/domain` if there is none given. The server is searched as the stock tools do:
//! `XENSTORED_PATH`, else the usual socket.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use tokio::task::JoinSet;
use xsclient::asynchronous::{Client, Nodes, Watch};
use xsclient::{Batch, Endpoint, Event, Name, OperationError, Options, Path, PathOrSpecial};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// How long to wait for an event before asking again: an hour without one is nothing unusual.
const PATIENCE: Duration = Duration::from_secs(3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let base = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => "/local/domain".to_owned(),
        [path] => path.clone(),
        _ => {
            eprintln!("usage: async_watcher [PATH]");
            return ExitCode::FAILURE;
        }
    };
    let outcome = tokio::select! {
        // Whatever it is at: a future that is dropped leaves nothing behind.
        ended = watch(&base) => ended,
        stopped = tokio::signal::ctrl_c() => stopped.map_err(Into::into),
    };
    match outcome {
        Ok(()) => {
            println!("stopped");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("async_watcher: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn watch(base: &str) -> Outcome {
    let base: Path = base.parse()?;
    let client = Client::open(Endpoint::Search, Options::default()).await?;
    let watch = client.watch(base.clone(), None).await?;
    let mut known = BTreeMap::new();
    println!("watching {base}");
    loop {
        // The first event, which every watch has, makes the first look one at everything.
        let changed = changed_domains(&base, &events(&watch).await?);
        look(&client, &base, changed, &mut known).await?;
    }
}

/// The next event, and what else has come by then.
async fn events(watch: &Watch) -> Result<Vec<Event>, OperationError> {
    let mut events = Vec::new();
    while events.is_empty() {
        events.extend(watch.next_event(PATIENCE).await?);
    }
    while let Some(event) = watch.next_event(Duration::ZERO).await? {
        events.push(event);
    }
    Ok(events)
}

/// The domains in which something changed; `None` for any of them.
fn changed_domains(base: &Path, events: &[Event]) -> Option<BTreeSet<Name>> {
    let domain = |event: &Event| match &event.path {
        PathOrSpecial::Node(path) if !event.lost_before => {
            path.below(base)?.split('/').next()?.parse().ok()
        }
        _ => None,
    };
    events.iter().map(domain).collect()
}

/// A domain as it was last seen.
#[derive(Default)]
struct Domain {
    name: Option<String>,
    /// States by `CLASS/DEVICE`. A guest writes them, so that they may be anything.
    devices: BTreeMap<String, String>,
}

/// Looks at domains and tells what is not as it was.
///
/// Several reads are not of one moment; but what changes between them is an event, and is looked at again.
async fn look(
    client: &Client,
    base: &Path,
    changed: Option<BTreeSet<Name>>,
    known: &mut BTreeMap<Name, Domain>,
) -> Outcome {
    let present: BTreeSet<Name> = match client.directory(base).await {
        Err(error) if error.is_not_found() => BTreeSet::new(),
        names => names?.into_iter().collect(),
    };
    let gone: Vec<Name> = known.keys().filter(|name| !present.contains(name)).cloned().collect();
    for name in gone {
        known.remove(&name);
        println!("domain {name} is gone");
    }
    // All at once: the tasks share the connection, and their requests its round trips.
    let mut looks = JoinSet::new();
    for name in present {
        if changed.as_ref().is_none_or(|changed| changed.contains(&name)) {
            let (client, path) = (client.clone(), base.join(name.as_str())?);
            looks.spawn(async move {
                Ok::<_, Box<dyn Error + Send + Sync>>((name, domain(&client, &path).await?))
            });
        }
    }
    let mut seen = BTreeMap::new();
    while let Some(look) = looks.join_next().await {
        let (name, domain) = look?.map_err(|error| error as Box<dyn Error>)?;
        seen.insert(name, domain);
    }
    for (name, domain) in seen {
        tell(&name, known.get(&name), &domain);
        known.insert(name, domain);
    }
    Ok(())
}

/// One domain, in three round trips however many devices it has.
async fn domain(client: &Client, path: &Path) -> Result<Domain, Box<dyn Error + Send + Sync>> {
    let devices = path.join("device")?;
    let mut batch = Batch::new();
    let name = batch.read(path.join("name")?);
    let classes = batch.directory(devices.clone());
    let mut replies = client.run(batch).await?;
    let name = replies.take_optional(name)?.map(|name| name.escape_ascii().to_string());

    let mut batch = Batch::new();
    let mut lists = Vec::new();
    for class in replies.take_optional(classes)?.unwrap_or_default() {
        let path = devices.join(class.as_str())?;
        lists.push((class, batch.directory(path.clone()), path));
    }
    let mut replies = client.run(batch).await?;

    let mut batch = Batch::new();
    let mut states = Vec::new();
    for (class, list, path) in lists {
        for device in replies.take_optional(list)?.unwrap_or_default() {
            let state = batch.read(path.join(device.as_str())?.join("state")?);
            states.push((format!("{class}/{device}"), state));
        }
    }
    let mut replies = client.run(batch).await?;
    let mut devices = BTreeMap::new();
    for (device, state) in states {
        if let Some(state) = replies.take_optional(state)? {
            devices.insert(device, state_name(&state));
        }
    }
    Ok(Domain { name, devices })
}

/// What Xen's public header `io/xenbus.h` calls a device's state.
fn state_name(value: &[u8]) -> String {
    let name = match value {
        b"1" => "initialising",
        b"2" => "waiting for its other end",
        b"3" => "initialised",
        b"4" => "connected",
        b"5" => "closing",
        b"6" => "closed",
        b"7" => "reconfiguring",
        b"8" => "reconfigured",
        other => return format!("in no known state: {}", other.escape_ascii()),
    };
    name.to_owned()
}

fn tell(name: &Name, before: Option<&Domain>, now: &Domain) {
    let unseen = Domain::default();
    let known = before.unwrap_or(&unseen);
    if before.is_none() || known.name != now.name {
        println!("domain {name} is {}", now.name.as_deref().unwrap_or("without a name"));
    }
    for device in known.devices.keys().filter(|device| !now.devices.contains_key(*device)) {
        println!("domain {name}: {device} is gone");
    }
    for (device, state) in
        now.devices.iter().filter(|(it, state)| known.devices.get(*it) != Some(*state))
    {
        println!("domain {name}: {device} is {state}");
    }
}
