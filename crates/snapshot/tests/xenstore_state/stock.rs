//! Stock daemons: what is read from them, with somebody else changing it meanwhile.

use std::path::Path as FsPath;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use snapshot::xenstore_state::{
    Consistency, ExtractRequest, Means, MissingReason, StatePart, extract,
};
use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use xenstored::Store;
use xsclient::{DomId, Errno, Nodes, OperationError, RetryPolicy};

use crate::hosts::{self, VM, capture, deadline, nodes_below, open, path, request};

/// A stock daemon; `None`, with a note, where there is none.
pub(crate) fn start(test: &str, kind: Kind) -> Option<StockDaemon> {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => {
            println!("skipped: {test}: {reason}");
            return None;
        }
    };
    match StockDaemon::start(kind, packages) {
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {test}: {reason}");
            None
        }
        daemon => Some(daemon.unwrap()),
    }
}

/// The domain of the capture `14-create-pvq`.
pub(crate) const CAPTURED: DomId = DomId::new(3);
pub(crate) const CAPTURED_VM: &str = "/vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4";

fn is_read_whole(test: &str, kind: Kind) {
    let (Some(listing), Some(daemon)) = (capture(test, "14-create-pvq"), start(test, kind)) else {
        return;
    };
    daemon.fill(&listing).unwrap();
    let mut client = open(daemon.socket());
    client.write(&path("/local/domain/3/data/octets"), b"\x00\xff\n\x80").unwrap();
    let mut store = Store::from_text(&listing).unwrap();
    store.write(&path("/local/domain/3/data/octets"), b"\x00\xff\n\x80").unwrap();
    let expected = nodes_below(&store, &["/local/domain/3", CAPTURED_VM, "/libxl/3"]);
    assert!(expected.len() > 100);
    for means in [Means::Transport, Means::Fence, Means::Transaction] {
        let mut request = ExtractRequest::new(CAPTURED, deadline());
        request.means = means;
        request.roots = vec![path("/libxl/3")];
        let extracted = extract(&mut client, &request).unwrap();
        assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
        assert_eq!(extracted.state.nodes, expected, "{means:?}");
        // /libxl/3/device/vbd/51712/KEY is five levels, and one more ends the read.
        assert_eq!(extracted.round_trips, 6, "{means:?}");
        for part in [StatePart::Features, StatePart::Quotas] {
            let missing = extracted.missing.iter().find(|missing| missing.part == part).unwrap();
            let MissingReason::Unreadable(error) = &missing.reason else { panic!("{missing}") };
            assert_eq!(error.errno(), Some(&Errno::ENOSYS));
        }
    }
}

#[test]
fn a_captured_domain_is_read_whole_from_c_xenstored() {
    is_read_whole("a_captured_domain_is_read_whole_from_c_xenstored", Kind::C);
}

#[test]
fn a_captured_domain_is_read_whole_from_oxenstored() {
    is_read_whole("a_captured_domain_is_read_whole_from_oxenstored", Kind::OCaml);
}

/// How many answers are looked at.
const ANSWERS: usize = 100;

/// The nodes that always hold the same number.
fn numbered() -> [String; 4] {
    [
        "/local/domain/7/name".to_owned(),
        "/local/domain/7/data/app/deep".to_owned(),
        format!("{VM}/name"),
        format!("{VM}/image/ostype"),
    ]
}

/// Gives the nodes the next number, and makes or removes another, each time in one transaction.
fn keep_changing(socket: &FsPath, stop: &Receiver<()>) -> u32 {
    let mut client = open(socket);
    let extra = path("/local/domain/7/data/even");
    let mut changes = 0;
    while stop.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
        changes += 1;
        client
            .transact(&RetryPolicy::default(), |transaction| {
                for node in numbered() {
                    transaction.write(&path(&node), changes.to_string().as_bytes())?;
                }
                if changes % 2 == 0 {
                    transaction.write(&extra.join("below").unwrap(), b"")?;
                } else {
                    transaction.rm(&extra)?;
                }
                Ok::<(), OperationError>(())
            })
            .unwrap();
    }
    changes
}

fn is_never_torn(test: &str, kind: Kind, means: Means) {
    let Some(daemon) = start(test, kind) else { return };
    daemon.fill(hosts::HOST).unwrap();
    let (stop, stopped) = channel();
    let changing = std::thread::spawn({
        let socket = daemon.socket().to_owned();
        move || keep_changing(&socket, &stopped)
    });
    let mut client = open(daemon.socket());
    let (mut consistent, mut numbers) = (0, std::collections::BTreeSet::new());
    for _ in 0..ANSWERS {
        let extracted = extract(&mut client, &request(means)).unwrap();
        if !matches!(extracted.consistency, Consistency::Consistent { .. }) {
            continue;
        }
        consistent += 1;
        let nodes = &extracted.state.nodes;
        let values = numbered().map(|node| nodes[&path(&node)].value.clone());
        if values[0] == b"web" {
            continue;
        }
        assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        let number: u32 = str::from_utf8(&values[0]).unwrap().parse().unwrap();
        let even = ["", "/below"]
            .map(|below| nodes.contains_key(&path(&format!("/local/domain/7/data/even{below}"))));
        assert_eq!(even, [number.is_multiple_of(2); 2], "{number}");
        numbers.insert(number);
    }
    stop.send(()).unwrap();
    let changes = changing.join().unwrap();
    assert!(consistent > ANSWERS / 4, "{consistent} of {ANSWERS} consistent, {changes} changes");
    assert!(changes > 20 && numbers.len() > 5, "{changes} changes, {} seen", numbers.len());
}

#[test]
fn on_c_xenstored_a_fenced_state_is_never_torn() {
    is_never_torn("on_c_xenstored_a_fenced_state_is_never_torn", Kind::C, Means::Fence);
}

#[test]
fn on_c_xenstored_a_state_of_a_transaction_is_never_torn() {
    const TEST: &str = "on_c_xenstored_a_state_of_a_transaction_is_never_torn";
    is_never_torn(TEST, Kind::C, Means::Transaction);
}

#[test]
fn on_oxenstored_a_fenced_state_is_never_torn() {
    is_never_torn("on_oxenstored_a_fenced_state_is_never_torn", Kind::OCaml, Means::Fence);
}

#[test]
fn on_oxenstored_a_state_of_a_transaction_is_never_torn() {
    const TEST: &str = "on_oxenstored_a_state_of_a_transaction_is_never_torn";
    is_never_torn(TEST, Kind::OCaml, Means::Transaction);
}
