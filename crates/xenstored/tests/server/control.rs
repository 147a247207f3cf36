//! CONTROL and features.

use xenstore_proto::{DomId, Errno, Features, QuotaQuery, Reply, Request, TxId};
use xenstored::ConnectionId;

use crate::driver::{Driver, set_perms, watch};

fn control(driver: &mut Driver, connection: ConnectionId, words: &[&str]) -> Reply {
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    match driver.ask(connection, TxId::NONE, &Request::Control(words)) {
        Reply::Text(text) if text == b"OK" => Reply::Ok,
        reply => reply,
    }
}

fn text(reply: Reply) -> String {
    let Reply::Text(text) = reply else { panic!("{reply:?} is no text") };
    String::from_utf8(text).unwrap()
}

#[test]
fn only_privileged_domains_control_the_daemon() {
    let mut driver = Driver::new(&[]);
    let guest = driver.connect(7);
    for words in [&["help"][..], &["check"], &["nonsense"]] {
        assert_eq!(control(&mut driver, guest, words), Reply::Error(Errno::EACCES));
    }
    // Nor do they hear first that their transaction is none, or their payload malformed.
    let request = Request::Release(DomId::new(9));
    assert_eq!(driver.ask(guest, TxId(99), &request), Reply::Error(Errno::EACCES));
}

#[test]
fn commands_that_are_none_are_refused_and_help_lists_those_that_are() {
    let mut driver = Driver::new(&[]);
    let dom0 = driver.connect(0);
    for words in [
        &["nonsense"][..],
        &[""],
        &["check", "it"],
        &["log", "maybe"],
        &["print"],
        &["print", "a", "b"],
        &["memreport", "/a/file"],
        &["quota", "set", "nonsense", "1"],
        &["quota", "set", "nodes", "-1"],
        &["quota", "set", "nodes"],
        &["quota", "max"],
        &["-a"],
    ] {
        assert_eq!(control(&mut driver, dom0, words), Reply::Error(Errno::EINVAL), "{words:?}");
    }
    let help = text(control(&mut driver, dom0, &["help"]));
    let commands: Vec<_> = help.lines().filter_map(|line| line.split('\t').next()).collect();
    let expected = [
        "check",
        "domain-state",
        "domain-state-set",
        "log",
        "memreport",
        "print",
        "quota",
        "quota-soft",
        "help",
    ];
    assert_eq!(commands, expected);
    assert_eq!(control(&mut driver, dom0, &["print", "hello"]), Reply::Ok);
}

#[test]
fn the_log_of_requests_is_switched_on_and_off() {
    let mut driver = Driver::new(&[]);
    let dom0 = driver.connect(0);
    for (switch, state) in [("on", "on\n"), ("off", "off\n")] {
        assert_eq!(control(&mut driver, dom0, &["log", switch]), Reply::Ok);
        assert_eq!(text(control(&mut driver, dom0, &["log"])), state);
    }
}

#[test]
fn quotas_are_listed_and_set_for_new_domains_and_use_is_reported() {
    let mut driver = Driver::new(&[("/a", "1"), ("/a/b", "2")]);
    let (dom0, before) = (driver.connect(0), driver.connect(5));
    assert_eq!(control(&mut driver, dom0, &["quota", "set", "nodes", "77"]), Reply::Ok);
    assert_eq!(control(&mut driver, dom0, &["quota-soft", "set", "memory", "5000"]), Reply::Ok);
    let quotas = text(control(&mut driver, dom0, &["quota"]));
    assert!(quotas.lines().any(|line| line == "nodes            :       77"), "{quotas}");
    assert!(!quotas.contains("soft"), "{quotas}");
    let soft = text(control(&mut driver, dom0, &["quota-soft"]));
    assert!(soft.contains("memory           :     5000"), "{soft}");
    let _ = (before, driver.connect(6));
    for (domid, nodes) in [(5, 1000), (6, 77)] {
        let query = QuotaQuery::Domain(DomId::new(domid), "nodes".parse().unwrap());
        let reply = driver.ask(dom0, TxId::NONE, &Request::GetQuota(query));
        assert_eq!(reply, Reply::QuotaValue(nodes));
    }
    let used = text(control(&mut driver, dom0, &["quota", "0"]));
    assert!(used.starts_with("Domain 0:\nnodes            :        3\n"), "{used}");
    assert_eq!(control(&mut driver, dom0, &["quota", "9"]), Reply::Error(Errno::ENOENT));
    let memory = text(control(&mut driver, dom0, &["memreport"]));
    assert!(
        memory.starts_with("connections      :        3\nnodes            :        3\n"),
        "{memory}"
    );
}

