//! Servers that die, stall, lie or flood.

use std::error::Error;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use xsclient::*;

use crate::support::*;
use crate::under_test::Client;

/// What a read against this server fails with; and the connection, if it is gone, stays gone and says why each time.
fn failed_read(server: impl FnOnce(Peer) + Send + 'static) -> Failure {
    let (mut client, thread) = client_of(LONG, server);
    let error = client.read(&path("/a")).unwrap_err();
    assert!(error.to_string().starts_with("READ of /a: "), "{error}");
    assert!(error.is_lost(), "{error}");
    let again = client.write(&path("/b"), b"").unwrap_err();
    assert_eq!(again.failure().to_string(), error.failure().to_string());
    assert!(again.to_string().starts_with("WRITE of /b: "), "{again}");
    assert!(client.lost().is_some());
    drop(client);
    thread.join().unwrap();
    error.failure().clone()
}

#[test]
fn a_server_that_is_gone_before_the_request_is_said_to_have_closed() {
    let failure = failed_read(drop);
    assert!(matches!(failure, Failure::Lost(ConnectionLost::Closed)), "{failure}");
}

#[test]
fn a_server_that_dies_instead_of_answering_is_said_to_have_closed() {
    let failure = failed_read(|mut peer| drop(peer.expect()));
    assert!(matches!(failure, Failure::Lost(ConnectionLost::Closed)), "{failure}");
}

#[test]
fn a_server_that_dies_inside_a_reply_is_said_to_have_cut_it() {
    for cut in [1, 15, 16, 20] {
        let failure = failed_read(move |mut peer| {
            let asked = peer.expect();
            let reply = reply_octets(&asked, &Reply::Value(b"value".to_vec()));
            peer.send(&reply[..cut]);
        });
        let Failure::Lost(ConnectionLost::ClosedInside { octets }) = failure else {
            panic!("{failure}")
        };
        assert_eq!(octets, cut);
    }
}

#[test]
fn garbage_is_an_error_with_its_reason() {
    let failure = failed_read(|mut peer| {
        peer.expect();
        peer.send(&[b'x'; 100]);
        peer.next();
    });
    let Failure::Lost(lost @ ConnectionLost::Protocol(ProtocolError::Broken(_))) = &failure else {
        panic!("{failure}")
    };
    assert!(lost.source().unwrap().to_string().contains("payload of 2021161080"), "{lost:?}");
}

#[test]
fn a_huge_claim_of_length_is_refused_at_the_header() {
    for claimed in [u32::MAX, 1 << 31, (1 << 20) + 1] {
        let failure = failed_read(move |mut peer| {
            let asked = peer.expect();
            let header = Header {
                ty: MessageType::READ,
                request_id: asked.id,
                tx_id: asked.tx,
                len: claimed,
            };
            peer.send(&header.to_octets());
            peer.next();
        });
        let Failure::Lost(ConnectionLost::Protocol(ProtocolError::Broken(broken))) = failure else {
            panic!("{failure}")
        };
        assert_eq!(broken.claimed, claimed);
    }
}

#[test]
fn a_lie_is_named() {
    type Lie = fn(&Asked) -> Vec<u8>;
    fn message(ty: MessageType, request_id: RequestId, payload: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        let message = Message { ty, request_id, tx_id: TxId::NONE, payload: payload.to_vec() };
        message.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
        octets
    }
    let lies: [(&str, Lie); 9] = [
        ("asked READ, got a reply to WRITE", |asked| {
            message(MessageType::WRITE, asked.id, b"OK\0")
        }),
        ("which waits for no reply", |asked| {
            message(MessageType::READ, RequestId(asked.id.0 + 1), b"value")
        }),
        ("answers request 0", |_| message(MessageType::READ, RequestId(0), b"value")),
        ("which waits for no reply", |_| message(MessageType::WATCH, RequestId(0), b"OK\0")),
        ("without the name", |asked| message(MessageType::ERROR, asked.id, b"no such thing\0")),
        ("malformed reply to ERROR", |asked| message(MessageType::ERROR, asked.id, b"ENOENT")),
        ("malformed reply to ERROR", |asked| message(MessageType::ERROR, asked.id, b"")),
        ("malformed watch event", |_| message(MessageType::WATCH_EVENT, RequestId(0), b"/a\0")),
        ("malformed watch event", |_| {
            message(MessageType::WATCH_EVENT, RequestId(0), b"/a b\0token\0")
        }),
    ];
    for (words, lie) in lies {
        let failure = failed_read(move |mut peer| {
            let asked = peer.expect();
            peer.send(&lie(&asked));
            peer.next();
        });
        let Failure::Lost(ConnectionLost::Protocol(error)) = &failure else { panic!("{failure}") };
        let mut said = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        assert!(said.contains(words), "{said:?} should contain {words:?}");
    }
}

