//! The connection without I/O: any octets in any pieces.

use proptest::prelude::*;
use xsclient::*;

use crate::support::*;

const STREAM: Manner = Manner {
    framing: Framing::Stream,
    event_order: EventOrder::WithReplies,
    request_payload_max: limits::PAYLOAD_MAX,
};

const DEVICE: Manner = Manner {
    framing: Framing::MessagePerSend,
    event_order: EventOrder::Separate,
    request_payload_max: 4080,
};

fn message(ty: MessageType, id: RequestId, payload: &[u8]) -> Vec<u8> {
    let mut octets = Vec::new();
    let message = Message { ty, request_id: id, tx_id: TxId::NONE, payload: payload.to_vec() };
    message.encode(limits::REPLY_PAYLOAD_TOLERATED, &mut octets).unwrap();
    octets
}

/// Submits one request of several kinds, and gives their ids.
fn submit_all(connection: &mut Connection) -> Vec<(RequestId, MessageType)> {
    let token = Token::from_octets(*b"t").unwrap();
    let requests = [
        Request::Read(path("/a")),
        Request::Directory(path("/a")),
        Request::GetPerms(path("/a").into()),
        Request::Write { path: path("/a"), value: vec![1] },
        Request::TransactionStart,
        Request::Watch { path: path("/a").into(), token, depth: None },
        Request::GetDomainPath(DomId::DOM0),
        Request::GetQuota(QuotaQuery::Names),
    ];
    let submit = |request: &Request| {
        (connection.submit(request, TxId::NONE).unwrap(), request.message_type())
    };
    requests.iter().map(submit).collect()
}

fn drain(connection: &mut Connection) -> Vec<Incoming> {
    std::iter::from_fn(|| connection.poll_incoming()).collect()
}

