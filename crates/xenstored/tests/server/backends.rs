//! What a backend is told, and what happens when it fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
use xenstored::{Backend, BackendError, KeptNode, NodeChange, Server, Store, fuzzing};

use crate::driver::{Driver, mkdir, path, read, rm, set_perms, value, watch, write};
use crate::quotas::{DOMIDS, World, any_step};

const FAILED: Reply = Reply::Error(Errno::EIO);

/// Keeps nodes in a map, and fails when it is told to.
#[derive(Clone, Debug, Default)]
struct Recorder(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    nodes: BTreeMap<u64, KeptNode>,
    calls: usize,
    fails: bool,
}

impl Backend for Recorder {
    fn load(&mut self) -> Result<Vec<KeptNode>, BackendError> {
        Ok(self.0.lock().unwrap().nodes.values().cloned().collect())
    }

    fn keep(&mut self, changes: &[NodeChange]) -> Result<(), BackendError> {
        let mut kept = self.0.lock().unwrap();
        if kept.fails {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(BackendError::Failed { step: "write".into(), source: source.into() });
        }
        kept.calls += 1;
        for change in changes {
            match change {
                NodeChange::Put(node) => {
                    kept.nodes.insert(node.id, node.clone());
                }
                NodeChange::Remove(id) => {
                    assert!(kept.nodes.remove(id).is_some(), "{id} was not there")
                }
            }
        }
        Ok(())
    }
}

impl Recorder {
    fn fail(&self, fails: bool) {
        self.0.lock().unwrap().fails = fails;
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().calls
    }

    /// The store that a server would start with now.
    fn store(&self) -> Store {
        Server::open(self.clone(), Store::new()).unwrap().store().clone()
    }
}

#[test]
fn what_a_backend_keeps_is_what_the_next_server_starts_with() {
    let recorder = Recorder::default();
    let first = Store::from_text("/ = \"\"   (r0)\n/first = \"1\"   (n0)\n").unwrap();
    let mut driver = Driver::of(Server::open(recorder.clone(), first).unwrap());
    let us = driver.connect(0);
    assert_eq!(recorder.calls(), 1, "the store that it starts with is kept");
    assert_eq!(driver.ask(us, TxId::NONE, &write("/z/y", "2")), Reply::Ok);
    assert_eq!(driver.ask(us, TxId::NONE, &write("/z/a", "3")), Reply::Ok);
    assert_eq!(driver.ask(us, TxId::NONE, &rm("/first")), Reply::Ok);
    let tx = driver.begin(us);
    for request in [write("/z/y", "4"), mkdir("/z/y/deep"), set_perms("/z", "n3"), rm("/z/a")] {
        assert_eq!(driver.ask(us, tx, &request), Reply::Ok);
    }
    assert_eq!(recorder.calls(), 4, "nothing of a transaction before it is committed");
    assert_eq!(driver.end(us, tx, true), Reply::Ok);
    assert_eq!(recorder.calls(), 5, "a transaction is kept at once");
    // Nothing changes, and nothing is kept.
    for request in [mkdir("/z"), rm("/nothing"), read("/z/y")] {
        driver.ask(us, TxId::NONE, &request);
    }
    assert_eq!(recorder.calls(), 5);
    let ignored = Store::from_text("/ignored = \"\"   (n0)\n").unwrap();
    let mut again = Driver::of(Server::open(recorder.clone(), ignored).unwrap());
    assert_eq!(again.server.store(), driver.server.store());
    // It goes on from there: new nodes are not taken for old ones.
    let us = again.connect(0);
    assert_eq!(again.ask(us, TxId::NONE, &mkdir("/z/b")), Reply::Ok);
    assert_eq!(again.server.store(), &recorder.store());
    assert_eq!(again.server.store().children(&path("/z")), Some(vec!["y", "b"]));
}

