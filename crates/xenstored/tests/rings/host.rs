//! Domains come, are shut down, die, and outlive their server.

use std::time::Instant;

use xenstore_proto::{DomId, Errno, Reply, Request};
use xenstored::xen::{Field, ShutdownReason, SimulatedXen};
use xenstored::{
    Backend as _, Embedded, ServeError, Server, Serving, SledBackend, Store, SyncMode,
};

use crate::served::{Guest, Host, SOON, read, set_perms, watch, wire, write};

const SEVEN: DomId = DomId::new(7);

fn is_introduced(host: &Host) -> bool {
    host.xenstore.apply(Request::IsDomainIntroduced(SEVEN)) == Reply::Introduced(true)
}

#[test]
fn an_introduction_that_fails_leaves_nothing_behind() {
    let host = Host::new();
    let fails = |host: &Host, port| {
        let refused = host.introduce_with(7, port);
        assert_eq!(refused, Reply::Error(Errno::EINVAL));
        assert!(!is_introduced(host) && !host.xen.is_mapped(SEVEN) && !host.xen.is_bound(SEVEN));
    };
    let port = host.xen.store_port().0;
    fails(&host, port);
    host.xen.create(SEVEN);
    fails(&host, port + 40);
    host.xen.set_mappable(SEVEN, false);
    fails(&host, port);
    host.xen.set_mappable(SEVEN, true);
    assert_eq!(host.introduce(7), Reply::Ok);
    assert!(is_introduced(&host) && host.xen.is_mapped(SEVEN) && host.xen.is_bound(SEVEN));
}

#[test]
fn a_domain_that_is_introduced_again_begins_anew() {
    let host = Host::new();
    let mut old = host.domain(7);
    assert_eq!(old.ask(&watch("/a")), Reply::Ok);
    assert_eq!(old.event(), "/a");
    // Half a message, which nobody will finish.
    old.send(&wire(&read("/a"))[..10]);
    assert_eq!(host.introduce(7), Reply::Ok);
    let mut new = Guest::new(host.xen.guest(SEVEN));
    host.xenstore.apply(write("/a", ""));
    host.xenstore.apply(set_perms("/a", "r0"));
    assert_eq!(new.value("/a").unwrap(), b"", "no event comes first");
    let refused = host.introduce_with(7, host.xen.store_port().0 + 1);
    assert_eq!(refused, Reply::Error(Errno::EINVAL));
    assert_eq!(new.value("/a").unwrap(), b"", "served as before");
}

#[test]
fn a_released_domain_is_unmapped_and_can_come_back() {
    let host = Host::new();
    let mut watcher = host.watcher();
    let _guest = host.domain(7);
    assert_eq!(host.xenstore.apply(Request::Release(SEVEN)), Reply::Ok);
    assert!(!host.xen.is_mapped(SEVEN) && !host.xen.is_bound(SEVEN));
    assert_eq!(watcher.event(), "@releaseDomain");
    assert_eq!(host.introduce(7), Reply::Ok);
    let mut guest = Guest::new(host.xen.guest(SEVEN));
    assert_eq!(guest.kernel.page().field(Field::Error), 0);
    assert_eq!(guest.value("/").unwrap_err(), Errno::EACCES);
}

#[test]
fn a_dead_domain_goes_with_its_nodes_and_its_end_is_told() {
    let host = Host::new();
    let mut watcher = host.watcher();
    watcher.watch("/mine");
    let _guest = host.domain(7);
    host.xenstore.apply(write("/mine", ""));
    assert_eq!(watcher.event(), "/mine");
    host.xenstore.apply(set_perms("/mine", "n7"));
    assert_eq!(watcher.event(), "/mine");
    host.xen.destroy(SEVEN);
    assert_eq!(watcher.event(), "/mine");
    assert_eq!(watcher.event(), "@releaseDomain");
    assert!(!host.xen.exists(SEVEN), "a mapped page keeps a dead domain");
    assert!(!is_introduced(&host));
    assert!(!host.xenstore.snapshot().exists(&"/mine".parse().unwrap()));
    let mut next = host.domain(7);
    assert_eq!(next.ask(&write("/mine", "")), Reply::Error(Errno::EACCES));
}

