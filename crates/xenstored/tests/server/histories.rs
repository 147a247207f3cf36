//! Any history of requests and transactions of several connections equals one where transactions run one after the other,
//! and every watch hears what one hears that looks at all of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use xenstore_proto::{Errno, Reply, TxId};
use xenstored::{ConnectionId, fuzzing};

use crate::driver::{
    Driver, directory, get_perms, mkdir, read, rm, set_perms, unwatch, watch, write,
};
use crate::model::{Model, Op, above};

/// Connections of a history: two of the control domain, two of a guest.
const DOMIDS: [u16; 4] = [0, 0, 1, 1];

#[derive(Clone, Debug)]
enum Step {
    /// Outside a transaction, or in the connection's if one is open.
    Ask(Op),
    Begin,
    /// A transaction inside the innermost one that is open.
    Nest,
    /// Of the innermost one.
    End(bool),
    Watch(String, Option<u32>),
    Unwatch(String, Option<u32>),
}

struct Running {
    /// The transaction and those inside it, each with where it starts in the transcript.
    open: Vec<(TxId, usize)>,
    /// What was asked and answered, but for what was dropped.
    transcript: Vec<(Op, Reply)>,
    /// The store when it began, and how many changes there had been.
    began: Model,
    changes_before: usize,
}

struct History {
    driver: Driver,
    connections: Vec<ConnectionId>,
    model: Model,
    changes: usize,
    running: Vec<Option<Running>>,
    /// By connection and token: path and depth.
    watches: BTreeMap<(usize, String), (String, Option<u32>)>,
}

impl Running {
    fn tx(&self) -> TxId {
        self.open[self.open.len() - 1].0
    }
}

impl History {
    fn new() -> Self {
        let mut driver = Driver::new(&[]);
        let connections = DOMIDS.map(|domid| driver.connect(domid)).to_vec();
        let running = DOMIDS.map(|_| None).into();
        Self {
            driver,
            connections,
            model: Model::new(),
            changes: 0,
            running,
            watches: BTreeMap::new(),
        }
    }

    fn step(&mut self, who: usize, step: &Step) {
        let (connection, domid) = (self.connections[who], DOMIDS[who]);
        let before = self.model.clone();
        let mut changed = Vec::new();
        match step {
            Step::Begin if self.running[who].is_none() => {
                let tx = self.driver.begin(connection);
                let (began, changes_before) = (self.model.clone(), self.changes);
                let open = vec![(tx, 0)];
                self.running[who] =
                    Some(Running { open, transcript: Vec::new(), began, changes_before });
            }
            Step::Begin => {}
            Step::Nest => {
                if let Some(running) = &mut self.running[who]
                    && let Ok(tx) = self.driver.server.start_nested(connection, running.tx())
                {
                    running.open.push((tx, running.transcript.len()));
                }
            }
            Step::End(commit) => {
                if let Some(running) = &mut self.running[who]
                    && running.open.len() > 1
                    && let Some((tx, start)) = running.open.pop()
                {
                    // Nobody else is in the one around it.
                    assert_eq!(self.driver.end(connection, tx, *commit), Reply::Ok);
                    if !commit {
                        running.transcript.truncate(start);
                    }
                } else if let Some(running) = self.running[who].take() {
                    let reply = self.driver.end(connection, running.tx(), *commit);
                    if *commit {
                        changed = self.check_commit(domid, &running, &reply);
                    } else {
                        assert_eq!(reply, Reply::Ok);
                    }
                }
            }
            Step::Ask(op) => {
                let tx = self.running[who].as_ref().map_or(TxId::NONE, Running::tx);
                let reply = self.driver.ask(connection, tx, &request(op));
                match &mut self.running[who] {
                    Some(running) => running.transcript.push((op.clone(), reply)),
                    None => {
                        assert_eq!(reply, self.model.apply(domid, op), "{op:?}");
                        changed = effective(&before, op, &reply);
                    }
                }
            }
            Step::Watch(at, depth) => {
                let token = format!("{at}-{depth:?}");
                let reply = self.driver.ask(connection, TxId::NONE, &watch(at, &token, *depth));
                let known = self.watches.insert((who, token), (at.clone(), *depth)).is_some();
                assert_eq!(reply, if known { Reply::Error(Errno::EEXIST) } else { Reply::Ok });
                // The first event comes whatever is there.
                let first = self.driver.events(connection);
                assert_eq!(first.len(), usize::from(!known));
            }
            Step::Unwatch(at, depth) => {
                let token = format!("{at}-{depth:?}");
                let reply = self.driver.ask(connection, TxId::NONE, &unwatch(at, &token));
                let known = self.watches.remove(&(who, token)).is_some();
                assert_eq!(reply, if known { Reply::Ok } else { Reply::Error(Errno::ENOENT) });
            }
        }
        self.changes += changed.len();
        self.check_events(&before, &changed);
    }

