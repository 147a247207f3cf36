//! What domains may use: each limit, who sets it, and that what is counted is what there is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use xenstore_proto::{DomId, Errno, QuotaQuery, Reply, Request, TxId};
use xenstored::{
    Backend, ConnectionId, MemoryBackend, Quota, Quotas, Server, Store, Usage, fuzzing,
};

use crate::driver::{Driver, mkdir, read, rm, set_perms, unwatch, value, watch, write};

const OVER: Reply = Reply::Error(Errno::ENOSPC);
const GUEST: DomId = DomId::new(7);

/// A guest's node `/g`, a control connection and the guest's. The guest is limited in one way only.
fn limited(quota: Quota, limit: u32) -> (Driver, ConnectionId, ConnectionId) {
    let mut driver = Driver::new(&[("/g", "")]);
    for quota in Quota::ALL {
        driver.server.set_quota(None, quota, 0);
    }
    driver.server.set_quota(Some(GUEST), quota, limit);
    let (us, guest) = (driver.connect(0), driver.connect(GUEST.get()));
    assert_eq!(ask(&mut driver, us, &set_perms("/g", "n7")), Reply::Ok);
    for other in Quota::ALL.into_iter().filter(|other| *other != quota) {
        driver.server.set_quota(Some(GUEST), other, 0);
    }
    (driver, us, guest)
}

fn ask(driver: &mut Driver, connection: ConnectionId, request: &Request) -> Reply {
    driver.ask(connection, TxId::NONE, request)
}

#[test]
fn nodes_can_be_owned_up_to_the_quota_whoever_created_them() {
    let (mut driver, us, guest) = limited(Quota::Nodes, 4);
    assert_eq!(ask(&mut driver, us, &mkdir("/g/theirs")), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &mkdir("/g/a/b/c")), OVER, "six in all");
    assert_eq!(ask(&mut driver, guest, &read("/g/a")), Reply::Error(Errno::ENOENT));
    assert_eq!(ask(&mut driver, guest, &mkdir("/g/a/b")), Reply::Ok);
    assert_eq!(driver.server.usage_of(GUEST).nodes, 4);
    assert_eq!(ask(&mut driver, guest, &write("/g/c", "")), OVER);
    assert_eq!(ask(&mut driver, guest, &write("/g/a/b", "longer")), Reply::Ok);
    // The control domain is not limited, and the guest can always take something away.
    assert_eq!(ask(&mut driver, us, &mkdir("/g/more")), Reply::Ok);
    assert_eq!(driver.server.usage_of(GUEST).nodes, 5);
    assert_eq!(ask(&mut driver, guest, &rm("/g/a")), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &write("/g/c", "")), Reply::Ok);
}

#[test]
fn a_transaction_is_charged_at_its_commit_for_what_comes_out_of_it() {
    let (mut driver, _, guest) = limited(Quota::Nodes, 4);
    for at in ["/g/a", "/g/b", "/g/c"] {
        assert_eq!(ask(&mut driver, guest, &mkdir(at)), Reply::Ok);
    }
    // Over the limit on the way, and under zero changes on the way: only the end counts.
    let tx = driver.begin(guest);
    for request in [mkdir("/g/d"), mkdir("/g/e"), rm("/g/d"), rm("/g/a"), rm("/g/b"), mkdir("/g/a")]
    {
        assert_eq!(driver.ask(guest, tx, &request), Reply::Ok);
    }
    assert_eq!(driver.end(guest, tx, true), Reply::Ok);
    assert_eq!(driver.server.usage_of(GUEST).nodes, 4);
    let tx = driver.begin(guest);
    for request in [rm("/g/c"), mkdir("/g/x"), mkdir("/g/y")] {
        assert_eq!(driver.ask(guest, tx, &request), Reply::Ok);
    }
    let before = driver.server.store().clone();
    assert_eq!(driver.end(guest, tx, true), OVER);
    assert_eq!(driver.server.store(), &before);
    fuzzing::accounts_are_exact(&driver.server);
}

