//! What holds for every message: encode and decode are inverse, splitting changes nothing, and no octets cause a panic.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use proptest::prelude::*;
use xenstore_proto::{
    Access, Decoded, Decoder, DirectoryPart, DomId, Errno, Features, Message, MessageType, Name,
    Path, PathOrSpecial, Perm, Perms, QuotaName, QuotaQuery, Reply, Request, RequestId, Token,
    TxId, WatchEvent, limits,
};

fn domid() -> impl Strategy<Value = DomId> {
    any::<u16>().prop_map(DomId::new)
}

fn path() -> impl Strategy<Value = Path> {
    "/?[a-zA-Z0-9_-][a-zA-Z0-9_@-]{0,8}(/[a-zA-Z0-9_@-]{1,9}){0,5}|/"
        .prop_map(|text| text.parse().unwrap())
}

fn path_or_special() -> impl Strategy<Value = PathOrSpecial> {
    prop_oneof![
        path().prop_map(PathOrSpecial::from),
        "@[a-zA-Z]{1,9}(/[0-9]{1,4})?".prop_map(|text| text.parse().unwrap())
    ]
}

fn name() -> impl Strategy<Value = Name> {
    "[a-zA-Z0-9_@-]{1,12}".prop_map(|text| text.parse().unwrap())
}

fn token() -> impl Strategy<Value = Token> {
    proptest::collection::vec(1_u8.., 0..20).prop_map(|octets| Token::from_octets(octets).unwrap())
}

fn octets() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..60)
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1_u8.., 0..12)
}

fn perms() -> impl Strategy<Value = Perms> {
    let access = prop_oneof![
        Just(Access::None),
        Just(Access::Read),
        Just(Access::Write),
        Just(Access::Both)
    ];
    proptest::collection::vec(
        (access, domid()).prop_map(|(access, domid)| Perm::new(access, domid)),
        1..6,
    )
    .prop_map(|entries| Perms::new(entries).unwrap())
}

fn quota() -> impl Strategy<Value = QuotaName> {
    "[a-z][a-z-]{0,12}".prop_map(|text| QuotaName::from_octets(text.as_bytes()).unwrap())
}

/// A number that has no meaning yet.
fn unknown_type() -> impl Strategy<Value = MessageType> {
    (27_u32..).prop_map(MessageType)
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        proptest::collection::vec(word(), 1..4).prop_map(Request::Control),
        path().prop_map(Request::Directory),
        path().prop_map(Request::Read),
        path_or_special().prop_map(Request::GetPerms),
        (path_or_special(), token(), any::<Option<u32>>())
            .prop_map(|(path, token, depth)| Request::Watch { path, token, depth }),
        (path_or_special(), token()).prop_map(|(path, token)| Request::Unwatch { path, token }),
        Just(Request::TransactionStart),
        any::<bool>().prop_map(|commit| Request::TransactionEnd { commit }),
        (domid(), any::<u64>(), any::<u32>()).prop_map(|(domid, gfn, event_channel)| {
            Request::Introduce { domid, gfn, event_channel }
        }),
        domid().prop_map(Request::Release),
        domid().prop_map(Request::GetDomainPath),
        (path(), octets()).prop_map(|(path, value)| Request::Write { path, value }),
        path().prop_map(Request::Mkdir),
        path().prop_map(Request::Rm),
        (path_or_special(), perms()).prop_map(|(path, perms)| Request::SetPerms { path, perms }),
        domid().prop_map(Request::IsDomainIntroduced),
        domid().prop_map(Request::Resume),
        (domid(), domid()).prop_map(|(domid, target)| Request::SetTarget { domid, target }),
        Just(Request::ResetWatches),
        (path(), any::<u32>()).prop_map(|(path, offset)| Request::DirectoryPart { path, offset }),
        proptest::option::of(domid()).prop_map(Request::GetFeature),
        (domid(), any::<u32>())
            .prop_map(|(domid, bits)| Request::SetFeature { domid, features: Features(bits) }),
        prop_oneof![
            Just(QuotaQuery::Names),
            quota().prop_map(QuotaQuery::Default),
            (domid(), quota()).prop_map(|(domid, quota)| QuotaQuery::Domain(domid, quota))
        ]
        .prop_map(Request::GetQuota),
        (proptest::option::of(domid()), quota(), any::<u32>())
            .prop_map(|(domid, quota, value)| Request::SetQuota { domid, quota, value }),
        (unknown_type(), octets()).prop_map(|(ty, payload)| Request::Unknown { ty, payload }),
    ]
}