#[test]
fn a_payload_that_does_not_fit_its_operation_is_a_lie() {
    type Ask = fn(&mut Client) -> Result<(), OperationError>;
    let asks: [(Ask, &[u8]); 7] = [
        (|client| client.write(&path("/a"), b""), b"KO\0"),
        (|client| client.get_perms(&path("/a").into()).map(drop), b"\0"),
        (|client| client.directory(&path("/a")).map(drop), b"name without its end"),
        (|client| client.transaction().map(drop), b"-1\0"),
        (|client| client.domain_path(DomId::DOM0).map(drop), b"//\0"),
        (|client| client.is_domain_introduced(DomId::DOM0).map(drop), b"maybe\0"),
        (|client| client.features(None).map(drop), b"99999999999999999999\0"),
    ];
    for (ask, payload) in asks {
        let (mut client, _server) = client_of(LONG, move |mut peer| {
            let asked = peer.expect();
            let ty = asked.request.message_type();
            let message =
                Message { ty, request_id: asked.id, tx_id: asked.tx, payload: payload.to_vec() };
            let mut octets = Vec::new();
            message.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
            peer.send(&octets);
            peer.next();
        });
        let error = ask(&mut client).unwrap_err();
        let lie = matches!(
            error.failure(),
            Failure::Lost(ConnectionLost::Protocol(ProtocolError::WrongReply { .. }))
        );
        assert!(lie, "{error}: {payload:?}");
    }
}

#[test]
fn permissions_for_a_number_that_is_no_domain_fail_their_own_request_only() {
    // oxenstored lets a guest give its nodes such permissions, so they are no reason to give the connection up.
    for payload in [&b"n7\0r99999\0"[..], b"n7\0r-1\0", b"b65536\0"] {
        let (mut client, _server) = client_of(LONG, move |mut peer| {
            let asked = peer.expect();
            peer.reply(&asked, &Reply::Unknown(payload.to_vec()));
            let asked = peer.expect();
            peer.reply(&asked, &Reply::Value(b"right".to_vec()));
            peer.next();
        });
        let mut batch = Batch::new();
        let perms = batch.get_perms(path("/a"));
        let value = batch.read(path("/a"));
        let mut replies = client.run(batch).unwrap();
        let error = replies.take(perms).unwrap_err();
        assert_eq!(error.to_string(), "GET_PERMS of /a: the reply is not permissions");
        assert_eq!(replies.take(value).unwrap(), b"right");
        assert!(client.lost().is_none());
    }
}

#[test]
fn what_a_batch_has_opened_is_closed_again_if_its_directories_cannot_be_read_whole() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let mut store = Store::with(&[("/a/b", "")]);
        store.big_directories = true;
        while let Some(asked) = peer.next() {
            if !matches!(asked.request, Request::DirectoryPart { .. }) {
                for message in store.answer(&asked) {
                    peer.send(&message);
                }
            }
        }
        store
    });
    let mut batch = Batch::new();
    let _watch = batch.watch(path("/a"), None);
    batch.directory(path("/a"));
    let error = client.with_deadline(Instant::now() + SHORT).transaction_with(batch).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    client.read(&path("/a/b")).unwrap();
    drop(client);
    let store = server.join().unwrap();
    assert_eq!((store.open_transactions(), store.watch_count()), (0, 0));
}

