//! A domain's watches and transactions, out of one server and into another by CONTROL.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;
use xenstore_migration::domain_state::{
    ConnectionState, DomainState, PendingNode, TransactionState, Translation, WatchState,
};
use xenstore_migration::{
    ByteOrder, NodeAccess, Peer, Preamble, ReadOptions, StreamReader, StreamWriter, Version,
};
use xenstore_proto::{DomId, Errno, Features, Reply, Request, TxId};
use xenstored::{ConnectionId, Quota, Server, Store};

use crate::driver::{Driver, directory, mkdir, path, read, rm, set_perms, value, watch, write};

pub(crate) const FROM: DomId = DomId::new(7);
const TO: DomId = DomId::new(12);

/// What both servers hold, in the tree of one domain.
fn nodes(domid: DomId) -> String {
    let node = |below: &str, value: &str| {
        format!("/local/domain/{domid}{below} = \"{value}\"   (n{domid})\n")
    };
    let shared = "/local = \"\"   (n0)\n/local/domain = \"\"   (n0)\n/tool = \"t\"   (n0,r7,r12)\n";
    let own = [("", ""), ("/a", "1"), ("/a/b", "2"), ("/a/c", ""), ("/d", "3")];
    own.iter().fold(shared.to_owned(), |text, (below, value)| text + &node(below, value))
}

pub(crate) fn host(domid: DomId) -> Driver {
    Driver::of(Server::new(Store::from_text(nodes(domid)).unwrap()))
}

pub(crate) fn control(
    driver: &mut Driver,
    from: ConnectionId,
    words: &[&str],
) -> Result<String, Errno> {
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    match driver.ask(from, TxId::NONE, &Request::Control(words)) {
        Reply::Text(text) => Ok(String::from_utf8(text).unwrap()),
        Reply::Error(errno) => Err(errno),
        other => panic!("{other:?}"),
    }
}

/// One page: generation, octets of all, octets from the offset on.
pub(crate) fn page(
    driver: &mut Driver,
    dom0: ConnectionId,
    domid: DomId,
    at: usize,
) -> (String, usize, Vec<u8>) {
    let words = ["domain-state", &domid.to_string(), &at.to_string()];
    let text = control(driver, dom0, &words).unwrap();
    let [generation, total, hex] = text.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    let octet = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let octets = (0..hex.len()).step_by(2).map(octet).collect();
    (generation.to_owned(), total.parse().unwrap(), octets)
}

pub(crate) fn all_pages(driver: &mut Driver, dom0: ConnectionId, domid: DomId) -> (Vec<u8>, usize) {
    let (generation, total, mut octets) = page(driver, dom0, domid, 0);
    let mut pages = 1;
    while octets.len() < total {
        let (same, _, more) = page(driver, dom0, domid, octets.len());
        assert_eq!(same, generation);
        assert!(!more.is_empty());
        octets.extend(more);
        pages += 1;
    }
    (octets, pages)
}

pub(crate) fn told(driver: &mut Driver, dom0: ConnectionId, domid: DomId) -> DomainState {
    let (octets, _) = all_pages(driver, dom0, domid);
    let mut reader = StreamReader::open(&*octets, ReadOptions::default().strict()).unwrap();
    DomainState::from_stream(&mut reader).unwrap().state
}

pub(crate) fn octets(state: &DomainState) -> Vec<u8> {
    let preamble = Preamble::new(Version::V2, ByteOrder::Big);
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    state.to_stream(&mut writer).unwrap();
    writer.finish().unwrap()
}

pub(crate) fn give(
    driver: &mut Driver,
    dom0: ConnectionId,
    to: DomId,
    octets: &[u8],
) -> Result<String, Errno> {
    let domid = to.to_string();
    let mut answer =
        control(driver, dom0, &["domain-state-set", &domid, &octets.len().to_string()])?;
    for (number, part) in octets.chunks(2000).enumerate() {
        assert_eq!(answer, (number * 2000).to_string());
        let hex: String = part.iter().map(|octet| format!("{octet:02x}")).collect();
        answer = control(driver, dom0, &["domain-state-set", &domid, &answer, &hex])?;
    }
    Ok(answer)
}

/// The watches whatever their order, and the transactions.
pub(crate) fn essence(state: &DomainState) -> (BTreeSet<String>, Vec<TransactionState>) {
    let connection = state.connection.clone().unwrap();
    let watches =
        connection.watches.iter().map(|watch: &WatchState| format!("{watch:?}")).collect();
    (watches, connection.transactions)
}