#[test]
fn two_transactions_that_fit_alone_do_not_both_commit() {
    let (mut driver, _, guest) = limited(Quota::Nodes, 2);
    let (one, two) = (driver.begin(guest), driver.begin(guest));
    assert_eq!(driver.ask(guest, one, &mkdir("/g/one")), Reply::Ok);
    assert_eq!(driver.ask(guest, two, &mkdir("/g/two")), Reply::Ok);
    assert_eq!(driver.end(guest, one, true), Reply::Ok);
    assert_eq!(driver.end(guest, two, true), OVER);
}

#[test]
fn a_domain_has_so_many_watches_on_all_its_connections() {
    let (mut driver, _, guest) = limited(Quota::Watches, 3);
    let second = driver.connect(GUEST.get());
    for (connection, token) in [(guest, "1"), (guest, "2"), (second, "3")] {
        assert_eq!(ask(&mut driver, connection, &watch("/g", token, None)), Reply::Ok);
    }
    for connection in [guest, second] {
        assert_eq!(ask(&mut driver, connection, &watch("/g", "4", None)), OVER);
    }
    driver.server.disconnect(second);
    assert_eq!(ask(&mut driver, guest, &watch("/g", "4", None)), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &unwatch("/g", "4")), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &watch("/g", "5", None)), Reply::Ok);
}

#[test]
fn a_domain_has_so_many_transactions_and_each_so_many_nodes() {
    let (mut driver, _, guest) = limited(Quota::Transactions, 2);
    let (one, _two) = (driver.begin(guest), driver.begin(guest));
    assert_eq!(ask(&mut driver, guest, &Request::TransactionStart), OVER);
    assert_eq!(driver.server.start_nested(guest, one), Err(Errno::ENOSPC));
    assert_eq!(driver.end(guest, one, false), Reply::Ok);
    driver.begin(guest);

    let (mut driver, us, guest) = limited(Quota::TransactionNodes, 4);
    let tx = driver.begin(guest);
    assert_eq!(driver.ask(guest, tx, &mkdir("/g/a/b/c/d/e")), OVER, "five nodes are created");
    for request in [mkdir("/g/a/b/c"), read("/g/a"), read("/g")] {
        assert_eq!(
            driver.ask(guest, tx, &request),
            if request == read("/g") || request == read("/g/a") { value("") } else { Reply::Ok }
        );
    }
    assert_eq!(driver.ask(guest, tx, &read("/g/nothing")), OVER, "what is missing counts as well");
    assert_eq!(driver.ask(guest, tx, &write("/g/a", "1")), Reply::Ok);
    assert_eq!(driver.end(guest, tx, true), Reply::Ok);
    let tx = driver.begin(us);
    for i in 0..2000 {
        assert_eq!(driver.ask(us, tx, &mkdir(&format!("/u/{i}"))), Reply::Ok);
    }
    assert_eq!(driver.end(us, tx, true), Reply::Ok);
}

#[test]
fn permissions_have_so_many_entries() {
    let (mut driver, us, guest) = limited(Quota::NodePermissions, 3);
    assert_eq!(ask(&mut driver, guest, &set_perms("/g", "n7,r1,r2")), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &set_perms("/g", "n7,r1,r2,r3")), OVER);
    let tx = driver.begin(guest);
    assert_eq!(driver.ask(guest, tx, &set_perms("/g", "n7,r1,r2,r3")), OVER);
    assert_eq!(ask(&mut driver, us, &set_perms("/g", "n7,r1,r2,r3")), Reply::Ok);
}

