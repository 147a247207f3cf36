//! What Domkeep retrieves of real hosts, beside what libxl's own retrieve answered at the same moment.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use libxl_config::retrieve::{
    Attachment, BackendState, DeviceClass, Means, Missing, Presence, Retrieved, Retriever,
};
use libxl_config::template::UserdataDir;
use libxl_config::{DomainConfig, Layout};
use serde_json::Value;
use stock_xenstore::{Kind, Packages, StockDaemon};
use xsclient::{Client, DomId, Endpoint, Options};

/// The captures of real hosts; none where they are absent.
fn captures() -> Vec<PathBuf> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    let Ok(entries) = std::fs::read_dir(all) else { return Vec::new() };
    let mut captures: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    captures.sort();
    captures
}

/// A stock daemon filled from a capture, and a client of it; `None` with a line that says so where it cannot run.
fn daemon(test: &str, kind: Kind, capture: &Path) -> Option<(StockDaemon, Client)> {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            return None;
        }
    };
    let daemon = match StockDaemon::start(kind, packages) {
        Ok(daemon) => daemon,
        Err(stock_xenstore::StartError::Unavailable(reason)) => {
            println!("skipped: {test}: {reason}");
            return None;
        }
        Err(error) => panic!("{error}"),
    };
    daemon.fill(&std::fs::read_to_string(capture.join("xenstore.txt")).unwrap()).unwrap();
    let client =
        Client::open(Endpoint::UnixSocket(daemon.socket().to_owned()), Options::default()).unwrap();
    Some((daemon, client))
}

fn json(config: &DomainConfig) -> Value {
    let mut value: Value = serde_json::from_str(&config.to_json(Layout::Yajl)).unwrap();
    // Only the hypervisor knows these.
    value["b_info"].as_object_mut().unwrap().remove("sched_params");
    value
}

/// Compares every domain of a capture but dom0, which libxl's retrieve is documented not to be for.
fn compare(client: &mut Client, capture: &Path, means: Means) -> usize {
    let templates = UserdataDir::open(capture).unwrap();
    let listed: Value =
        serde_json::from_slice(&std::fs::read(capture.join("list-l.json")).unwrap()).unwrap();
    let mut libxl: BTreeMap<u16, Value> = BTreeMap::new();
    for domain in listed.as_array().unwrap() {
        let mut config = domain["config"].clone();
        config["b_info"].as_object_mut().unwrap().remove("sched_params");
        libxl.insert(domain["domid"].as_u64().unwrap().try_into().unwrap(), config);
    }
    let before = client.statistics();
    let mut retriever = Retriever::new(client, &templates).means(means);
    let domids = retriever.domains().unwrap();
    assert_eq!(
        domids.iter().map(|domid| domid.get()).collect::<Vec<_>>(),
        libxl.keys().copied().collect::<Vec<_>>()
    );
    let answers = retriever.retrieve_all(&domids);
    let trips = client.statistics().since(&before).round_trips;
    assert!(trips <= 5, "{trips} round trips for the list of domains and all of them");
    let retriever = Retriever::new(client, &templates).means(means);
    let alone = retriever.attachments(false).retrieve_all(&domids);
    let mut compared = 0;
    for ((domid, answer), (_, alone)) in answers.into_iter().zip(alone) {
        let retrieved = answer.unwrap();
        let told = |retrieved: &Retrieved| retrieved.config.to_json(Layout::Yajl);
        assert_eq!(told(&retrieved), told(&alone.unwrap()), "domain {domid} without its states");
        if domid == DomId::DOM0 {
            continue;
        }
        let ours = json(&retrieved.config);
        let theirs = &libxl[&domid.get()];
        assert_eq!(&ours, theirs, "{} domain {domid}: {:#?}", capture.display(), retrieved.report);
        compared += 1;
    }
    compared
}

#[test]
fn on_c_xenstored_every_captured_domain_is_retrieved_as_libxl_does() {
    const TEST: &str = "on_c_xenstored_every_captured_domain_is_retrieved_as_libxl_does";
    let captures = captures();
    if captures.is_empty() {
        println!("skipped: {TEST}: no ../shared/captures");
        return;
    }
    for capture in captures {
        let Some((_daemon, mut client)) = daemon(TEST, Kind::C, &capture) else { return };
        for means in [Means::Fence, Means::Transaction] {
            assert!(compare(&mut client, &capture, means) > 0);
        }
    }
}

#[test]
fn on_oxenstored_every_captured_domain_is_retrieved_as_libxl_does() {
    const TEST: &str = "on_oxenstored_every_captured_domain_is_retrieved_as_libxl_does";
    let captures = captures();
    if captures.is_empty() {
        println!("skipped: {TEST}: no ../shared/captures");
        return;
    }
    for capture in captures {
        let Some((_daemon, mut client)) = daemon(TEST, Kind::OCaml, &capture) else { return };
        assert!(compare(&mut client, &capture, Means::Fence) > 0);
    }
}

#[test]
fn a_block_attach_that_was_killed_is_reported_as_half_attached() {
    const TEST: &str = "a_block_attach_that_was_killed_is_reported_as_half_attached";
    let Some(capture) =
        captures().into_iter().find(|capture| capture.ends_with("25-killed-in-block-attach"))
    else {
        println!("skipped: {TEST}: no ../shared/captures");
        return;
    };
    let Some((_daemon, mut client)) = daemon(TEST, Kind::C, &capture) else { return };
    let templates = UserdataDir::open(&capture).unwrap();
    let retrieved = Retriever::new(&mut client, &templates).retrieve(DomId::new(7)).unwrap();
    let disk = |id: &str| retrieved.report.device(DeviceClass::Disk, id).unwrap();
    assert_eq!(disk("xvda").attachment, Attachment::Connected);
    assert_eq!(
        disk("xvdd").attachment,
        Attachment::HalfAttached { backend_state: BackendState(2), missing: Missing::Script }
    );
    assert_eq!((disk("xvdd").presence, disk("xvdd").in_configuration), (Presence::Both, true));
    assert!(!retrieved.report.is_clean());
}
