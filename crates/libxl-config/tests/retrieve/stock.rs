//! Stock daemons, with somebody else changing the domain all the time.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use libxl_config::model::MemKb;
use libxl_config::retrieve::{Attachment, Consistency, Means, Retriever};
use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use xsclient::{Client, Endpoint, Nodes, OperationError, Options, Request, RetryPolicy};

use crate::hosts::{self, GUEST, disk, templates, vdevs};

/// How many answers are looked at.
const ANSWERS: usize = 150;

fn open(socket: PathBuf) -> Client {
    Client::open(Endpoint::UnixSocket(socket), Options::default()).unwrap()
}

/// Renames the guest, sets its memory to a number that fits the name, and plugs a disk in or out: each time in one
/// transaction.
fn keep_changing(socket: PathBuf, stop: &Receiver<()>) -> u32 {
    let mut client = open(socket);
    let mut changes = 0;
    while stop.recv_timeout(Duration::from_millis(2)) == Err(RecvTimeoutError::Timeout) {
        changes += 1;
        let mut requests = vec![
            hosts::write("/local/domain/7/name", &format!("guest{changes}")),
            hosts::write("/local/domain/7/memory/target", &changes.to_string()),
            hosts::write("/local/domain/7/memory/static-max", &changes.to_string()),
        ];
        if changes % 2 == 0 {
            requests.extend(disk("xvdb", 51728, "4"));
        } else {
            for path in [
                "/libxl/7/device/vbd/51728",
                "/local/domain/7/device/vbd/51728",
                "/local/domain/0/backend/vbd/7/51728",
            ] {
                requests.push(Request::Rm(path.parse().unwrap()));
            }
        }
        client
            .transact(&RetryPolicy::default(), |transaction| {
                for request in &requests {
                    match transaction.request(request) {
                        Err(error) if !error.is_not_found() => return Err(error),
                        _ => {}
                    }
                }
                Ok::<(), OperationError>(())
            })
            .unwrap();
    }
    changes
}

fn is_never_torn(test: &str, kind: Kind, means: Means) {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {test}: {reason}"),
    };
    let daemon = match StockDaemon::start(kind, packages) {
        Err(StartError::Unavailable(reason)) => return println!("skipped: {test}: {reason}"),
        daemon => daemon.unwrap(),
    };
    daemon.fill(&hosts::xenstore().snapshot().to_text()).unwrap();
    let socket = daemon.socket().to_owned();
    let (stop, stopped) = channel();
    let changing = std::thread::spawn({
        let socket = socket.clone();
        move || keep_changing(socket, &stopped)
    });
    let mut client = open(socket);
    let templates = templates(&["xvda", "xvdb"]);
    let (mut consistent, mut with_xvdb) = (0, 0);
    for _ in 0..ANSWERS {
        let retrieved =
            Retriever::new(&mut client, &templates).means(means).retrieve(GUEST).unwrap();
        if !matches!(retrieved.report.consistency, Consistency::Consistent { .. }) {
            continue;
        }
        consistent += 1;
        let config = &retrieved.config;
        let name = config.c_info.name.as_deref().unwrap();
        let number: u64 = name.strip_prefix("guest").map_or(262_144, |n| n.parse().unwrap());
        let memory = [config.b_info.target_memkb, config.b_info.max_memkb].map(MemKb::get);
        assert_eq!(memory, [Some(number); 2], "{name}: {:?}", retrieved.report);
        let xvdb = retrieved.report.devices.iter().find(|device| device.id == "xvdb").unwrap();
        let plugged = name != "web" && number.is_multiple_of(2);
        let expected = if plugged { Attachment::Connected } else { Attachment::Absent };
        assert_eq!(xvdb.attachment, expected, "{name}: {:?}", retrieved.report);
        assert_eq!(vdevs(&retrieved).contains(&"xvdb"), plugged);
        with_xvdb += usize::from(plugged);
    }
    stop.send(()).unwrap();
    let changes = changing.join().unwrap();
    assert!(consistent > ANSWERS / 4, "{consistent} of {ANSWERS} consistent, {changes} changes");
    assert!(changes > 20 && with_xvdb > 0 && with_xvdb < consistent, "{changes}, {with_xvdb}");
}

#[test]
fn on_c_xenstored_a_fenced_answer_is_never_torn() {
    is_never_torn("on_c_xenstored_a_fenced_answer_is_never_torn", Kind::C, Means::Fence);
}

#[test]
fn on_c_xenstored_a_transactions_answer_is_never_torn() {
    is_never_torn(
        "on_c_xenstored_a_transactions_answer_is_never_torn",
        Kind::C,
        Means::Transaction,
    );
}

#[test]
fn on_oxenstored_a_fenced_answer_is_never_torn() {
    is_never_torn("on_oxenstored_a_fenced_answer_is_never_torn", Kind::OCaml, Means::Fence);
}

#[test]
fn on_oxenstored_a_transactions_answer_is_never_torn() {
    const TEST: &str = "on_oxenstored_a_transactions_answer_is_never_torn";
    is_never_torn(TEST, Kind::OCaml, Means::Transaction);
}