#[test]
fn a_path_is_so_long_without_what_depends_on_the_domains_number() {
    let (mut driver, us, guest) = limited(Quota::PathMax, 10);
    let long = Reply::Error(Errno::EINVAL);
    assert_eq!(ask(&mut driver, us, &write("/local/domain/7", "")), Reply::Ok);
    assert_eq!(ask(&mut driver, us, &set_perms("/local/domain/7", "n7")), Reply::Ok);
    for (request, reply) in [
        (mkdir("0123456789"), Reply::Ok),
        (mkdir("0123456789a"), long.clone()),
        (mkdir("/local/domain/7/0123456789"), Reply::Ok),
        (mkdir("/local/domain/7/0123456789a"), long.clone()),
        (mkdir("/g/3456789"), Reply::Ok),
        (mkdir("/g/3456789a"), long.clone()),
        (read("/g/3456789a"), long.clone()),
        (watch("/g/3456789a", "t", None), long),
    ] {
        assert_eq!(ask(&mut driver, guest, &request), reply, "{request:?}");
    }
    assert_eq!(ask(&mut driver, us, &mkdir("/local/domain/7/0123456789abc")), Reply::Ok);
}

#[test]
fn a_node_is_so_big_with_its_permissions_and_the_names_of_its_children() {
    // 16, 8 for one entry of the permissions, and 12 more.
    let (mut driver, us, guest) = limited(Quota::NodeSize, 36);
    for (request, reply) in [
        (write("/g", "123456789012"), Reply::Ok),
        (write("/g", "1234567890123"), OVER),
        (mkdir("/g/a"), OVER),
        (write("/g", "1234567"), Reply::Ok),
        // A name of four and its NUL.
        (mkdir("/g/five"), Reply::Ok),
        (mkdir("/g/x"), OVER),
        (write("/g", "12345678"), OVER),
        (set_perms("/g", "n7,r1"), OVER),
        (write("/g", ""), Reply::Ok),
        (write("/g/abcdef", "123456789012"), Reply::Ok),
        (write("/g/five/x", "1234567890123"), OVER),
        (mkdir("/g/five/abcdefghijk/abcdefghijkl"), OVER),
        (mkdir("/g/five/abcdefghijk/abcdefghijk"), Reply::Ok),
    ] {
        assert_eq!(ask(&mut driver, guest, &request), reply, "{request:?}");
    }
    assert_eq!(ask(&mut driver, us, &write("/g", "0123456789abcdef")), Reply::Ok);
}

#[test]
fn memory_is_used_by_nodes_watches_and_transactions_together() {
    // The guest has /g: 16 + 8 + 2.
    let (mut driver, us, guest) = limited(Quota::Memory, 2000);
    assert_eq!(driver.server.usage_of(GUEST).memory, 26);
    assert_eq!(ask(&mut driver, guest, &write("/g", &"x".repeat(1000))), Reply::Ok);
    assert_eq!(ask(&mut driver, guest, &watch("/g", &"t".repeat(898), None)), Reply::Ok);
    driver.events(guest);
    assert_eq!(driver.server.usage_of(GUEST).memory, 1926);
    assert_eq!(ask(&mut driver, guest, &watch("/g", &"t".repeat(73), None)), OVER);
    // 24, the path, and the name in the parent.
    assert_eq!(ask(&mut driver, guest, &write("/g/abc", &"x".repeat(41))), OVER);
    assert_eq!(ask(&mut driver, guest, &write("/g/abc", &"x".repeat(40))), Reply::Ok);
    assert_eq!(driver.server.usage_of(GUEST).memory, 2000);
    let tx = driver.begin(guest);
    assert_eq!(driver.ask(guest, tx, &read("/g")), OVER);
    assert_eq!(driver.end(guest, tx, false), Reply::Ok);
    assert_eq!(ask(&mut driver, us, &write("/g/abc", "x")), Reply::Ok);
    assert_eq!(driver.server.usage_of(GUEST).memory, 1961);
    fuzzing::accounts_are_exact(&driver.server);
}