/// A reply with the operation that it answers.
fn reply() -> impl Strategy<Value = (MessageType, Reply)> {
    let names = || proptest::collection::vec(name(), 0..6);
    prop_oneof![
        Just((MessageType::WRITE, Reply::Ok)),
        Just((MessageType::WATCH, Reply::Ok)),
        octets().prop_map(|value| (MessageType::READ, Reply::Value(value))),
        names().prop_map(|names| (MessageType::DIRECTORY, Reply::Names(names))),
        perms().prop_map(|perms| (MessageType::GET_PERMS, Reply::Perms(perms))),
        any::<u32>().prop_map(|tx| (MessageType::TRANSACTION_START, Reply::Transaction(TxId(tx)))),
        path().prop_map(|path| (MessageType::GET_DOMAIN_PATH, Reply::DomainPath(path))),
        any::<bool>().prop_map(|yes| (MessageType::IS_DOMAIN_INTRODUCED, Reply::Introduced(yes))),
        (any::<u64>(), names(), any::<bool>()).prop_map(|(generation, names, last)| {
            (MessageType::DIRECTORY_PART, Reply::Part(DirectoryPart { generation, names, last }))
        }),
        any::<u32>().prop_map(|bits| (MessageType::GET_FEATURE, Reply::Features(Features(bits)))),
        proptest::collection::vec(quota(), 0..5)
            .prop_map(|names| (MessageType::GET_QUOTA, Reply::QuotaNames(names))),
        any::<u32>().prop_map(|value| (MessageType::GET_QUOTA, Reply::QuotaValue(value))),
        word().prop_map(|text| (MessageType::CONTROL, Reply::Text(text))),
        (any::<u32>().prop_map(MessageType), "E[A-Z0-9]{1,12}").prop_map(|(ty, name)| (
            ty,
            Reply::Error(Errno::from_octets(name.as_bytes()).unwrap())
        )),
        (unknown_type(), octets()).prop_map(|(ty, payload)| (ty, Reply::Unknown(payload))),
    ]
}

fn decode_whole(wire: &[u8]) -> Message {
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    decoder.push(wire);
    let Decoded::Message(message) = decoder.decode().unwrap() else {
        panic!("no whole message in {wire:?}")
    };
    assert_eq!(decoder.pending(), 0);
    message
}

proptest! {
    #[test]
    fn a_request_decodes_to_what_was_encoded(request in request(), id in any::<u32>(), tx in any::<u32>()) {
        let mut wire = Vec::new();
        request.encode(RequestId(id), TxId(tx), limits::PAYLOAD_MAX, &mut wire).unwrap();
        let message = decode_whole(&wire);
        prop_assert_eq!((message.request_id, message.tx_id), (RequestId(id), TxId(tx)));
        prop_assert_eq!(Request::decode(&message).unwrap(), request);
    }

    #[test]
    fn a_reply_decodes_to_what_was_encoded((asked, reply) in reply(), id in any::<u32>()) {
        let mut wire = Vec::new();
        reply.encode(asked, RequestId(id), TxId::NONE, limits::PAYLOAD_MAX, &mut wire).unwrap();
        prop_assert_eq!(Reply::decode(asked, &decode_whole(&wire)).unwrap(), reply);
    }

    #[test]
    fn an_event_decodes_to_what_was_encoded(path in path_or_special(), token in token()) {
        let event = WatchEvent { path, token };
        let mut wire = Vec::new();
        event.encode(limits::PAYLOAD_MAX, &mut wire).unwrap();
        let message = decode_whole(&wire);
        prop_assert_eq!(message.ty, MessageType::WATCH_EVENT);
        prop_assert_eq!(WatchEvent::decode(&message).unwrap(), event);
    }

    #[test]
    fn messages_decode_the_same_wherever_the_octets_are_split(
        requests in proptest::collection::vec(request(), 1..6),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
    ) {
        let mut wire = Vec::new();
        for request in &requests {
            request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire).unwrap();
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
        cuts.extend([0, wire.len()]);
        cuts.sort_unstable();
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        let mut found = Vec::new();
        for piece in cuts.windows(2) {
            decoder.push(&wire[piece[0]..piece[1]]);
            while let Decoded::Message(message) = decoder.decode().unwrap() {
                found.push(Request::decode(&message).unwrap());
            }
        }
        prop_assert_eq!(found, requests);
        prop_assert_eq!(decoder.pending(), 0);
    }

    #[test]
    fn what_the_decoder_needs_is_never_more_than_what_completes_the_message(request in request()) {
        let mut wire = Vec::new();
        request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire).unwrap();
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        let mut at = 0;
        while let Decoded::Need(more) = decoder.decode().unwrap() {
            prop_assert!(more > 0 && at + more <= wire.len());
            decoder.push(&wire[at..at + more]);
            at += more;
        }
        prop_assert_eq!(at, wire.len());
    }

    #[test]
    fn any_octets_decode_or_break_without_a_panic(octets in proptest::collection::vec(any::<u8>(), 0..200), ty in any::<u32>()) {
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        decoder.push(&octets);
        while let Ok(Decoded::Message(message)) = decoder.decode() {
            let _ = Request::decode(&message);
            let _ = WatchEvent::decode(&message);
        }
        // Every operation, known or not, against a payload of garbage.
        let ty = MessageType(ty % 30);
        let message = Message { ty, request_id: RequestId(0), tx_id: TxId(0), payload: octets };
        let _ = Request::decode(&message);
        let _ = Reply::decode(ty, &message);
    }

    #[test]
    fn a_decoded_request_encodes_to_the_same_meaning(payload in "[@/a-z0-9TFnrwb\0-]{0,24}", ty in 0_u32..27) {
        let message = Message {
            ty: MessageType(ty), request_id: RequestId(0), tx_id: TxId(0), payload: payload.into_bytes(),
        };
        if let Ok(request) = Request::decode(&message) {
            let mut wire = Vec::new();
            request.encode(RequestId(0), TxId(0), limits::PAYLOAD_MAX, &mut wire).unwrap();
            prop_assert_eq!(Request::decode(&decode_whole(&wire)).unwrap(), request);
        }
    }
}