#[test]
fn a_server_that_is_used_checks_out() {
    let mut driver = Driver::new(&[("/a", "1")]);
    let (dom0, guest) = (driver.connect(0), driver.connect(7));
    assert_eq!(driver.ask(dom0, TxId::NONE, &watch("/a", "t", Some(1))), Reply::Ok);
    assert_eq!(driver.ask(guest, TxId::NONE, &watch("/a", "t", None)), Reply::Ok);
    assert_eq!(driver.ask(dom0, TxId::NONE, &set_perms("/a", "n7")), Reply::Ok);
    assert_eq!(control(&mut driver, dom0, &["check"]), Reply::Ok);
    driver.server.disconnect(guest);
    assert_eq!(control(&mut driver, dom0, &["check"]), Reply::Ok);
}

#[test]
fn features_are_restricted_before_the_introduction_only_and_end_with_the_domain() {
    let mut driver = Driver::new(&[]);
    let dom0 = driver.connect(0);
    let offered = Features(Features::WATCH_DEPTH.0 | Features::ANY_DOMAIN.0);
    let domid = DomId::new(7);
    let get = Request::GetFeature(Some(domid));
    let set = |features| Request::SetFeature { domid, features };
    let introduce = Request::Introduce { domid, gfn: 1, event_channel: 1 };
    let mut ask = |request: &Request| driver.ask(dom0, TxId::NONE, request);
    assert_eq!(ask(&Request::GetFeature(None)), Reply::Features(offered));
    assert_eq!(ask(&get), Reply::Error(Errno::ENOENT));
    assert_eq!(ask(&set(Features::RECONNECT)), Reply::Error(Errno::EINVAL), "not offered");
    assert_eq!(ask(&set(Features::default())), Reply::Ok);
    assert_eq!(ask(&get), Reply::Features(Features::default()));
    assert_eq!(ask(&introduce), Reply::Ok);
    assert_eq!(ask(&set(offered)), Reply::Error(Errno::EBUSY));
    assert_eq!(ask(&get), Reply::Features(Features::default()));
    let reserved = Request::SetFeature { domid: DomId::ANY, features: offered };
    assert_eq!(ask(&reserved), Reply::Error(Errno::ENOENT));

    // What is not offered is refused.
    let guest = driver.connect(7);
    let mut ask = |request: &Request| driver.ask(guest, TxId::NONE, request);
    assert_eq!(ask(&Request::GetFeature(None)), Reply::Features(Features::default()));
    assert_eq!(ask(&watch("/", "t", Some(1))), Reply::Error(Errno::EINVAL));
    assert_eq!(ask(&watch("/", "t", None)), Reply::Ok);
    assert_eq!(ask(&set_perms("/", "n7,r32757")), Reply::Error(Errno::EINVAL));

    assert_eq!(driver.ask(dom0, TxId::NONE, &Request::Release(domid)), Reply::Ok);
    assert_eq!(driver.ask(dom0, TxId::NONE, &introduce), Reply::Ok);
    assert_eq!(driver.ask(dom0, TxId::NONE, &get), Reply::Features(offered), "another domain");
}