#[test]
fn a_guest_that_does_not_read_its_replies_waits_with_its_next_request() {
    let (mut driver, us, guest) = limited(Quota::Outstanding, 3);
    for unread in 0..3 {
        assert!(driver.server.has_room(guest), "{unread}");
        driver.ask_unread(guest, &read("/g"));
    }
    assert!(!driver.server.has_room(guest));
    assert_eq!(driver.server.usage_of(GUEST).outstanding, 3);
    assert!(driver.server.poll_output(guest).is_some());
    assert!(driver.server.has_room(guest));
    for _ in 0..100 {
        driver.ask_unread(us, &read("/g"));
    }
    assert!(driver.server.has_room(us));
}

#[test]
fn quotas_are_asked_and_set_by_the_control_domain() {
    let mut driver = Driver::new(&[]);
    let (us, guest) = (driver.connect(0), driver.connect(7));
    let name = |quota: &str| quota.parse().unwrap();
    let get = |domid: Option<u16>, quota: &str| {
        Request::GetQuota(match domid {
            Some(domid) => QuotaQuery::Domain(domid.into(), name(quota)),
            None => QuotaQuery::Default(name(quota)),
        })
    };
    let set = |domid: Option<u16>, quota: &str, value| Request::SetQuota {
        domid: domid.map(DomId::new),
        quota: name(quota),
        value,
    };
    let names = [
        "nodes",
        "watches",
        "outstanding",
        "memory",
        "soft-memory",
        "transactions",
        "transaction-nodes",
        "node-permissions",
        "path-max",
        "node-size",
    ];
    let denied = Reply::Error(Errno::EACCES);
    for (who, request, reply) in [
        (us, Request::GetQuota(QuotaQuery::Names), Reply::QuotaNames(names.map(name).to_vec())),
        (us, get(None, "nodes"), Reply::QuotaValue(1000)),
        (us, get(None, "memory"), Reply::QuotaValue(2_621_440)),
        (us, get(Some(7), "node-permissions"), Reply::QuotaValue(5)),
        (us, get(Some(7), "permissions"), Reply::Error(Errno::EINVAL)),
        (us, get(Some(8), "nodes"), Reply::Error(Errno::ENOENT)),
        (us, set(Some(8), "nodes", 5), Reply::Error(Errno::ENOENT)),
        (us, set(None, "nope", 5), Reply::Error(Errno::EINVAL)),
        (guest, get(None, "nodes"), denied.clone()),
        (guest, set(None, "nodes", 0), denied.clone()),
        (guest, Request::GetQuota(QuotaQuery::Names), denied),
        // A new default is for domains to come; domain 7 has its own already.
        (us, set(None, "nodes", 10), Reply::Ok),
        (us, get(Some(7), "nodes"), Reply::QuotaValue(1000)),
        (us, Request::Introduce { domid: DomId::new(8), gfn: 1, event_channel: 1 }, Reply::Ok),
        (us, get(Some(8), "nodes"), Reply::QuotaValue(10)),
        (us, set(Some(8), "nodes", 0), Reply::Ok),
        (us, get(Some(8), "nodes"), Reply::QuotaValue(0)),
        // The next domain of the number has the default again.
        (us, Request::Release(DomId::new(8)), Reply::Ok),
        (us, get(Some(8), "nodes"), Reply::Error(Errno::ENOENT)),
        (us, Request::Introduce { domid: DomId::new(8), gfn: 1, event_channel: 1 }, Reply::Ok),
        (us, get(Some(8), "nodes"), Reply::QuotaValue(10)),
    ] {
        assert_eq!(ask(&mut driver, who, &request), reply, "{request:?}");
    }
}

/// Domains of the histories: the control domain and guests.
pub(crate) const DOMIDS: [u16; 4] = [0, 1, 2, 3];

