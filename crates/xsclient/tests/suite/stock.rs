//! The client against the deployed daemons.

use std::time::{Duration, Instant};

use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use xsclient::*;

use crate::support::*;
use crate::under_test::Client;

/// Runs a test on each stock daemon that can run here, and says which cannot.
fn on_each(name: &str, test: impl Fn(&StockDaemon, &mut dyn FnMut() -> Client)) {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {name}: {reason}"),
    };
    for kind in [Kind::C, Kind::OCaml] {
        let daemon = match StockDaemon::start(kind, packages) {
            Ok(daemon) => daemon,
            Err(StartError::Unavailable(reason)) => {
                println!("skipped: {name} on {kind:?}: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let socket = daemon.socket().to_owned();
        test(&daemon, &mut || {
            let endpoint = Endpoint::UnixSocket(socket.clone());
            Client::open(endpoint, Options::with_timeout(LONG)).unwrap()
        });
    }
}

#[test]
fn stock_daemons_understand_each_operation() {
    on_each("stock_daemons_understand_each_operation", |daemon, connect| {
        let mut client = connect();
        client.write(&path("/t/a"), b"\x00any\xff").unwrap();
        assert_eq!(client.read(&path("/t/a")).unwrap(), b"\x00any\xff");
        client.mkdir(&path("/t/b")).unwrap();
        let mut names = client.directory(&path("/t")).unwrap();
        names.sort();
        assert_eq!(names.iter().map(Name::as_str).collect::<Vec<_>>(), ["a", "b"]);
        let node = PathOrSpecial::Node(path("/t/a"));
        client.set_perms(&node, &"n0,r7,b8".parse().unwrap()).unwrap();
        assert_eq!(client.get_perms(&node).unwrap().to_string(), "n0,r7,b8");
        client.rm(&path("/t")).unwrap();
        assert_eq!(client.read_optional(&path("/t/a")).unwrap(), None);
        assert_eq!(client.domain_path(DomId::new(7)).unwrap().as_str(), "/local/domain/7");
        assert!(!client.is_domain_introduced(DomId::new(7)).unwrap());
        let error = client.read(&path("/missing")).unwrap_err();
        assert_eq!(error.to_string(), "READ of /missing: refused with ENOENT");
        let domain = Some(DomId::new(7));
        assert_eq!(client.features(domain).unwrap_err().errno(), Some(&Errno::ENOSYS));
        assert_eq!(client.watch(path("/t"), Some(1)).unwrap_err().errno(), Some(&Errno::EINVAL));
        client.reset_watches().unwrap();
        let text = client.control(&["print", "hello"]).unwrap();
        assert_eq!(text.strip_suffix(b"\n").unwrap_or(&text), b"OK", "{:?}", daemon.kind());
    });
}

#[test]
fn an_empty_payload_that_oxenstored_notices_late_is_a_timeout_and_no_more() {
    on_each("an_empty_payload_that_oxenstored_notices_late", |_, connect| {
        let mut client = connect();
        let soon = Instant::now() + Duration::from_millis(300);
        let error = client.with_deadline(soon).quota_names().unwrap_err();
        assert!(error.is_timeout() || error.errno() == Some(&Errno::ENOSYS), "{error}");
        client.write(&path("/t"), b"1").unwrap();
        assert_eq!(client.read(&path("/t")).unwrap(), b"1");
    });
}

#[test]
fn stock_daemons_give_big_directories_each_in_its_way() {
    on_each("stock_daemons_give_big_directories", |daemon, connect| {
        let mut client = connect();
        let mut batch = Batch::new();
        for i in 0..2000 {
            batch.write(path(&format!("/t/child-{i}")), "");
        }
        client.run(batch).unwrap();
        let before = client.statistics();
        assert_eq!(client.directory(&path("/t")).unwrap().len(), 2000);
        let pages = client.statistics().since(&before).directory_pages;
        match daemon.kind() {
            Kind::C => assert!((5..20).contains(&pages), "{pages}"),
            _ => assert_eq!(pages, 0, "one long reply"),
        }
        let mut transaction = client.transaction().unwrap();
        transaction.rm(&path("/t/child-0")).unwrap();
        assert_eq!(transaction.directory(&path("/t")).unwrap().len(), 1999);
        transaction.abort().unwrap();
        assert_eq!(client.directory(&path("/t")).unwrap().len(), 2000);
    });
}

#[test]
fn a_directory_is_whole_though_another_client_changes_it() {
    on_each("a_directory_is_whole_though_another_client_changes_it", |_, connect| {
        let mut client = connect();
        let mut other = connect();
        let mut batch = Batch::new();
        for i in 0..1000 {
            batch.write(path(&format!("/t/child-{i:04}")), "");
        }
        client.run(batch).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    other.write(&path("/t/child-extra"), b"").unwrap();
                    other.rm(&path("/t/child-extra")).unwrap();
                    // Now and then a moment in which the directory stays as it is.
                    other.next_event_any(Duration::from_millis(5)).unwrap();
                }
            });
            for _ in 0..20 {
                match client.directory(&path("/t")) {
                    Ok(names) => {
                        let same = names.iter().filter(|name| name.as_str() != "child-extra");
                        assert_eq!(same.count(), 1000);
                    }
                    Err(error) => {
                        assert!(matches!(error.failure(), Failure::DirectoryChanging { .. }));
                    }
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn a_batch_of_thousands_is_one_round_trip_on_stock_daemons() {
    on_each("a_batch_of_thousands_is_one_round_trip", |_, connect| {
        let mut client = connect();
        let mut batch = Batch::new();
        let slots: Vec<_> = (0..2500)
            .map(|i| {
                batch.write(path("/t/a"), format!("{i:0>1500}"));
                batch.read(path("/t/a"))
            })
            .collect();
        let mut replies = client.run(batch).unwrap();
        for (i, slot) in slots.into_iter().enumerate() {
            assert_eq!(replies.take(slot).unwrap(), format!("{i:0>1500}").as_bytes());
        }
        assert_eq!(client.statistics().round_trips, 1);
    });
}

#[test]
fn transactions_that_meet_are_tried_again_and_none_is_lost() {
    on_each("transactions_that_meet_are_tried_again", |_, connect| {
        connect().write(&path("/t/count"), b"0").unwrap();
        let mut clients: Vec<Client> = (0..4).map(|_| connect()).collect();
        std::thread::scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let policy = RetryPolicy { attempts: 1000, ..RetryPolicy::default() };
                        client
                            .transact(&policy, |transaction| {
                                let count: u32 =
                                    transaction.read_text(&path("/t/count"))?.parse().unwrap();
                                let next = (count + 1).to_string();
                                transaction.write(&path("/t/count"), next.as_bytes())
                            })
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(connect().read_text(&path("/t/count")).unwrap(), "100");
    });
}

#[test]
fn watches_and_fences_see_what_another_client_changes() {
    on_each("watches_and_fences_see_what_another_client_changes", |_, connect| {
        let mut client = connect();
        let mut other = connect();
        client.write(&path("/t/a"), b"").unwrap();
        let watch = client.watch(path("/t"), None).unwrap();
        assert!(client.next_event(&watch, LONG).unwrap().unwrap().first);
        other.write(&path("/t/a/b"), b"").unwrap();
        let event = client.next_event(&watch, LONG).unwrap().unwrap();
        assert_eq!((event.path.as_str(), event.first), ("/t/a/b", false));
        client.unwatch(&watch).unwrap();

        let mut batch = Batch::new();
        let fence = batch.fence(path("/t"));
        batch.read(path("/t/a"));
        let replies = client.run(batch).unwrap();
        assert_eq!(replies.disturbances(fence).unwrap(), []);

        let fence = client.fence([path("/t").into(), path("/u").into()]).unwrap();
        client.read(&path("/t/a")).unwrap();
        assert_eq!(client.lower(fence).unwrap(), []);
        let fence = client.fence([path("/t").into()]).unwrap();
        other.write(&path("/t"), b"at the very path").unwrap();
        let disturbed = client.lower(fence).unwrap();
        assert_eq!(disturbed.len(), 1, "{disturbed:?}");

        let never_set = Request::Unwatch {
            path: path("/t").into(),
            token: Token::from_octets(*b"never set").unwrap(),
        };
        assert!(client.request(&never_set).unwrap_err().is_not_found());
        client.read(&path("/t/a")).unwrap();
    });
}

#[test]
fn a_killed_daemon_is_noticed_and_nothing_hangs() {
    let Ok(packages) = Packages::of_workspace() else {
        return println!("skipped: a_killed_daemon_is_noticed: no stock daemons here");
    };
    let daemon = match StockDaemon::start(Kind::C, packages) {
        Ok(daemon) => daemon,
        Err(error) => return println!("skipped: a_killed_daemon_is_noticed: {error}"),
    };
    let endpoint = Endpoint::UnixSocket(daemon.socket().to_owned());
    let mut client = Client::open(endpoint.clone(), Options::with_timeout(LONG)).unwrap();
    let watch = client.watch(path("/t"), None).unwrap();
    drop(daemon);
    let events: Vec<_> = client.events(&watch, LONG).collect();
    assert!(events.last().unwrap().as_ref().unwrap_err().is_lost());
    assert!(client.read(&path("/t")).unwrap_err().is_lost());
    assert!(Client::open(endpoint, Options::with_timeout(LONG)).is_err());
}