#[test]
fn a_quota_answered_with_names_is_an_unexpected_reply_and_the_connection_lives() {
    let (mut client, _server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        peer.reply(&asked, &Reply::QuotaNames(Vec::new()));
        let asked = peer.expect();
        peer.reply(&asked, &Reply::Ok);
    });
    let nodes = QuotaName::from_octets(b"nodes").unwrap();
    let error = client.quota(None, &nodes).unwrap_err();
    assert_eq!(error.to_string(), "GET_QUOTA of nodes: the reply is not the value of a quota");
    client.mkdir(&path("/a")).unwrap();
}

#[test]
fn a_stalled_server_is_a_timeout_and_its_late_reply_is_discarded() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let late = peer.expect();
        let asked = peer.expect();
        peer.reply(&late, &Reply::Value(b"late".to_vec()));
        peer.reply(&asked, &Reply::Value(b"right".to_vec()));
    });
    let started = Instant::now();
    let error = client.with_deadline(started + SHORT).read(&path("/a")).unwrap_err();
    assert!(started.elapsed() >= SHORT);
    assert!(matches!(error.failure(), Failure::Timeout { sent: true }), "{error}");
    assert!(error.to_string().starts_with("READ of /a: no reply before the deadline"), "{error}");
    assert_eq!(client.read(&path("/a")).unwrap(), b"right");
    assert_eq!(client.statistics().late_replies, 1);
    server.join().unwrap();
}

#[test]
fn half_a_reply_and_then_nothing_is_a_timeout_and_the_stream_stays_in_step() {
    for cut in [3, 16, 18] {
        let (mut client, server) = client_of(LONG, move |mut peer| {
            let late = peer.expect();
            let reply = reply_octets(&late, &Reply::Value(b"late".to_vec()));
            peer.send(&reply[..cut]);
            let asked = peer.expect();
            peer.send(&reply[cut..]);
            peer.reply(&asked, &Reply::Value(b"right".to_vec()));
        });
        let error = client.with_deadline(Instant::now() + SHORT).read(&path("/a")).unwrap_err();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(client.read(&path("/a")).unwrap(), b"right");
        server.join().unwrap();
    }
}

#[test]
fn after_the_deadline_nothing_is_sent() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        assert_eq!(asked.request, Request::Read(path("/b")));
        peer.reply(&asked, &Reply::Value(Vec::new()));
    });
    let error = client.with_deadline(Instant::now()).write(&path("/a"), b"").unwrap_err();
    assert!(matches!(error.failure(), Failure::Timeout { sent: false }), "{error}");
    client.read(&path("/b")).unwrap();
    server.join().unwrap();
}

#[test]
fn the_earlier_of_two_nested_deadlines_counts_and_both_end_with_their_guards() {
    let (mut client, _server) = client_of(SHORT, |mut peer| while peer.next().is_some() {});
    let now = Instant::now();
    let mut outer = client.with_deadline(now + SHORT);
    let error = outer.with_deadline(now + LONG).read(&path("/a")).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(outer);
    let started = Instant::now();
    assert!(client.read(&path("/a")).unwrap_err().is_timeout());
    assert!(started.elapsed() >= SHORT, "the client's own timeout is back");
}