#[test]
fn a_shutdown_is_told_once_until_the_domain_is_resumed() {
    let host = Host::new();
    let mut watcher = host.watcher();
    let (_seven, _eight) = (host.domain(7), host.domain(8));
    host.xen.shut_down(SEVEN, ShutdownReason::SUSPEND);
    assert_eq!(watcher.event(), "@releaseDomain");
    assert!(is_introduced(&host) && host.xen.is_mapped(SEVEN), "it may run again");

    // The end of another makes the server look at this one too.
    host.xen.destroy(DomId::new(8));
    assert_eq!(watcher.event(), "@releaseDomain");
    watcher.assert_quiet();

    host.xen.resume(SEVEN);
    assert_eq!(host.xenstore.apply(Request::Resume(SEVEN)), Reply::Ok);
    host.xen.shut_down(SEVEN, ShutdownReason::POWEROFF);
    assert_eq!(watcher.event(), "@releaseDomain");
    host.xen.destroy(SEVEN);
    assert_eq!(watcher.event(), "@releaseDomain");
    watcher.assert_quiet();
}

#[test]
fn a_server_that_follows_a_dead_one_answers_what_waits_in_the_rings() {
    for mut host in Host::both() {
        let mut guest = host.domain(7);
        host.xenstore.apply(write("/a", "kept"));
        host.xenstore.apply(set_perms("/a", "r0"));
        assert_eq!(guest.value("/a").unwrap(), b"kept");
        // A toolstack has written down another port than the one that waits: it is looked for.
        host.xenstore.apply(write("/local/domain/7/store/port", "9"));
        host.served.take().unwrap().stop();
        assert!(!host.xen.is_mapped(SEVEN) && !host.xen.is_bound(SEVEN));
        // Nobody hears the event of this one.
        guest.send(&wire(&read("/a")));
        let store = host.xenstore.snapshot();
        host.xenstore = Embedded::new(store);
        host.start();
        assert_eq!(guest.answer().payload, b"kept");
        assert!(is_introduced(&host));
        let mut kernel = Guest::new(host.xen.guest(DomId::DOM0));
        assert_eq!(kernel.value("/a").unwrap(), b"kept");
    }
}

#[test]
fn what_died_while_nobody_served_leaves_nothing_to_the_next_of_its_number() {
    let mut host = Host::new();
    let _guest = host.domain(7);
    for (path, perms) in [("/mine", "n7"), ("/shared", "n0,r7,r8")] {
        host.xenstore.apply(write(path, ""));
        host.xenstore.apply(set_perms(path, perms));
    }
    host.domain(8);
    host.served.take().unwrap().stop();
    host.xen.destroy(SEVEN);
    host.xen.destroy(DomId::new(8));
    host.xen.create(DomId::new(8));
    host.start();
    let store = host.xenstore.snapshot();
    assert!(!store.exists(&"/mine".parse().unwrap()));
    let perms = store.perms(&"/shared".parse().unwrap()).unwrap().to_string();
    assert_eq!(perms, "n0,r8", "8 is there, if not the same");
}

#[test]
fn a_restart_keeps_serving_guests_and_forgets_their_watches() {
    for mut host in Host::both() {
        let mut guest = host.domain(7);
        host.xenstore.apply(write("/a", ""));
        host.xenstore.apply(set_perms("/a", "r0"));
        assert_eq!(guest.ask(&watch("/a")), Reply::Ok);
        assert_eq!(guest.event(), "/a");
        host.restart();
        host.xenstore.apply(write("/a", "later"));
        assert_eq!(guest.value("/a").unwrap(), b"later");
        // Watching again is what a guest has to do.
        assert_eq!(guest.ask(&watch("/a")), Reply::Ok);
        assert_eq!(guest.event(), "/a");
    }
}