/// Small enough to be reached by accident.
const SMALL: [(Quota, u32); 6] = [
    (Quota::Nodes, 4),
    (Quota::Watches, 2),
    (Quota::Memory, 700),
    (Quota::Transactions, 2),
    (Quota::TransactionNodes, 5),
    (Quota::NodePermissions, 2),
];

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ask(Request),
    Begin,
    Nest,
    End(bool),
    Watch(String),
    Unwatch(String),
    Reset,
    Reconnect,
    Introduce(u16),
    Release(u16),
    SetTarget(u16, u16),
    SetQuota(Option<u16>, usize, u32),
    Expire,
}

pub(crate) struct World {
    pub(crate) driver: Driver,
    connections: BTreeMap<u16, ConnectionId>,
    open: BTreeMap<u16, Vec<TxId>>,
    now: std::time::Instant,
}

impl World {
    pub(crate) fn on(backend: impl Backend + 'static) -> Self {
        let mut quotas = Quotas::default();
        SMALL.into_iter().for_each(|(quota, limit)| quotas.set(quota, limit));
        let text = "/ = \"\"   (b0)\n/a = \"\"   (b1)\n/a/b = \"\"   (b2)\n/c = \"\"   (r2,b3)\n";
        let server = Server::open(backend, Store::from_text(text).unwrap()).unwrap();
        let mut driver = Driver::of(server.with_quotas(&quotas));
        driver.server.set_transaction_limit(std::time::Duration::from_secs(2));
        let connections = DOMIDS.map(|domid| (domid, driver.connect(domid))).into();
        Self { driver, connections, open: BTreeMap::new(), now: std::time::Instant::now() }
    }

    pub(crate) fn step(&mut self, domid: u16, step: &Step) {
        let control = self.connections[&0];
        let connection = self.connection(domid);
        let open = self.open.entry(domid).or_default();
        let tx = open.last().copied().unwrap_or(TxId::NONE);
        match step {
            Step::Ask(request) => {
                self.driver.ask(connection, tx, request);
            }
            Step::Begin => {
                let start = Request::TransactionStart;
                if let Reply::Transaction(tx) = self.driver.ask(connection, TxId::NONE, &start) {
                    open.push(tx);
                }
            }
            Step::Nest => {
                if let Ok(inner) = self.driver.server.start_nested(connection, tx) {
                    open.push(inner);
                }
            }
            Step::End(commit) => {
                if let Some(tx) = open.pop() {
                    self.driver.end(connection, tx, *commit);
                }
            }
            Step::Watch(at) => {
                self.driver.ask(connection, TxId::NONE, &watch(at, "token", None));
            }
            Step::Unwatch(at) => {
                self.driver.ask(connection, TxId::NONE, &unwatch(at, "token"));
            }
            Step::Reset => {
                open.clear();
                self.driver.ask(connection, TxId::NONE, &Request::ResetWatches);
            }
            Step::Reconnect => {
                open.clear();
                self.driver.server.disconnect(connection);
                self.connections.insert(domid, self.driver.connect(domid));
            }
            Step::Introduce(domid) => {
                let domid = DomId::new(*domid);
                let introduce = Request::Introduce { domid, gfn: 1, event_channel: 1 };
                self.driver.ask(control, TxId::NONE, &introduce);
            }
            Step::Release(domid) => {
                let release = Request::Release(DomId::new(*domid));
                if self.driver.ask(control, TxId::NONE, &release) == Reply::Ok {
                    self.check_nothing_is_left(*domid);
                }
            }
            Step::SetTarget(domid, target) => {
                let (domid, target) = (DomId::new(*domid), DomId::new(*target));
                self.driver.ask(control, TxId::NONE, &Request::SetTarget { domid, target });
            }
            Step::SetQuota(domid, place, value) => {
                let (quota, domid) =
                    (SMALL[*place].0.name().parse().unwrap(), domid.map(DomId::new));
                self.driver.ask(
                    control,
                    TxId::NONE,
                    &Request::SetQuota { domid, quota, value: *value },
                );
            }
            Step::Expire => {
                self.now += std::time::Duration::from_secs(1);
                self.driver.server.expire(self.now);
            }
        }
    }