    /// A commit is right if the whole transaction gives the same answers when it runs now; one without changes, when it ran
    /// as it began. Gives the paths changed.
    fn check_commit(
        &mut self,
        domid: u16,
        running: &Running,
        reply: &Reply,
    ) -> Vec<(String, bool)> {
        if *reply != Reply::Ok {
            assert_eq!(*reply, Reply::Error(Errno::EAGAIN));
            assert_ne!(
                running.changes_before, self.changes,
                "a conflict, but nobody else changed anything"
            );
            return Vec::new();
        }
        let (mut then, mut now) = (running.began.clone(), self.model.clone());
        let mut changes = false;
        for (op, seen) in &running.transcript {
            changes |= !effective(&then, op, seen).is_empty();
            assert_eq!(then.apply(domid, op), *seen, "{op:?} in the transaction");
        }
        let mut changed: Vec<(String, bool)> = Vec::new();
        if changes {
            for (op, seen) in &running.transcript {
                for (at, removed) in effective(&now, op, seen) {
                    match changed.iter_mut().find(|(known, _)| *known == at) {
                        Some((_, known)) => *known |= removed,
                        None => changed.push((at, removed)),
                    }
                }
                assert_eq!(
                    now.apply(domid, op),
                    *seen,
                    "{op:?} as of the commit of {:?}",
                    running.transcript
                );
            }
            self.model = now;
        }
        changed
    }

    fn check_events(&mut self, before: &Model, changed: &[(String, bool)]) {
        for (who, connection) in self.connections.iter().enumerate() {
            let domid = DOMIDS[who];
            let mut expected = BTreeSet::new();
            for ((_, token), (at, depth)) in self.watches.iter().filter(|((of, _), _)| *of == who) {
                for (path, removed) in changed {
                    let there = before.exists(path) || self.model.exists(path);
                    let hears = before.hears(domid, path) || self.model.hears(domid, path);
                    if there && hears && covers(at, *depth, path) {
                        expected.insert(format!("{path} {token}"));
                    }
                    let was_below = at.starts_with(&format!("{path}/")) && before.exists(at);
                    let hears = before.hears(domid, at) || self.model.hears(domid, at);
                    if *removed && was_below && hears {
                        expected.insert(format!("{at} {token}"));
                    }
                }
            }
            let told: BTreeSet<String> = self.driver.events(*connection).into_iter().collect();
            assert_eq!(told, expected, "events of connection {who} for {changed:?}");
        }
    }
}

/// What a request changed, given what was there: the path, and whether it was removed.
fn effective(before: &Model, op: &Op, reply: &Reply) -> Vec<(String, bool)> {
    let (Some(at), Reply::Ok) = (op.changes(), reply) else { return Vec::new() };
    match op {
        Op::Mkdir(_) if before.exists(at) => Vec::new(),
        Op::Rm(_) if !before.exists(at) => Vec::new(),
        Op::Rm(_) => vec![(at.to_owned(), true)],
        _ => vec![(at.to_owned(), false)],
    }
}

fn covers(watched: &str, depth: Option<u32>, path: &str) -> bool {
    let mut at = path.to_owned();
    let mut levels = 0;
    while at != watched {
        if at == "/" {
            return false;
        }
        at = above(&at);
        levels += 1;
    }
    depth.is_none_or(|depth| levels <= depth)
}

fn request(op: &Op) -> xenstore_proto::Request {
    match op {
        Op::Read(at) => read(at),
        Op::Directory(at) => directory(at),
        Op::GetPerms(at) => get_perms(at),
        Op::Write(at, value) => write(at, value),
        Op::Mkdir(at) => mkdir(at),
        Op::Rm(at) => rm(at),
        Op::SetPerms(at, perms) => set_perms(at, perms),
    }
}

fn any_path() -> impl Strategy<Value = String> {
    prop_oneof![1 => Just("/".to_owned()), 12 => "(/[ab]){1,3}"]
}

fn any_op() -> impl Strategy<Value = Op> {
    let perms = prop_oneof!["[nrwb]0(,[nrwb]1)?", "[nrwb]1(,[nrwb]0)?"];
    prop_oneof![
        2 => any_path().prop_map(Op::Read),
        2 => any_path().prop_map(Op::Directory),
        1 => any_path().prop_map(Op::GetPerms),
        4 => (any_path(), "[xyz]").prop_map(|(at, value)| Op::Write(at, value)),
        1 => any_path().prop_map(Op::Mkdir),
        2 => any_path().prop_map(Op::Rm),
        2 => (any_path(), perms).prop_map(|(at, perms)| Op::SetPerms(at, perms)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    let depth = || proptest::option::of(0_u32..3);
    prop_oneof![
        20 => any_op().prop_map(Step::Ask),
        3 => Just(Step::Begin),
        1 => Just(Step::Nest),
        4 => proptest::bool::weighted(0.8).prop_map(Step::End),
        2 => (any_path(), depth()).prop_map(|(at, depth)| Step::Watch(at, depth)),
        1 => (any_path(), depth()).prop_map(|(at, depth)| Step::Unwatch(at, depth)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn committed_transactions_are_serial_and_watches_hear_everything(
        steps in proptest::collection::vec((0..DOMIDS.len(), any_step()), 0..80)
    ) {
        let mut history = History::new();
        for (who, step) in &steps {
            history.step(*who, step);
            history.model.assert_is(history.driver.server.store());
            fuzzing::accounts_are_exact(&history.driver.server);
        }
        prop_assert!(history.model.paths().count() > 0);
    }
}
