//! Access policies: what a Chinese wall denies and allows, and that the server asks the policy everywhere.

use std::sync::Arc;

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
use xenstored::{ChineseWall, Company, ConflictClass, ConnectionId, Server, Store};

use crate::driver::{
    Driver, directory, get_perms, mkdir, names, read, rm, set_perms, value, watch, write,
};

const DENIED: Reply = Reply::Error(Errno::EACCES);

/// Two banks and two oil companies, all open to anybody but for the wall. Domain 3 is the bank north's own, and 4 the bank
/// south's; consultants are 7, 8 and 9.
struct Town {
    driver: Driver,
    wall: Arc<ChineseWall>,
    control: ConnectionId,
}

impl Town {
    fn new() -> Self {
        let company = |name: &str, domains: &[u16]| Company {
            name: name.into(),
            paths: vec![format!("/companies/{name}").parse().unwrap()],
            domains: domains.iter().copied().map(DomId::new).collect(),
        };
        let class =
            |name: &str, companies: Vec<Company>| ConflictClass { name: name.into(), companies };
        let classes = [
            class("banks", vec![company("north", &[3]), company("south", &[4])]),
            class("oil", vec![company("black", &[]), company("gold", &[])]),
        ];
        let wall = Arc::new(ChineseWall::new(&classes).unwrap());
        let text = "/companies = \"\"   (b0)\n/companies/north/plan = \"n\"   (b0)\n/companies/south/plan = \"s\"   (b0)\n\
            /companies/black/well = \"b\"   (b0)\n/companies/gold/well = \"g\"   (b0)\n/open = \"o\"   (b0)\n\
            /board/north = \"bn\"   (b3)\n/board/south = \"bs\"   (b4)\n";
        let server = Server::new(Store::from_text(text).unwrap()).with_policy(wall.clone());
        let mut driver = Driver::of(server);
        let control = driver.connect(0);
        for open in [
            "/",
            "/board",
            "/companies/north",
            "/companies/south",
            "/companies/black",
            "/companies/gold",
        ] {
            assert_eq!(driver.ask(control, TxId::NONE, &set_perms(open, "b0")), Reply::Ok);
        }
        Self { driver, wall, control }
    }

    fn ask(&mut self, connection: ConnectionId, request: &Request) -> Reply {
        self.driver.ask(connection, TxId::NONE, request)
    }

    fn touched(&self, domid: u16) -> Vec<String> {
        self.wall.touched_by(DomId::new(domid)).into_iter().map(|(_, company)| company).collect()
    }
}

#[test]
fn a_chinese_wall_closes_behind_the_first_company_of_each_class() {
    let mut town = Town::new();
    let consultant = town.driver.connect(7);
    assert_eq!(
        town.ask(consultant, &directory("/companies")),
        names(&["north", "south", "black", "gold"])
    );
    assert_eq!(town.touched(7), [""; 0], "the names of the companies are nobody's data");
    for (request, reply) in [
        // Any one bank, and from then on only that one.
        (read("/companies/south/plan"), value("s")),
        (read("/companies/north/plan"), DENIED),
        (directory("/companies/north"), DENIED),
        (get_perms("/companies/north"), DENIED),
        (write("/companies/north/plan", "x"), DENIED),
        (write("/companies/north/new", "x"), DENIED),
        (mkdir("/companies/north/new"), DENIED),
        (rm("/companies/north/plan"), DENIED),
        (set_perms("/companies/north/plan", "b7"), DENIED),
        // Whether it exists is not told either.
        (read("/companies/north/nothing"), DENIED),
        (read("/companies/south/nothing"), Reply::Error(Errno::ENOENT)),
        // By where it lies or by whose it is.
        (read("/board/north"), DENIED),
        (read("/board/south"), value("bs")),
        // The other class and the public are as open as before.
        (read("/companies/gold/well"), value("g")),
        (read("/companies/black/well"), DENIED),
        (read("/open"), value("o")),
        (write("/companies/south/plan", "s2"), Reply::Ok),
    ] {
        assert_eq!(town.ask(consultant, &request), reply, "{request:?}");
    }
    assert_eq!(town.touched(7), ["south", "gold"]);
    // What one consultant has seen does not bind another one; the control domain is outside all walls.
    let other = town.driver.connect(8);
    assert_eq!(town.ask(other, &read("/companies/north/plan")), value("n"));
    let control = town.control;
    for at in ["/companies/north/plan", "/companies/south/plan"] {
        assert!(matches!(town.ask(control, &read(at)), Reply::Value(_)));
    }
}