    /// The domain's connection: a new one if its number has been released since.
    fn connection(&mut self, domid: u16) -> ConnectionId {
        let known = self.connections[&domid];
        if self.driver.server.is_open(known) {
            return known;
        }
        self.open.remove(&domid);
        let new = self.driver.connect(domid);
        self.connections.insert(domid, new);
        new
    }

    fn usage(&self) -> BTreeMap<DomId, Usage> {
        self.driver.server.usage().collect()
    }

    fn check_nothing_is_left(&self, domid: u16) {
        let domid = DomId::new(domid);
        assert_eq!(self.driver.server.usage_of(domid), Usage::default());
        for node in self.driver.server.store().nodes() {
            assert!(node.perms.entries().iter().all(|entry| entry.domid != domid), "{node:?}");
        }
    }

    /// A guest's step takes nobody over a limit who was not.
    fn check_limits(&self, before: &BTreeMap<DomId, Usage>) {
        for (domid, now) in self.driver.server.usage().filter(|(domid, _)| domid.get() > 0) {
            let before = before.get(&domid).copied().unwrap_or_default();
            let quotas = self.driver.server.quotas(domid);
            for (quota, before, now) in [
                (Quota::Nodes, before.nodes, now.nodes),
                (Quota::Watches, before.watches, now.watches),
                (Quota::Transactions, before.transactions, now.transactions),
                (Quota::Memory, before.memory, now.memory),
            ] {
                let within = quotas.allow(quota, now.try_into().unwrap());
                assert!(within || now <= before, "{quota} of {domid}: {before} to {now}");
            }
        }
    }
}

fn any_path() -> impl Strategy<Value = String> {
    "(/[abc]){1,4}"
}

fn any_request() -> impl Strategy<Value = Request> {
    let perms = "[nrwb][0-3](,[nrwb][0-3]){0,2}";
    prop_oneof![
        1 => any_path().prop_map(|at| read(&at)),
        6 => (any_path(), "x{0,60}").prop_map(|(at, value)| write(&at, &value)),
        3 => any_path().prop_map(|at| mkdir(&at)),
        3 => any_path().prop_map(|at| rm(&at)),
        5 => (any_path(), perms).prop_map(|(at, perms)| set_perms(&at, &perms)),
        1 => perms.prop_map(|perms| set_perms("/", &perms)),
    ]
}

pub(crate) fn any_step() -> impl Strategy<Value = Step> {
    let guest = || 1_u16..4;
    prop_oneof![
        30 => any_request().prop_map(Step::Ask),
        4 => Just(Step::Begin),
        2 => Just(Step::Nest),
        5 => proptest::bool::weighted(0.8).prop_map(Step::End),
        2 => any_path().prop_map(Step::Watch),
        1 => any_path().prop_map(Step::Unwatch),
        1 => Just(Step::Reset),
        1 => Just(Step::Reconnect),
        2 => guest().prop_map(Step::Introduce),
        2 => guest().prop_map(Step::Release),
        1 => (guest(), guest()).prop_map(|(domid, target)| Step::SetTarget(domid, target)),
        1 => (proptest::option::of(guest()), 0..SMALL.len(), 0_u32..8)
            .prop_map(|(domid, place, value)| Step::SetQuota(domid, place, value)),
        1 => Just(Step::Expire),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn accounts_are_exact_after_every_step_of_any_history(
        steps in proptest::collection::vec((0..DOMIDS.len(), any_step()), 0..120)
    ) {
        let mut world = World::on(MemoryBackend);
        fuzzing::accounts_are_exact(&world.driver.server);
        for (who, step) in &steps {
            let before = world.usage();
            world.step(DOMIDS[*who], step);
            fuzzing::accounts_are_exact(&world.driver.server);
            if DOMIDS[*who] > 0 && !matches!(step, Step::SetQuota(..) | Step::Release(_)) {
                world.check_limits(&before);
            }
        }
    }
}