pub(crate) fn without_messages(mut state: DomainState) -> DomainState {
    let connection = state.connection.take().unwrap();
    let (input, output) = (Vec::new(), Vec::new());
    state.connection = Some(ConnectionState { input, output, output_rest: 0, ..connection });
    state
}

/// The transaction with each node that it has written read as well: one of which it is not told what was done counts so when it
/// is opened again.
fn looked_for(open: &TransactionState) -> TransactionState {
    let mut open = open.clone();
    for pending in open.nodes.values_mut() {
        if let PendingNode::Seen { access, .. } = pending {
            access.0 |= NodeAccess::READ.0;
        }
    }
    open
}

#[derive(Clone, Debug)]
enum Step {
    Watch(&'static str, Option<u32>),
    Begin,
    /// In one of the open transactions.
    Ask(usize, Request),
    End(usize, bool),
    /// By somebody else, outside.
    Disturb(Request),
}

fn requests(paths: &'static [&'static str]) -> impl Strategy<Value = Request> {
    let at = move || prop::sample::select(paths);
    prop_oneof![
        4 => at().prop_map(read),
        2 => at().prop_map(directory),
        4 => (at(), prop::sample::select(&["x", "yy", "1"][..])).prop_map(|(at, value)| write(at, value)),
        1 => at().prop_map(mkdir),
        2 => at().prop_map(rm),
        1 => at().prop_map(|at| set_perms(at, "n7,r0")),
    ]
}

/// Relative, so that they are of the domain that asks.
const OWN: [&str; 6] = ["a", "a/b", "a/c", "d", "e/f", "a/b/g"];
const OWN_ABSOLUTE: [&str; 3] = ["/local/domain/7/a", "/local/domain/7/a/b", "/local/domain/7/d"];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let watched =
        ["a", "/local/domain/7/a", "/tool", "@releaseDomain", "@releaseDomain/7", "nowhere"];
    let depth = prop_oneof![Just(None), Just(Some(0)), Just(Some(3)), Just(Some(u32::MAX))];
    let disturbing = requests(&OWN_ABSOLUTE);
    let step = prop_oneof![
        4 => (prop::sample::select(watched.to_vec()), depth).prop_map(|(at, depth)| Step::Watch(at, depth)),
        2 => Just(Step::Begin),
        12 => (0..4_usize, requests(&OWN)).prop_map(|(which, request)| Step::Ask(which, request)),
        1 => (0..4_usize, any::<bool>()).prop_map(|(which, commit)| Step::End(which, commit)),
        1 => disturbing.prop_map(Step::Disturb),
    ];
    vec(step, 1..60)
}

fn carry_out(driver: &mut Driver, dom0: ConnectionId, guest: ConnectionId, steps: &[Step]) {
    let mut open: Vec<TxId> = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Watch(at, depth) => {
                let request = watch(at, &format!("token {number}"), *depth);
                assert_eq!(driver.ask(guest, TxId::NONE, &request), Reply::Ok);
            }
            Step::Begin if open.len() < 4 => open.push(driver.begin(guest)),
            Step::Begin => {}
            Step::Ask(which, request) => {
                if let Some(tx) = open.get(*which) {
                    driver.ask(guest, *tx, request);
                }
            }
            Step::End(which, commit) => {
                if *which < open.len() {
                    let tx = open.remove(*which);
                    driver.end(guest, tx, *commit);
                }
            }
            Step::Disturb(request) => drop(driver.ask(dom0, TxId::NONE, request)),
        }
    }
    driver.events(guest);
}