#[test]
fn a_chinese_wall_knows_whose_a_domain_is_and_that_a_target_is_the_same_party() {
    let mut town = Town::new();
    let (north, stub, control) = (town.driver.connect(3), town.driver.connect(8), town.control);
    assert_eq!(town.ask(north, &read("/companies/south/plan")), DENIED);
    assert_eq!(town.ask(north, &read("/companies/north/plan")), value("n"));
    for domid in [3, 8].map(DomId::new) {
        let introduce = Request::Introduce { domid, gfn: 1, event_channel: 1 };
        assert_eq!(town.ask(control, &introduce), Reply::Ok);
    }
    let target = Request::SetTarget { domid: DomId::new(8), target: DomId::new(3) };
    assert_eq!(town.ask(control, &target), Reply::Ok);
    assert_eq!(town.ask(stub, &read("/companies/south/plan")), DENIED);
    assert_eq!(town.ask(stub, &read("/companies/black/well")), value("b"));
    assert_eq!(
        town.ask(north, &read("/companies/gold/well")),
        DENIED,
        "its stub domain has seen black"
    );
    // A domain that comes later under the number is not the bank's, and has seen nothing.
    assert_eq!(town.ask(control, &Request::Release(DomId::new(3))), Reply::Ok);
    assert_eq!(town.touched(3), [""; 0]);
    let newcomer = town.driver.connect(3);
    assert_eq!(town.ask(newcomer, &read("/companies/south/plan")), value("s"));
}

#[test]
fn a_chinese_wall_counts_what_was_seen_in_a_transaction_that_is_dropped() {
    let mut town = Town::new();
    let (consultant, control) = (town.driver.connect(7), town.control);
    let tx = town.driver.begin(consultant);
    assert_eq!(town.driver.ask(consultant, tx, &read("/companies/south/plan")), value("s"));
    assert_eq!(town.driver.ask(consultant, tx, &write("/companies/north/plan", "x")), DENIED);
    // Also for another transaction that was open before.
    assert_eq!(town.driver.end(consultant, tx, false), Reply::Ok);
    assert_eq!(town.ask(consultant, &read("/companies/north/plan")), DENIED);
    // One that has written on one side commits there, also over somebody else's changes.
    let tx = town.driver.begin(consultant);
    assert_eq!(town.driver.ask(consultant, tx, &write("/companies/south/new", "1")), Reply::Ok);
    assert_eq!(town.ask(control, &write("/companies/south/other", "2")), Reply::Ok);
    assert_eq!(town.driver.end(consultant, tx, true), Reply::Ok);
    assert_eq!(town.ask(control, &read("/companies/south/new")), value("1"));
    // What was nobody's when it was written is a competitor's at the commit.
    let tx = town.driver.begin(consultant);
    assert_eq!(town.driver.ask(consultant, tx, &write("/open", "mine")), Reply::Ok);
    assert_eq!(town.ask(control, &set_perms("/open", "b3")), Reply::Ok);
    assert_eq!(town.driver.end(consultant, tx, true), Reply::Error(Errno::EAGAIN));
    assert_eq!(town.ask(control, &read("/open")), value("o"));
}

#[test]
fn a_chinese_wall_lets_events_through_on_one_side_only() {
    let mut town = Town::new();
    let (consultant, control) = (town.driver.connect(7), town.control);
    assert_eq!(town.ask(consultant, &watch("/", "all", None)), Reply::Ok);
    town.driver.events(consultant);
    // The first event chooses the side, and in one commit only one side is told.
    let tx = town.driver.begin(control);
    for at in ["/companies/south/plan", "/companies/north/plan", "/companies/black/well", "/open"] {
        town.driver.ask(control, tx, &write(at, "new"));
    }
    assert_eq!(town.driver.end(control, tx, true), Reply::Ok);
    assert_eq!(
        town.driver.events(consultant),
        ["/companies/south/plan all", "/companies/black/well all", "/open all"]
    );
    assert_eq!(town.touched(7), ["south", "black"]);
    assert_eq!(town.ask(control, &rm("/companies/north")), Reply::Ok);
    assert_eq!(town.ask(control, &write("/board/north", "new")), Reply::Ok);
    assert_eq!(town.driver.events(consultant), [""; 0]);
}

#[test]
fn a_chinese_wall_stands_before_a_removal_from_above() {
    let mut town = Town::new();
    let (consultant, control) = (town.driver.connect(7), town.control);
    assert_eq!(town.ask(consultant, &read("/companies/south/plan")), value("s"));
    for above in ["/companies", "/board"] {
        assert_eq!(town.ask(consultant, &rm(above)), DENIED, "a competitor's data is below");
    }
    assert_eq!(town.ask(control, &rm("/board/north")), Reply::Ok);
    assert_eq!(town.ask(consultant, &rm("/board")), Reply::Ok);
    assert_eq!(town.ask(consultant, &rm("/companies/south")), Reply::Ok);
    assert_eq!(town.ask(control, &directory("/companies")), names(&["north", "black", "gold"]));
}