#[test]
fn requests_of_a_timed_out_batch_that_were_not_sent_never_are() {
    let (go, wait) = std::sync::mpsc::channel();
    let (mut client, server) = client_of(LONG, move |mut peer| {
        wait.recv().unwrap();
        let mut written = 0;
        loop {
            let asked = peer.expect();
            match asked.request {
                Request::Write { .. } => written += 1,
                _ => {
                    peer.reply(&asked, &Reply::Value(b"right".to_vec()));
                    return assert!(written < 5000, "{written} of 5000 written");
                }
            }
            peer.reply(&asked, &Reply::Ok);
        }
    });
    let mut batch = Batch::new();
    for _ in 0..5000 {
        batch.write(path("/a"), vec![0; 4000]);
    }
    let error = client.with_deadline(Instant::now() + SHORT).run(batch).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    go.send(()).unwrap();
    assert_eq!(client.read(&path("/a")).unwrap(), b"right");
    server.join().unwrap();
}

#[test]
fn what_a_late_reply_opens_is_closed_again() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let start = peer.expect();
        let watch = peer.expect();
        let Request::Watch { token, path: watched, .. } = watch.request.clone() else { panic!() };
        let read = peer.expect();
        peer.reply(&start, &Reply::Transaction(TxId(77)));
        peer.reply(&watch, &Reply::Ok);
        peer.event("/w", &token);
        peer.reply(&read, &Reply::Value(Vec::new()));
        let mut closing = [peer.expect(), peer.expect()];
        closing.sort_by_key(|asked| asked.tx);
        assert_eq!(closing[0].request, Request::Unwatch { path: watched, token });
        assert_eq!(closing[1].tx, TxId(77));
        assert_eq!(closing[1].request, Request::TransactionEnd { commit: false });
        for asked in closing {
            peer.reply(&asked, &Reply::Error(Errno::ENOENT));
        }
        let read = peer.expect();
        peer.reply(&read, &Reply::Value(Vec::new()));
    });
    let mut hurried = client.with_deadline(Instant::now() + SHORT);
    assert!(hurried.transaction().unwrap_err().is_timeout());
    drop(hurried);
    let mut hurried = client.with_deadline(Instant::now() + SHORT);
    assert!(hurried.watch(path("/w"), None).unwrap_err().is_timeout());
    drop(hurried);
    client.read(&path("/a")).unwrap();
    client.read(&path("/a")).unwrap();
    assert_eq!(client.statistics().events_unknown, 1);
    server.join().unwrap();
}

#[test]
fn replies_in_another_order_find_their_requests() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let mut asked: Vec<Asked> = (0..100).map(|_| peer.expect()).collect();
        // An order that is neither the first nor the reverse.
        asked.sort_by_key(|asked| asked.id.0 * 37 % 101);
        for asked in asked {
            let Request::Read(path) = &asked.request else { panic!() };
            let value = path.as_str().as_bytes().to_vec();
            peer.reply(&asked, &Reply::Value(value));
        }
    });
    let mut batch = Batch::new();
    let slots: Vec<_> = (0..100).map(|i| batch.read(path(&format!("/n/{i}")))).collect();
    let mut replies = client.run(batch).unwrap();
    for (i, slot) in slots.into_iter().enumerate() {
        assert_eq!(replies.take(slot).unwrap(), format!("/n/{i}").as_bytes());
    }
    server.join().unwrap();
}

#[test]
fn a_reply_may_come_one_octet_at_a_time_with_events_in_between() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let asked = peer.expect();
        let token = Token::from_octets(*b"nobody's").unwrap();
        let mut octets = event_octets("/x", &token);
        octets.extend(reply_octets(&asked, &Reply::Value(b"value".to_vec())));
        octets.extend(event_octets("/y", &token));
        for octet in octets {
            peer.send(&[octet]);
        }
        peer.next();
    });
    assert_eq!(client.read(&path("/a")).unwrap(), b"value");
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_server_that_sends_events_without_end_does_not_hold_up_a_deadline() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let token = Token::from_octets(*b"nobody's").unwrap();
        let event = event_octets("/x", &token).repeat(1000);
        while peer.send(&event) {}
    });
    let error = client.with_deadline(Instant::now() + SHORT).read(&path("/a")).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    assert_eq!(client.next_event_any(SHORT).unwrap(), None);
    assert!(client.statistics().events_unknown > 1000);
    drop(client);
    server.join().unwrap();
}

