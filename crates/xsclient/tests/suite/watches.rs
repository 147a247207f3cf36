//! Watches, their events, and fences.

use std::time::Instant;

use xsclient::*;

use crate::support::*;

fn token(text: &str) -> Token {
    Token::from_octets(text.as_bytes()).unwrap()
}

#[test]
fn the_first_event_comes_at_once_and_is_marked() {
    let (mut client, server) = client_of_store(Store::with(&[]));
    let watch = client.watch(path("/a"), None).unwrap();
    let first = client.next_event(&watch, LONG).unwrap().unwrap();
    assert!(first.first && !first.lost_before);
    assert_eq!((first.path.as_str(), &first.token), ("/a", watch.token()));
    client.write(&path("/a/b"), b"").unwrap();
    let second = client.next_event(&watch, LONG).unwrap().unwrap();
    assert!(!second.first);
    assert_eq!(second.path.as_str(), "/a/b");
    assert_eq!(client.next_event(&watch, SHORT).unwrap(), None);
    client.unwatch(&watch).unwrap();
    let error = client.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    assert!(client.unwatch(&watch).is_err());
    drop(client);
    assert_eq!(server.join().unwrap().watch_count(), 0);
}

#[test]
fn events_of_several_watches_come_in_their_order() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let a = client.watch_with_token(path("/a"), token("a"), None).unwrap();
    let b = client.watch_with_token(path("/b"), token("b"), None).unwrap();
    client.write(&path("/b/1"), b"").unwrap();
    client.write(&path("/a/2"), b"").unwrap();
    let all: Vec<String> = std::iter::from_fn(|| client.next_event_any(SHORT).unwrap())
        .map(|event| format!("{} {}", event.token, event.path))
        .collect();
    assert_eq!(all, ["a /a", "b /b", "b /b/1", "a /a/2"]);
    client.write(&path("/a/3"), b"").unwrap();
    let only: Vec<_> = client.events(&a, SHORT).map(|event| event.unwrap().path).collect();
    assert_eq!(only.len(), 1);
    assert_eq!(client.events(&b, SHORT).count(), 0);
}

#[test]
fn two_watches_cannot_have_one_token() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let _first = client.watch_with_token(path("/a"), token("t"), None).unwrap();
    let error = client.watch_with_token(path("/b"), token("t"), None).unwrap_err();
    assert_eq!(error.to_string(), "WATCH of /b: another watch of this client has the same token");
}

#[test]
fn an_ended_watch_is_stale_though_another_has_its_token() {
    let (mut client, server) = client_of_store(Store::with(&[]));
    let ended = client.watch_with_token(path("/a"), token("t"), None).unwrap();
    client.unwatch(&ended).unwrap();
    let other = client.watch_with_token(path("/b"), token("t"), None).unwrap();
    for error in
        [client.next_event(&ended, SHORT).unwrap_err(), client.unwatch(&ended).unwrap_err()]
    {
        assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    }
    let first = client.next_event(&other, LONG).unwrap().unwrap();
    assert_eq!((first.path.as_str(), first.first), ("/b", true));
    client.unwatch(&other).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap().watch_count(), 0);
}

#[test]
fn a_refused_watch_is_not_set_and_its_token_free_again() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Error(Errno::EINVAL));
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Ok);
    });
    let error = client.watch_with_token(path("/a"), token("t"), Some(1)).unwrap_err();
    assert_eq!(error.to_string(), "WATCH of /a: refused with EINVAL");
    let _watch = client.watch_with_token(path("/a"), token("t"), None).unwrap();
    server.join().unwrap();
}

#[test]
fn an_unwatch_that_the_server_refuses_does_not_end_the_client() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Ok);
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Error(Errno::ENOENT));
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Value(b"alive".to_vec()));
    });
    let watch = client.watch(path("/a"), None).unwrap();
    let error = client.unwatch(&watch).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert_eq!(client.read(&path("/a")).unwrap(), b"alive");
    server.join().unwrap();
}