#[test]
fn what_a_backend_does_not_keep_has_not_happened() {
    let recorder = Recorder::default();
    let text = "/a = \"a\"   (n0)\n/b/c = \"c\"   (n7)\n";
    let server = Server::open(recorder.clone(), Store::from_text(text).unwrap()).unwrap();
    let mut driver = Driver::of(server);
    let (us, watcher) = (driver.connect(0), driver.connect(0));
    let introduce = Request::Introduce { domid: DomId::new(7), gfn: 1, event_channel: 1 };
    assert_eq!(driver.ask(us, TxId::NONE, &introduce), Reply::Ok);
    for at in ["/", "@releaseDomain"] {
        assert_eq!(driver.ask(watcher, TxId::NONE, &watch(at, "t", None)), Reply::Ok);
    }
    driver.events(watcher);
    let guest = driver.connect(7);
    let tx = driver.begin(us);
    assert_eq!(driver.ask(us, tx, &write("/a", "in the transaction")), Reply::Ok);
    let before = driver.server.store().clone();
    recorder.fail(true);
    for request in [
        write("/a", "new"),
        write("/new/deep", ""),
        mkdir("/new"),
        rm("/b"),
        set_perms("/b", "n3"),
        Request::Release(DomId::new(7)),
    ] {
        assert_eq!(driver.ask(us, TxId::NONE, &request), FAILED, "{request:?}");
        assert_eq!(driver.server.store(), &before, "{request:?}");
        fuzzing::accounts_are_exact(&driver.server);
    }
    assert_eq!(driver.end(us, tx, true), FAILED);
    assert_eq!(driver.server.store(), &before);
    assert_eq!(driver.events(watcher), [""; 0], "nobody is told");
    assert!(driver.server.is_open(guest), "the domain is not released");
    // What changes nothing needs no backend.
    assert_eq!(driver.ask(us, TxId::NONE, &read("/a")), value("a"));
    assert_eq!(driver.ask(us, TxId::NONE, &mkdir("/a")), Reply::Ok);
    recorder.fail(false);
    assert_eq!(driver.ask(us, TxId::NONE, &write("/a", "new")), Reply::Ok);
    assert_eq!(driver.events(watcher), ["/a t"]);
    assert_eq!(driver.ask(us, TxId::NONE, &Request::Release(DomId::new(7))), Reply::Ok);
    assert_eq!(recorder.store(), *driver.server.store());
}

#[test]
fn a_damaged_store_is_not_opened() {
    let node = |id, parent, name: &str| KeptNode {
        id,
        parent,
        name: name.into(),
        value: Vec::new(),
        perms: "n0".parse().unwrap(),
    };
    for (nodes, wrong) in [
        (vec![node(0, 0, ""), node(3, 2, "a")], "nothing above it"),
        (vec![node(0, 0, ""), node(3, 0, "a/b")], "no name"),
        (vec![node(0, 0, ""), node(3, 0, "a"), node(4, 0, "a")], "a second one at its path"),
        (vec![node(3, 0, "a")], "nothing above it"),
    ] {
        let recorder = Recorder::default();
        recorder.0.lock().unwrap().nodes = nodes.into_iter().map(|node| (node.id, node)).collect();
        match Server::open(recorder, Store::new()) {
            Err(BackendError::Damaged { what, .. }) => assert_eq!(what, wrong),
            other => panic!("{wrong}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn after_every_step_of_any_history_a_backend_keeps_the_store_or_nothing_has_happened(
        steps in proptest::collection::vec(
            (0..DOMIDS.len(), any_step(), proptest::bool::weighted(0.2)), 0..80)
    ) {
        let recorder = Recorder::default();
        let mut world = World::on(recorder.clone());
        for (who, step, fails) in &steps {
            let before = world.driver.server.store().clone();
            recorder.fail(*fails);
            world.step(DOMIDS[*who], step);
            prop_assert_eq!(&recorder.store(), world.driver.server.store());
            prop_assert!(!fails || *world.driver.server.store() == before);
            fuzzing::accounts_are_exact(&world.driver.server);
        }
    }
}