#[test]
fn with_a_database_a_restart_keeps_the_watches_of_guests_and_tells_each_once() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let deadline = Instant::now() + SOON;
        loop {
            match SledBackend::open(directory.path(), SyncMode::Always) {
                Ok(backend) => return Embedded::from(Server::open(backend, Store::new()).unwrap()),
                // A thread of the one before may not have let go yet.
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    };
    let mut host = Host::new();
    let replace = |host: &mut Host| {
        host.served.take().unwrap().stop();
        // The database has one owner.
        host.xenstore = Embedded::default();
        host.xenstore = open();
        host.start();
    };
    replace(&mut host);
    let mut guest = host.domain(7);
    for path in ["/a", "/b", "/c"] {
        host.xenstore.apply(write(path, ""));
        host.xenstore.apply(set_perms(path, "r0"));
        assert_eq!(guest.ask(&watch(path)), Reply::Ok);
        assert_eq!(guest.event(), path);
    }
    let Request::Watch { path, token, .. } = watch("/b") else { unreachable!() };
    assert_eq!(guest.ask(&Request::Unwatch { path, token }), Reply::Ok);
    for _ in 0..2 {
        replace(&mut host);
        let mut told = [guest.event(), guest.event()];
        told.sort();
        assert_eq!(told, ["/a", "/c"], "what was missed is not known");
        for path in ["/b", "/a"] {
            host.xenstore.apply(write(path, "later"));
        }
        assert_eq!(guest.event(), "/a");
        let Request::Watch { path, token, .. } = watch("/a") else { unreachable!() };
        let again = Request::Watch { path, token, depth: None };
        assert_eq!(guest.ask(&again), Reply::Error(Errno::EEXIST));
    }
    // A domain that has died meanwhile leaves none to the next of its number.
    host.served.take().unwrap().stop();
    host.xen.destroy(SEVEN);
    host.start();
    let mut next = host.domain(7);
    replace(&mut host);
    host.xenstore.apply(write("/a", "more"));
    assert_eq!(next.value("/").unwrap_err(), Errno::EACCES);
    assert!(next.events.is_empty(), "{:?}", next.events);
}

#[test]
fn the_watches_of_a_domain_that_died_are_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let backend = || SledBackend::open(directory.path(), SyncMode::Always).unwrap();
    let mut host = Host::new();
    host.served.take().unwrap().stop();
    host.xenstore = Embedded::from(Server::open(backend(), Store::new()).unwrap());
    host.start();
    let mut watcher = host.watcher();
    let mut guest = host.domain(7);
    for path in ["/a", "data"] {
        assert_eq!(guest.ask(&watch(path)), Reply::Ok);
    }
    // As another path than it was given.
    let Request::Watch { token, .. } = watch("data") else { unreachable!() };
    let path = "/local/domain/7/data".parse().unwrap();
    assert_eq!(guest.ask(&Request::Unwatch { path, token }), Reply::Ok);
    let kept = |host: &mut Host| {
        host.served.take().unwrap().stop();
        host.xenstore = Embedded::default();
        let kept = backend().load_watches().unwrap();
        kept.iter().map(|watch| watch.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kept(&mut host), ["/a"]);
    host.xenstore = Embedded::from(Server::open(backend(), Store::new()).unwrap());
    host.start();
    drop(watcher);
    watcher = host.watcher();
    host.xen.destroy(SEVEN);
    assert_eq!(watcher.event(), "@releaseDomain");
    assert!(kept(&mut host).is_empty());
}

#[test]
fn two_servers_do_not_share_a_host_and_the_first_is_not_disturbed() {
    let host = Host::new();
    let mut guest = host.domain(7);
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let second = Serving::new(&socket).rings(host.xen.hypervisor()).start(&Embedded::default());
    assert!(matches!(second, Err(ServeError::Rings(_))), "{second:?}");
    assert!(!socket.exists());
    assert_eq!(guest.value("/").unwrap_err(), Errno::EACCES);
}

#[test]
fn an_own_ring_that_is_not_wanted_is_left_alone() {
    let xen = SimulatedXen::new();
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::new(dir.path().join("socket")).rings(xen.hypervisor());
    let embedded = Embedded::new(Store::new());
    let served = serving.without_own_ring().start(&embedded).unwrap();
    assert!(!xen.is_mapped(DomId::DOM0) && !xen.is_bound(DomId::DOM0));
    served.stop();
    let served = Serving::new(dir.path().join("socket")).rings(xen.hypervisor());
    let _served = served.start(&embedded).unwrap();
    assert!(xen.is_mapped(DomId::DOM0) && xen.is_bound(DomId::DOM0));
}