proptest! {
    #[test]
    fn any_cutting_of_a_stream_gives_the_same_replies_and_events(
        order in Just((0..8_usize).collect::<Vec<_>>()).prop_shuffle(),
        events in proptest::collection::vec(0..9_usize, 0..6),
        refused in proptest::collection::vec(any::<bool>(), 8),
        cuts in proptest::collection::vec(1..40_usize, 1..60),
        broken in any::<bool>(),
    ) {
        let mut whole = Connection::new(STREAM);
        let mut pieces = Connection::new(STREAM);
        let ids = submit_all(&mut whole);
        prop_assert_eq!(&ids, &submit_all(&mut pieces));
        let token = Token::from_octets(*b"t").unwrap();
        let mut stream = Vec::new();
        for (position, &at) in order.iter().enumerate() {
            for _ in events.iter().filter(|&&e| e == position) {
                stream.extend(event_octets("/a/b", &token));
            }
            let (id, ty) = ids[at];
            let payload: &[u8] = match ty {
                MessageType::READ => b"any\xffthing",
                MessageType::DIRECTORY => b"one\0two\0",
                MessageType::GET_PERMS => b"n0\0r7\0",
                MessageType::TRANSACTION_START => b"12\0",
                MessageType::GET_DOMAIN_PATH => b"/local/domain/0\0",
                MessageType::GET_QUOTA => b"nodes watches\0",
                _ => b"OK\0",
            };
            stream.extend(if refused[at] {
                message(MessageType::ERROR, id, b"EQUOTA\0")
            } else {
                message(ty, id, payload)
            });
        }
        if broken {
            stream.extend(message(MessageType::READ, RequestId(12345), b"lie"));
            stream.extend(event_octets("/after/the/lie", &token));
        }
        let at_once = whole.handle_octets(&stream);
        prop_assert_eq!(at_once.is_err(), broken);
        let mut rest = &stream[..];
        let mut result = Ok(());
        let mut out = Vec::new();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            result = pieces.handle_octets(piece);
            rest = after;
            out.extend(drain(&mut pieces));
        }
        prop_assert_eq!(at_once, result);
        prop_assert_eq!(drain(&mut whole), out);
        prop_assert_eq!(whole.in_flight(), 0);
    }

    #[test]
    fn any_octets_give_replies_or_an_error_that_stays(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        plausible in any::<bool>(),
    ) {
        let mut octets = octets;
        if plausible && octets.len() >= 18 {
            // A header that may be one, so that what follows is looked into.
            let len = u32::try_from(octets.len() - 18).unwrap();
            let (ty, id) = (u32::from(octets[2] % 30), u32::from(octets[6] % 14));
            for (word, at) in [(ty, 2), (id, 6), (0, 10), (len, 14)] {
                octets[at..at + 4].copy_from_slice(&word.to_ne_bytes());
            }
        }
        fuzzing::receive(&octets);
    }

    #[test]
    fn what_is_transmitted_is_what_was_submitted_less_what_was_withdrawn(
        sizes in proptest::collection::vec(0..30_usize, 1..20),
        steps in proptest::collection::vec((0..60_usize, 0..20_usize), 0..30),
    ) {
        let mut connection = Connection::new(STREAM);
        let mut ids = Vec::new();
        let mut messages = Vec::new();
        for size in &sizes {
            let request = Request::Write { path: path("/a"), value: vec![9; *size] };
            let id = connection.submit(&request, TxId::NONE).unwrap();
            let mut octets = Vec::new();
            request.encode(id, TxId::NONE, limits::PAYLOAD_MAX, &mut octets).unwrap();
            ids.push(id);
            messages.push(Some(octets));
        }
        let mut sent = Vec::new();
        for (send, withdraw) in steps {
            let some = connection.poll_transmit().map(|all| all[..send.min(all.len())].to_vec());
            if let Some(some) = some {
                connection.transmitted(some.len());
                sent.extend(some);
            }
            if let Some(id) = ids.get(withdraw)
                && connection.abandon(*id) == Abandoned::Withdrawn
            {
                messages[withdraw] = None;
            }
        }
        while let Some(all) = connection.poll_transmit().map(<[u8]>::to_vec) {
            connection.transmitted(all.len());
            sent.extend(all);
        }
        let wanted: Vec<u8> = messages.into_iter().flatten().flatten().collect();
        prop_assert_eq!(sent, wanted);
    }
}

#[test]
fn a_transport_of_whole_messages_gets_one_at_a_time() {
    let mut connection = Connection::new(DEVICE);
    submit_all(&mut connection);
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    let mut seen = 0;
    while let Some(octets) = connection.poll_transmit().map(<[u8]>::to_vec) {
        decoder.push(&octets);
        assert!(matches!(decoder.decode(), Ok(Decoded::Message(_))));
        assert_eq!(decoder.pending(), 0, "no more and no less than a message");
        connection.transmitted(octets.len());
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn an_old_kernels_reply_to_watch_without_a_request_id_is_understood_on_the_device_only() {
    for (manner, understood) in [(DEVICE, true), (STREAM, false)] {
        let mut connection = Connection::new(manner);
        let ids = submit_all(&mut connection);
        let octets = message(MessageType::WATCH, RequestId(0), b"OK\0");
        assert_eq!(connection.handle_octets(&octets).is_ok(), understood);
        if understood {
            let reply = Incoming::Reply { request_id: ids[5].0, reply: Reply::Ok };
            assert_eq!(drain(&mut connection), [reply]);
        }
    }
}

#[test]
fn a_reply_that_comes_twice_is_a_lie() {
    let mut connection = Connection::new(STREAM);
    let id = connection.submit(&Request::Read(path("/a")), TxId::NONE).unwrap();
    let reply = message(MessageType::READ, id, b"value");
    connection.handle_octets(&reply).unwrap();
    let error = connection.handle_octets(&reply).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server lies: READ answers request 1, which waits for no reply"
    );
    assert_eq!(drain(&mut connection).len(), 1, "what came before the lie can be had");
}
