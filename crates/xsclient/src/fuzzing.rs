//! What a fuzz target of this crate runs.

use crate::{
    Connection, DomId, EventOrder, Framing, Incoming, Manner, Path, PathOrSpecial, Request, Token,
    TxId, limits,
};

/// Gives octets to a connection that waits for replies of every kind, in two pieces and, on another connection, at once;
/// and checks that both give the same and that an error stays.
///
/// The first octet says which manner the transport has, the second where the rest is cut. Request ids start at 1.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn receive(data: &[u8]) {
    let [kind, cut, stream @ ..] = data else { return };
    let framing = if kind % 2 == 0 { Framing::Stream } else { Framing::MessagePerSend };
    let manner = Manner {
        framing,
        event_order: EventOrder::WithReplies,
        request_payload_max: limits::PAYLOAD_MAX,
    };
    let (first, second) = stream.split_at(usize::from(*cut).min(stream.len()));
    let at_once = outcome(manner, &[stream]);
    let in_pieces = outcome(manner, &[first, second]);
    assert_eq!(at_once, in_pieces);
}

/// What came out, and the words of the error if there was one.
fn outcome(manner: Manner, pieces: &[&[u8]]) -> (Vec<Incoming>, Option<String>) {
    let mut connection = Connection::new(manner);
    for request in requests() {
        let submitted = connection.submit(&request, TxId::NONE);
        assert!(submitted.is_ok(), "short requests fit");
    }
    let mut came = Vec::new();
    let mut error = None;
    for piece in pieces {
        let handled = connection.handle_octets(piece);
        came.extend(std::iter::from_fn(|| connection.poll_incoming()));
        if let Some(before) = &error {
            assert_eq!(handled.as_ref().map_err(ToString::to_string).err().as_ref(), Some(before));
        }
        if let Err(failed) = handled {
            assert_eq!(connection.failed(), Some(&failed));
            assert_eq!(connection.poll_transmit(), None);
            error = Some(failed.to_string());
        }
    }
    (came, error)
}

fn requests() -> Vec<Request> {
    let path = Path::root();
    let watched = || PathOrSpecial::Node(path.clone());
    let token = Token::from_octets(*b"t").expect("t holds no NUL");
    vec![
        Request::Read(path.clone()),
        Request::Directory(path.clone()),
        Request::GetPerms(watched()),
        Request::Mkdir(path.clone()),
        Request::TransactionStart,
        Request::Watch { path: watched(), token, depth: None },
        Request::GetDomainPath(DomId::DOM0),
        Request::IsDomainIntroduced(DomId::DOM0),
        Request::DirectoryPart { path: path.clone(), offset: 0 },
        Request::GetFeature(None),
        Request::GetQuota(xenstore_proto::QuotaQuery::Names),
        Request::Control(vec![b"help".to_vec()]),
    ]
}