#[test]
fn a_server_that_closes_during_a_batch_names_the_first_request_without_a_reply() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        for _ in 0..2 {
            let asked = peer.expect();
            peer.reply(&asked, &Reply::Value(Vec::new()));
        }
    });
    let mut batch = Batch::new();
    for i in 0..1000 {
        batch.read(path(&format!("/n/{i}")));
    }
    let error = client.run(batch).unwrap_err();
    assert!(error.is_lost(), "{error}");
    assert_eq!(error.subject(), Some("/n/2"));
    server.join().unwrap();
}

#[test]
fn a_batch_larger_than_all_buffers_does_not_deadlock_with_a_server_that_answers_only_when_full() {
    let (mut client, server) = client_of(LONG, |mut peer| {
        let mut held = Vec::new();
        let mut left = 4000;
        while left > 0 {
            // As long as more comes, it does not answer; then it answers and does not read.
            held.push(peer.expect());
            peer.stream.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            while let Some(asked) = peer.next() {
                held.push(asked);
            }
            peer.stream.set_read_timeout(Some(LONG)).unwrap();
            left -= held.len();
            for asked in held.drain(..) {
                let reply = match asked.request {
                    Request::Read(_) => Reply::Value(vec![7; 4000]),
                    _ => Reply::Ok,
                };
                peer.reply(&asked, &reply);
            }
        }
    });
    let mut batch = Batch::new();
    let slots: Vec<_> = (0..2000)
        .map(|_| {
            batch.write(path("/a"), vec![7; 4000]);
            batch.read(path("/a"))
        })
        .collect();
    let mut replies = client.run(batch).unwrap();
    for slot in slots {
        assert_eq!(replies.take(slot).unwrap().len(), 4000);
    }
    let done = client.statistics();
    assert_eq!((done.round_trips, done.requests), (1, 4000));
    server.join().unwrap();
}

#[test]
fn a_server_that_neither_reads_nor_answers_a_large_batch_is_a_timeout() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (mut client, server) = client_of(LONG, move |peer| {
        let _ = wait.recv();
        drop(peer);
    });
    let mut batch = Batch::new();
    for _ in 0..5000 {
        batch.write(path("/a"), vec![7; 4000]);
    }
    let error = client.with_deadline(Instant::now() + SHORT).run(batch).unwrap_err();
    assert!(error.is_timeout(), "{error}");
    drop(go);
    server.join().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_a_server_sends_each_call_ends(
        answers in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..60).prop_map(Answer::Garbage),
                (0..40_usize).prop_map(Answer::Cut),
                (0..6_u32).prop_map(Answer::OtherId),
                Just(Answer::Nothing),
                Just(Answer::Right),
            ],
            1..6,
        ),
    ) {
        let count = answers.len();
        let (mut client, server) = client_of(Duration::from_millis(20), move |mut peer| {
            for answer in answers {
                let Some(mut asked) = peer.next() else { return };
                let mut octets = reply_octets(&asked, &Reply::Value(b"value".to_vec()));
                match answer {
                    Answer::Garbage(garbage) => octets = garbage,
                    Answer::Cut(at) => octets.truncate(at),
                    Answer::OtherId(id) => {
                        asked.id = RequestId(id);
                        octets = reply_octets(&asked, &Reply::Value(b"value".to_vec()));
                    }
                    Answer::Nothing => continue,
                    Answer::Right => {}
                }
                peer.send(&octets);
            }
        });
        for _ in 0..count + 1 {
            match client.read(&path("/a")) {
                Ok(value) => prop_assert!(value.len() <= 60),
                Err(error) => {
                    prop_assert!(error.is_lost() || error.is_timeout() || error.errno().is_some());
                }
            }
        }
        drop(client);
        server.join().unwrap();
    }
}

#[derive(Clone, Debug)]
enum Answer {
    Garbage(Vec<u8>),
    Cut(usize),
    OtherId(u32),
    Nothing,
    Right,
}