#[test]
fn equal_events_that_wait_are_one_and_what_does_not_fit_is_said_to_be_lost() {
    let many = EVENTS_PER_WATCH_MAX + 100;
    let (mut client, server) = client_of(LONG, move |mut peer| {
        let asked = peer.expect();
        let Request::Watch { token, .. } = asked.request.clone() else { panic!() };
        peer.reply(&asked, &Reply::Ok);
        peer.event("/a", &token);
        for _ in 0..50 {
            peer.event("/a", &token);
            peer.event("/a/same", &token);
        }
        for i in 0..many {
            peer.event(&format!("/a/{i}"), &token);
        }
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Value(Vec::new()));
        let asked = peer.expect();
        peer.event("/a/later", &token);
        peer.reply(&asked, &Reply::Value(Vec::new()));
    });
    let watch = client.watch(path("/a"), None).unwrap();
    client.read(&path("/a")).unwrap();
    let events: Vec<Event> = client.events(&watch, SHORT).map(Result::unwrap).collect();
    let paths: Vec<&str> = events.iter().map(|event| event.path.as_str()).collect();
    assert_eq!(paths[..4], ["/a", "/a", "/a/same", "/a/0"]);
    assert!(events[0].first && events[0].lost_before, "the next event taken says it");
    assert!(events[1..].iter().all(|event| !event.first && !event.lost_before));
    assert_eq!(events.len(), EVENTS_PER_WATCH_MAX);
    client.read(&path("/a")).unwrap();
    let later = client.next_event(&watch, LONG).unwrap().unwrap();
    assert!(later.path.as_str() == "/a/later" && !later.lost_before);
    let done = client.statistics();
    assert_eq!((done.events_coalesced, done.events_lost), (98, 103));
    drop(client);
    server.join().unwrap();
}

#[test]
fn special_names_are_watched_too() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let name: SpecialName = SpecialName::RELEASE_DOMAIN.parse().unwrap();
    let watch = client.watch(name, None).unwrap();
    let first = client.next_event(&watch, LONG).unwrap().unwrap();
    assert_eq!(first.path.as_str(), "@releaseDomain");
}

#[test]
fn a_reset_makes_all_watches_stale() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let watch = client.watch(path("/a"), None).unwrap();
    client.reset_watches().unwrap();
    let error = client.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
}

#[test]
fn events_that_came_before_the_server_went_can_still_be_taken() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        let Request::Watch { token, .. } = asked.request.clone() else { panic!() };
        peer.reply(&asked, &Reply::Ok);
        peer.event("/a", &token);
        peer.event("/a/b", &token);
    });
    let watch = client.watch(path("/a"), None).unwrap();
    server.join().unwrap();
    let mut events = client.events(&watch, LONG);
    assert_eq!(events.next().unwrap().unwrap().path.as_str(), "/a");
    assert_eq!(events.next().unwrap().unwrap().path.as_str(), "/a/b");
    assert!(events.next().unwrap().unwrap_err().is_lost());
    assert!(events.next().is_none());
}

#[test]
fn a_batch_fence_is_one_round_trip_and_quiet_when_nothing_changes() {
    let (mut client, server) = client_of_store(Store::with(&[("/a/b", "1")]));
    let mut batch = Batch::new();
    let fence = batch.fence(path("/a"));
    let b = batch.read(path("/a/b"));
    let mut replies = client.run(batch).unwrap();
    assert_eq!(replies.take(b).unwrap(), b"1");
    assert_eq!(replies.disturbances(fence).unwrap(), []);
    assert_eq!(client.statistics().round_trips, 1);
    drop(client);
    let store = server.join().unwrap();
    let seen: Vec<_> = store.seen.iter().map(|asked| asked.request.message_type()).collect();
    assert_eq!(seen, [MessageType::WATCH, MessageType::READ, MessageType::UNWATCH]);
    assert_eq!(store.watch_count(), 0);
}