/// All nodes as text without the domain's number, but for the order in which siblings were made.
fn tree(driver: &Driver, domid: DomId) -> BTreeSet<String> {
    let digits = domid.to_string();
    let text = driver.server.store().to_text();
    let text = text.replace(&format!("/domain/{digits}"), "/domain/N");
    text.replace(&format!("n{digits}"), "nN").lines().map(str::to_owned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_domain_has_done_another_server_goes_on_with_it_under_another_number(steps in steps()) {
        let mut source = host(FROM);
        let (dom0, guest) = (source.connect(0), source.connect(7));
        carry_out(&mut source, dom0, guest, &steps);
        let state = told(&mut source, dom0, FROM);
        let translation = Translation::new(FROM, TO);
        let wanted = translation.apply(&without_messages(state)).unwrap();

        // The other has the same nodes.
        let text = source.server.store().to_text();
        let text = text.replace("/domain/7", "/domain/12").replace("(n7", "(n12");
        let mut target = Driver::of(Server::new(Store::from_text(&text).unwrap()));
        let (other_dom0, moved) = (target.connect(0), target.connect(12));
        let answer = give(&mut target, other_dom0, TO, &octets(&wanted));
        prop_assert_eq!(answer, Ok("set".to_owned()));
        prop_assert_eq!(target.told(moved), Vec::new(), "the first event has been told");
        let again = told(&mut target, other_dom0, TO);
        let (watches, transactions) = essence(&again);
        let (watches_then, transactions_then) = essence(&wanted);
        prop_assert_eq!(watches, watches_then);
        prop_assert_eq!(transactions.len(), transactions_then.len());
        for (now, then) in transactions.iter().zip(&transactions_then) {
            let root = path("/");
            // Of one that has read what is outside the domain's trees less can be known.
            let foreign = then.nodes.keys().any(|at| !at.as_str().starts_with("/local/domain/12"));
            let given_up = now.nodes.get(&root) == Some(&PendingNode::Missed);
            let (now, then) = (looked_for(now), looked_for(then));
            prop_assert!(now == then || (foreign && given_up), "{:?} has become {:?}", then, now);
        }
        for (at, node) in &again.nodes {
            prop_assert!(wanted.nodes.get(at).is_none_or(|then| then == node), "{}", at);
        }
        prop_assert_eq!(control(&mut target, other_dom0, &["check"]), Ok("OK".to_owned()));

        // And what it does from now on has the same end. One that cannot be told is tried again by the domain; and since it
        // is not told what of a node was read, one may conflict with the one before it that did not.
        let mut committed = false;
        for open in &transactions {
            let there = target.end(moved, open.id, true);
            if open.nodes.get(&path("/")) == Some(&PendingNode::Missed) {
                prop_assert_eq!(there, Reply::Error(Errno::EAGAIN));
                source.end(guest, open.id, false);
                continue;
            }
            if committed && there == Reply::Error(Errno::EAGAIN) {
                break;
            }
            prop_assert_eq!(source.end(guest, open.id, true), there);
            prop_assert_eq!(tree(&source, FROM), tree(&target, TO));
            committed = true;
        }
    }
}

#[test]
fn a_watch_that_came_back_hears_and_its_depth_holds() {
    let mut source = host(FROM);
    let (dom0, guest) = (source.connect(0), source.connect(7));
    assert_eq!(source.ask(guest, TxId::NONE, &watch("a", "rel", Some(1))), Reply::Ok);
    assert_eq!(source.ask(guest, TxId::NONE, &watch("/local/domain/7/d", "abs", None)), Reply::Ok);
    source.events(guest);
    let wanted = Translation::new(FROM, TO).apply(&told(&mut source, dom0, FROM)).unwrap();
    let mut target = host(TO);
    let (dom0, guest) = (target.connect(0), target.connect(12));
    assert_eq!(give(&mut target, dom0, TO, &octets(&wanted)), Ok("set".to_owned()));
    for at in ["/local/domain/12/a/b", "/local/domain/12/a/b/deep", "/local/domain/12/d/x"] {
        assert_eq!(target.ask(dom0, TxId::NONE, &write(at, "new")), Reply::Ok);
    }
    assert_eq!(target.events(guest), ["a/b rel", "/local/domain/12/d/x abs"]);
}

#[test]
fn a_transaction_goes_on_unless_what_it_has_read_has_changed() {
    let disturbances = [
        (None, Reply::Ok),
        // A neighbour, and what it has written without looking.
        (Some(write("/local/domain/7/a/c", "other")), Reply::Ok),
        (Some(write("/local/domain/7/blind", "other")), Reply::Ok),
        // What it has read, looked for and not found, listed, and removed.
        (Some(write("/local/domain/7/a/b", "other")), Reply::Error(Errno::EAGAIN)),
        (Some(set_perms("/local/domain/7/a/b", "n7,r3")), Reply::Error(Errno::EAGAIN)),
        (Some(write("/local/domain/7/missing", "")), Reply::Error(Errno::EAGAIN)),
        (Some(write("/local/domain/7/a/new", "")), Reply::Error(Errno::EAGAIN)),
        (Some(write("/local/domain/7/d", "other")), Reply::Error(Errno::EAGAIN)),
        // What it has written below is gone.
        (Some(rm("/local/domain/7/e")), Reply::Error(Errno::EAGAIN)),
    ];
    for (disturbance, expected) in disturbances {
        let mut driver = host(FROM);
        let (dom0, guest) = (driver.connect(0), driver.connect(7));
        for at in ["blind", "e"] {
            assert_eq!(driver.ask(guest, TxId::NONE, &write(at, "")), Reply::Ok);
        }
        let tx = driver.begin(guest);
        assert_eq!(driver.ask(guest, tx, &read("a/b")), value("2"));
        assert_eq!(driver.ask(guest, tx, &read("missing")), Reply::Error(Errno::ENOENT));
        assert!(matches!(driver.ask(guest, tx, &directory("a")), Reply::Names(_)));
        for request in [write("a/b", "mine"), write("blind", "mine"), rm("d"), write("e/f/g", "x")]
        {
            assert_eq!(driver.ask(guest, tx, &request), Reply::Ok);
        }
        let state = without_messages(told(&mut driver, dom0, FROM));
        driver.server.disconnect(guest);
        let again = driver.connect(7);
        if let Some(request) = &disturbance {
            assert_eq!(driver.ask(dom0, TxId::NONE, request), Reply::Ok);
        }
        assert_eq!(give(&mut driver, dom0, FROM, &octets(&state)), Ok("set".to_owned()));
        assert_eq!(driver.end(again, tx, true), expected, "{disturbance:?}");
        let committed = expected == Reply::Ok;
        let store = driver.server.store();
        assert_eq!(store.exists(&path("/local/domain/7/e/f/g")), committed, "{disturbance:?}");
    }
}

#[test]
fn a_domain_gets_all_of_a_state_or_nothing() {
    let mut source = host(FROM);
    let (dom0, guest) = (source.connect(0), source.connect(7));
    for (at, token) in [("a", "1"), ("d", "2"), ("nowhere", "3")] {
        assert_eq!(source.ask(guest, TxId::NONE, &watch(at, token, Some(2))), Reply::Ok);
    }
    let open = [source.begin(guest), source.begin(guest)];
    assert_eq!(source.ask(guest, open[1], &write("d", "4")), Reply::Ok);
    source.events(guest);
    let state = told(&mut source, dom0, FROM);
    let whole = octets(&state);

    let refused = |prepare: &dyn Fn(&mut Driver, ConnectionId), octets: &[u8], expected: Errno| {
        let mut target = host(FROM);
        let (dom0, guest) = (target.connect(0), target.connect(7));
        prepare(&mut target, guest);
        target.events(guest);
        let usage = target.server.usage_of(FROM);
        assert_eq!(give(&mut target, dom0, FROM, octets), Err(expected));
        assert_eq!(target.server.usage_of(FROM), usage);
        assert_eq!(control(&mut target, dom0, &["check"]), Ok("OK".to_owned()));
    };
    let limited = |quota, limit| {
        move |driver: &mut Driver, _: ConnectionId| {
            driver.server.set_quota(Some(FROM), quota, limit)
        }
    };
    refused(&limited(Quota::Watches, 2), &whole, Errno::ENOSPC);
    refused(&limited(Quota::Transactions, 1), &whole, Errno::ENOSPC);
    let watching = |driver: &mut Driver, guest| {
        assert_eq!(driver.ask(guest, TxId::NONE, &watch("nowhere", "3", None)), Reply::Ok);
    };
    refused(&watching, &whole, Errno::EEXIST);
    refused(&|driver, guest| assert_ne!(driver.begin(guest), TxId::NONE), &whole, Errno::EEXIST);
    let restricted = |driver: &mut Driver, guest: ConnectionId| {
        driver.server.disconnect(guest);
        let none = Features::default();
        driver.server.apply(Request::SetFeature { domid: FROM, features: none });
        driver.connect(7);
    };
    refused(&restricted, &whole, Errno::EINVAL);

    // What is no state of this domain: cut anywhere, continued, another's, with messages, with none.
    let nothing = |_: &mut Driver, _: ConnectionId| {};
    for len in 1..whole.len() {
        refused(&nothing, &whole[..len], Errno::EINVAL);
    }
    refused(&nothing, &[&whole[..], &[0; 8]].concat(), Errno::EINVAL);
    let others = Translation::new(FROM, TO).apply(&state).unwrap();
    refused(&nothing, &octets(&others), Errno::EINVAL);
    let mut with_messages = state.clone();
    with_messages.connection.as_mut().unwrap().output = vec![0; 16];
    refused(&nothing, &octets(&with_messages), Errno::EINVAL);
    refused(&nothing, &octets(&DomainState { connection: None, ..state }), Errno::EINVAL);
}

#[test]
fn pages_that_are_not_the_next_end_an_upload_and_so_does_its_connection() {
    let mut driver = host(FROM);
    let (dom0, _guest) = (driver.connect(0), driver.connect(7));
    let mut ask = |words: &[&str]| control(&mut driver, dom0, words);
    let begin = ["domain-state-set", "7", "4"];
    for wrong in [
        &["domain-state-set", "7", "1", "00"][..],
        &["domain-state-set", "12", "0", "00"],
        &["domain-state-set", "7", "0", ""],
        &["domain-state-set", "7", "0", "0"],
        &["domain-state-set", "7", "0", "0x"],
        &["domain-state-set", "7", "0", "0011223344"],
    ] {
        assert_eq!(ask(&begin), Ok("0".to_owned()));
        assert_eq!(ask(wrong), Err(Errno::EINVAL), "{wrong:?}");
        assert_eq!(ask(&["domain-state-set", "7", "0", "00"]), Err(Errno::EINVAL), "it has ended");
    }
    assert_eq!(ask(&["domain-state-set", "7", "4194305"]), Err(Errno::E2BIG));
    assert_eq!(ask(&begin), Ok("0".to_owned()));
    let other = driver.connect(0);
    let foreign = control(&mut driver, other, &["domain-state-set", "7", "0", "00"]);
    assert_eq!(foreign, Err(Errno::EINVAL));
}

#[test]
fn whose_state_cannot_be_told_is_said_and_guests_do_not_ask() {
    let mut driver = host(FROM);
    let dom0 = driver.connect(0);
    for (domid, expected) in [("9", Errno::ENOENT), ("0", Errno::EPERM), ("x", Errno::EINVAL)] {
        assert_eq!(control(&mut driver, dom0, &["domain-state", domid]), Err(expected.clone()));
        assert_eq!(control(&mut driver, dom0, &["domain-state-set", domid, "16"]), Err(expected));
    }
    let guest = driver.connect(9);
    for words in [&["domain-state", "9"][..], &["domain-state-set", "9", "16"]] {
        assert_eq!(control(&mut driver, guest, words), Err(Errno::EACCES));
    }
    assert!(control(&mut driver, dom0, &["domain-state", "9"]).is_ok());
    let _second = driver.connect(9);
    assert_eq!(control(&mut driver, dom0, &["domain-state", "9"]), Err(Errno::EBUSY));
}

#[test]
fn a_transaction_that_came_back_does_only_what_its_domain_may() {
    let mut driver = host(FROM);
    let (dom0, guest) = (driver.connect(0), driver.connect(7));
    let mut last = guest;
    let tx = driver.begin(guest);
    assert_eq!(driver.ask(guest, tx, &write("d", "mine")), Reply::Ok);
    let state = told(&mut driver, dom0, FROM);
    let key = path("/local/domain/7/d");
    for (at, perms) in
        [("/tool", "n0"), ("/local/domain/7/d", "n0,r7"), ("/local/domain/7/d", "n7,r9")]
    {
        let mut forged = state.clone();
        let nodes = &mut forged.connection.as_mut().unwrap().transactions[0].nodes;
        let PendingNode::Seen { access, mut node } = nodes.remove(&key).unwrap() else { panic!() };
        node.perms = perms.parse().unwrap();
        nodes.insert(path(at), PendingNode::Seen { access, node });
        driver.server.disconnect(last);
        let again = driver.connect(7);
        last = again;
        assert_eq!(give(&mut driver, dom0, FROM, &octets(&forged)), Ok("set".to_owned()));
        let may = perms == "n7,r9";
        let expected = if may { Reply::Ok } else { Reply::Error(Errno::EAGAIN) };
        assert_eq!(driver.end(again, tx, true), expected, "{at} {perms}");
    }
}