#[test]
fn a_header_that_claims_too_much_breaks_the_stream_for_good_and_keeps_nothing() {
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    let header = xenstore_proto::Header {
        ty: MessageType::WRITE,
        request_id: RequestId(1),
        tx_id: TxId::NONE,
        len: 4097,
    };
    decoder.push(&header.to_octets());
    let broken = decoder.decode().unwrap_err();
    assert_eq!(
        broken.to_string(),
        "WRITE header claims a payload of 4097 octets, more than the 4096 allowed"
    );
    decoder.push(&[0; 5000]);
    assert_eq!(decoder.decode(), Err(broken));
    assert_eq!(decoder.pending(), 0);
}

#[test]
fn a_request_too_long_for_a_message_is_refused_and_leaves_the_buffer_alone() {
    let request =
        Request::Write { path: "/a".parse().unwrap(), value: vec![b'x'; limits::PAYLOAD_MAX - 2] };
    let mut wire = b"before".to_vec();
    let error =
        request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire).unwrap_err();
    assert_eq!((error.len, error.max), (4097, 4096));
    assert_eq!(wire, b"before");
}

#[test]
fn payloads_that_do_not_fit_their_operation_are_refused() {
    let decode = |ty: MessageType, payload: &[u8]| {
        Request::decode(&Message {
            ty,
            request_id: RequestId(1),
            tx_id: TxId::NONE,
            payload: payload.to_vec(),
        })
        .unwrap_err()
        .to_string()
    };
    let missing_nul = "a string of the payload does not end with a NUL, or is missing";
    assert_eq!(decode(MessageType::READ, b"/a"), missing_nul);
    assert_eq!(decode(MessageType::READ, b""), missing_nul);
    assert_eq!(decode(MessageType::READ, b"/a\0b\0"), "2 octets left over after the last argument");
    assert_eq!(
        decode(MessageType::WATCH, b"/a\0t\0-1\0"),
        "depth is not a decimal number in range"
    );
    assert_eq!(
        decode(MessageType::TRANSACTION_END, b"X\0"),
        "end of the transaction is not one of T, F"
    );
    assert_eq!(
        decode(MessageType::INTRODUCE, b"70000\x001\x002\0"),
        "domain id is not a decimal number in range"
    );
    assert_eq!(decode(MessageType::SET_PERMS, b"/a\0"), "permission list without an owner");
}

#[test]
fn a_reply_to_something_else_is_refused() {
    let message = Message {
        ty: MessageType::WRITE,
        request_id: RequestId(1),
        tx_id: TxId::NONE,
        payload: b"OK\0".to_vec(),
    };
    let error = Reply::decode(MessageType::READ, &message).unwrap_err();
    assert_eq!(error.to_string(), "asked READ, got a reply to WRITE");
}

#[test]
fn the_last_part_of_a_directory_ends_with_one_nul_more() {
    let message = |payload: &[u8]| Message {
        ty: MessageType::DIRECTORY_PART,
        request_id: RequestId(1),
        tx_id: TxId::NONE,
        payload: payload.to_vec(),
    };
    let part = |payload: &[u8]| match Reply::decode(MessageType::DIRECTORY_PART, &message(payload))
    {
        Ok(Reply::Part(part)) => (part.generation, part.octets(), part.last),
        other => panic!("{other:?}"),
    };
    assert_eq!(part(b"12\0a\0bc\0"), (12, 5, false));
    assert_eq!(part(b"12\0a\0bc\0\0"), (12, 5, true));
    assert_eq!(part(b"12\0\0"), (12, 0, true));
}