#[test]
fn a_change_during_a_fenced_batch_is_told() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let watch = peer.expect();
        let Request::Watch { token, .. } = watch.request.clone() else { panic!() };
        peer.reply(&watch, &Reply::Ok);
        peer.event("/a", &token);
        let read = peer.expect();
        peer.event("/a/c", &token);
        peer.reply(&read, &Reply::Value(Vec::new()));
        let unwatch = peer.expect();
        peer.reply(&unwatch, &Reply::Ok);
        // On its way when the watch ended: nobody's.
        peer.event("/a/d", &token);
        let read = peer.expect();
        peer.reply(&read, &Reply::Value(Vec::new()));
    });
    let mut batch = Batch::new();
    let fence = batch.fence(path("/a"));
    batch.read(path("/a/b"));
    let replies = client.run(batch).unwrap();
    let disturbed: Vec<_> = replies.disturbances(fence).unwrap().iter().map(|e| &e.path).collect();
    assert_eq!(disturbed, [&PathOrSpecial::Node(path("/a/c"))]);
    client.read(&path("/a")).unwrap();
    assert_eq!(client.statistics().events_unknown, 1);
    server.join().unwrap();
}

#[test]
fn a_fence_whose_watch_is_refused_says_that_nothing_is_known() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        for reply in
            [Reply::Error(Errno::ENOSPC), Reply::Value(b"1".to_vec()), Reply::Error(Errno::ENOENT)]
        {
            let asked = peer.expect();
            peer.reply(&asked, &reply);
        }
    });
    let mut batch = Batch::new();
    let fence = batch.fence(path("/a"));
    let read = batch.read(path("/a"));
    let mut replies = client.run(batch).unwrap();
    let error = replies.disturbances(fence).unwrap_err();
    assert_eq!(error.to_string(), "WATCH of /a: refused with ENOSPC");
    assert_eq!(replies.take(read).unwrap(), b"1");
    server.join().unwrap();
}

#[test]
fn a_fenced_batch_that_is_sent_again_opens_nothing_twice() {
    let mut store = Store::with(&[("/a/one", "")]);
    store.big_directories = true;
    let (mut client, server) = client_of_store(store);
    let mut batch = Batch::new();
    batch.fence(path("/a"));
    let watch = batch.watch(path("/a"), None);
    batch.directory(path("/a"));
    let (transaction, mut replies) = client.transaction_with(batch).unwrap();
    transaction.abort().unwrap();
    let watch = replies.take_watch(watch).unwrap();
    assert!(client.next_event(&watch, LONG).unwrap().unwrap().first);
    drop(client);
    let store = server.join().unwrap();
    assert_eq!((store.open_transactions(), store.watch_count()), (0, 1));
}

#[test]
fn parts_of_directories_are_read_inside_the_fence() {
    let mut store = Store::with(&[("/a/one", ""), ("/a/two", "")]);
    store.big_directories = true;
    let (mut client, server) = client_of_store(store);
    let mut batch = Batch::new();
    let fence = batch.fence(path("/a"));
    let list = batch.directory(path("/a"));
    let mut replies = client.run(batch).unwrap();
    assert_eq!(replies.take(list).unwrap().len(), 2);
    assert_eq!(replies.disturbances(fence).unwrap(), []);
    let done = client.statistics();
    assert_eq!((done.round_trips, done.directory_pages), (3, 1));
    drop(client);
    let store = server.join().unwrap();
    let seen: Vec<_> = store.seen.iter().map(|asked| asked.request.message_type()).collect();
    let wanted = [
        MessageType::WATCH,
        MessageType::DIRECTORY,
        MessageType::UNWATCH,
        MessageType::WATCH,
        MessageType::DIRECTORY,
        MessageType::DIRECTORY_PART,
        MessageType::UNWATCH,
    ];
    assert_eq!(seen, wanted);
    assert_eq!(store.watch_count(), 0);
}

#[test]
fn a_fence_in_a_transaction_is_refused() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let mut transaction = client.transaction().unwrap();
    let mut batch = Batch::new();
    batch.fence(path("/a"));
    let error = transaction.run(batch).unwrap_err();
    assert!(matches!(error.failure(), Failure::UnorderedEvents), "{error}");
}

#[test]
fn a_fence_over_several_batches_tells_of_changes_at_the_very_path_too() {
    let (mut client, server) = client_of_store(Store::with(&[("/a/b", "1")]));
    let fence = client.fence([path("/a").into(), path("/c").into()]).unwrap();
    client.read(&path("/a/b")).unwrap();
    assert_eq!(client.lower(fence).unwrap(), []);
    assert_eq!(client.statistics().round_trips, 3);
    let fence = client.fence([path("/a").into()]).unwrap();
    client.write(&path("/a"), b"").unwrap();
    let happened = client.lower(fence).unwrap();
    assert_eq!(happened.len(), 1);
    assert!(!happened[0].first);
    drop(client);
    assert_eq!(server.join().unwrap().watch_count(), 0);
}

#[test]
fn who_takes_the_events_of_all_watches_does_not_take_those_of_a_fence() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a/b", "1")]));
    let watch = client.watch(path("/a"), None).unwrap();
    let fence = client.fence([path("/a").into()]).unwrap();
    client.write(&path("/a/b"), b"2").unwrap();
    let any: Vec<Event> = std::iter::from_fn(|| client.next_event_any(SHORT).unwrap()).collect();
    assert_eq!(any.len(), 2);
    assert!(any.iter().all(|event| event.token == *watch.token()), "{any:?}");
    let happened = client.lower(fence).unwrap();
    assert_eq!(happened.len(), 1, "{happened:?}");
    assert_eq!(happened[0].path.as_str(), "/a/b");
}

#[test]
fn a_watch_set_and_ended_in_batches_gives_its_events_to_the_batch() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a/b", "1")]));
    let mut batch = Batch::new();
    let watch = batch.watch(path("/a"), None);
    let mut replies = client.run(batch).unwrap();
    let watch = replies.take_watch(watch).unwrap();
    client.write(&path("/a/b"), b"2").unwrap();
    let mut batch = Batch::new();
    let ended = batch.unwatch(&watch);
    let mut replies = client.run(batch).unwrap();
    replies.take(ended).unwrap();
    let events = replies.events(&watch);
    assert_eq!(events.len(), 2);
    assert!(events[0].first && events[1].path.as_str() == "/a/b");
    assert!(client.next_event(&watch, SHORT).is_err());
}

#[test]
fn a_timed_out_batch_leaves_no_watch_behind() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let watch = peer.expect();
        peer.reply(&watch, &Reply::Ok);
        let held = peer.expect();
        // The second read and the UNWATCH come in either order: the timeout may be before or after the first reply.
        for _ in 0..2 {
            let asked = peer.expect();
            match asked.request {
                Request::Unwatch { .. } => peer.reply(&asked, &Reply::Ok),
                _ => {
                    peer.reply(&held, &Reply::Value(Vec::new()));
                    peer.reply(&asked, &Reply::Value(Vec::new()));
                }
            }
        }
    });
    let mut batch = Batch::new();
    batch.watch(path("/a"), None);
    batch.read(path("/a"));
    assert!(client.with_deadline(Instant::now() + SHORT).run(batch).unwrap_err().is_timeout());
    client.read(&path("/a")).unwrap();
    server.join().unwrap();
}

#[test]
fn a_watch_that_cannot_be_ended_in_time_is_ended_with_the_next_call() {
    let (mut client, server) = client_of_store(Store::with(&[("/a", "1")]));
    let watch = client.watch(path("/a"), None).unwrap();
    let fence = client.fence([path("/a").into()]).unwrap();
    let mut late = client.with_deadline(Instant::now());
    let error = late.unwatch(&watch).unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { sent: true }), "{error}");
    assert!(late.lower(fence).unwrap_err().is_timeout());
    drop(late);
    let error = client.next_event(&watch, SHORT).unwrap_err();
    assert!(matches!(error.failure(), Failure::StaleHandle), "{error}");
    client.read(&path("/a")).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap().watch_count(), 0);
}
