//! States through streams.

use proptest::prelude::*;
use xenstore_migration::domain_state::{
    ConnectionState, DomainState, StreamLoss, ToStreamError, TransactionState, WatchState,
};
use xenstore_migration::{
    ByteOrder, OrderChecker, Peer, PeerTrouble, Preamble, StreamKind, StreamWriter, Version,
    Violation, WatchDepth,
};
use xenstore_proto::{DomId, Features, Token, TxId};

use crate::{any_state, path, reader, state};

const DOMID: DomId = DomId::new(3);
const V1: Preamble = Preamble::new(Version::V1, ByteOrder::Little);
const V2: Preamble = Preamble::new(Version::V2, ByteOrder::Little);

fn written(
    state: &DomainState,
    preamble: Preamble,
    peer: Peer,
) -> Result<(Vec<u8>, Vec<StreamLoss>), ToStreamError> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    let losses = state.to_stream(&mut writer)?;
    Ok((writer.finish().unwrap(), losses))
}

/// What is left of a state when what is listed is lost.
fn without(mut state: DomainState, losses: &[StreamLoss]) -> DomainState {
    for loss in losses {
        match loss {
            StreamLoss::Depth { path, token, depth, carried } => {
                let watches = &mut state.connection.as_mut().unwrap().watches;
                let same = |watch: &&mut WatchState| watch.path == *path && watch.token == *token;
                let watch = watches.iter_mut().find(same).unwrap();
                assert_eq!(watch.depth, *depth);
                watch.depth = *carried;
            }
            StreamLoss::Features { features } => {
                assert_eq!(state.features.take(), Some(*features));
            }
            StreamLoss::FeaturesUntold => {
                assert_eq!(state.features.replace(Features(0)), None);
            }
            StreamLoss::Root { path } => assert!(state.roots.remove(path)),
            StreamLoss::Peer { .. } => {}
            _ => panic!("{loss}"),
        }
    }
    state
}

proptest! {
    #[test]
    fn a_state_comes_back_from_every_stream_but_for_what_is_listed(
        state in any_state::state(DOMID),
        v2: bool,
        big: bool,
        peer in prop::sample::select(&Peer::ALL[..]),
    ) {
        let version = if v2 && peer.knows(Version::V2) { Version::V2 } else { Version::V1 };
        let preamble = Preamble::new(version, if big { ByteOrder::Big } else { ByteOrder::Little });
        let (stream, losses) = written(&state, preamble, peer).unwrap();
        let contents = DomainState::from_stream(&mut reader(&stream)).unwrap();
        prop_assert_eq!(contents.state, without(state, &losses));
        prop_assert!(contents.unknown.is_empty() && contents.stale.is_empty());
    }

    #[test]
    fn a_written_stream_is_in_order(state in any_state::state(DOMID), v2: bool) {
        let preamble = if v2 { V2 } else { V1 };
        let (stream, _) = written(&state, preamble, Peer::Specification).unwrap();
        let mut order = OrderChecker::new(preamble, StreamKind::Domain);
        let mut reader = reader(&stream);
        while let Some(placed) = reader.next_record().unwrap() {
            prop_assert_eq!(order.check(&placed.record), []);
        }
    }

    #[test]
    fn no_octets_make_reading_panic_or_give_what_cannot_be_written(
        state in any_state::state(DOMID),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (mut stream, _) = written(&state, V2, Peer::Specification).unwrap();
        let body = stream.len() - 16;
        for (at, octet) in flips {
            stream[16 + at.index(body)] ^= octet;
        }
        if let Ok(contents) = DomainState::from_stream(&mut reader(&stream)) {
            let again = written(&contents.state, V2, Peer::Specification).unwrap();
            let (stream, losses) = again;
            let read = DomainState::from_stream(&mut reader(&stream)).unwrap().state;
            prop_assert_eq!(read, without(contents.state, &losses));
        }
    }
}

#[test]
fn version_1_lists_depths_and_features_as_lost() {
    let mut state = state(3, &["/local/domain/3 - n0,r3"]);
    let watch = |depth| WatchState {
        path: "@releaseDomain".parse().unwrap(),
        token: Token::from_octets(*b"t").unwrap(),
        depth,
    };
    let depth = Some(WatchDepth::Levels(1));
    state.connection = Some(ConnectionState { watches: vec![watch(depth)], ..Default::default() });
    state.features = Some(Features(14));
    let (_, losses) = written(&state, V1, Peer::Specification).unwrap();
    let texts: Vec<_> = losses.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "the watch on @releaseDomain with token t has no longer the depth Some(Levels(1)) but None",
            "the features, 0xe, are not told in version 1",
        ]
    );
    assert_eq!(written(&state, V2, Peer::Specification).unwrap().1, []);
}

#[test]
fn what_a_deployed_server_makes_of_the_stream_is_listed() {
    let mut state = state(3, &["/local/domain/3 - n0,r3", "/local/domain/3/data - n77"]);
    let open = TransactionState { id: TxId(5), nodes: Default::default() };
    state.connection = Some(ConnectionState { transactions: vec![open], ..Default::default() });
    let preamble = Preamble::new(Version::V1, ByteOrder::NATIVE);
    let (_, losses) = written(&state, preamble, Peer::C417).unwrap();
    let troubles: Vec<_> = losses
        .into_iter()
        .map(|loss| match loss {
            StreamLoss::Peer { trouble } => trouble,
            loss => panic!("{loss}"),
        })
        .collect();
    let [PeerTrouble::Transaction { .. }, PeerTrouble::OwnerNotConnected { owner, .. }] =
        &troubles[..]
    else {
        panic!("{troubles:?}")
    };
    assert_eq!(*owner, DomId::new(77));
}

#[test]
fn a_root_that_the_stream_cannot_tell_is_listed() {
    let mut state = state(3, &["/local/domain/3 - n0", "/local/domain/3/data - n0"]);
    state.roots.extend([path("/local/domain/3/data"), path("/vm/gone")]);
    let (_, losses) = written(&state, V2, Peer::Specification).unwrap();
    let root = |text: &str| StreamLoss::Root { path: path(text) };
    assert_eq!(losses, [root("/local/domain/3/data"), root("/vm/gone")]);
}

#[test]
fn the_hosts_own_port_and_unique_id_are_not_told() {
    let mut state = state(3, &[]);
    state.connection = Some(ConnectionState::default());
    let (stream, _) = written(&state, V2, Peer::Specification).unwrap();
    // Type 2, length 24: conn-id 1, a ring without additional fields; domid 3, no target, port 0; no messages.
    let mut expected = V2.to_octets().to_vec();
    expected.extend([2, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([3, 0, 0xf4, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0; 8]);
    assert_eq!(stream, expected);
}

#[test]
fn a_state_that_does_not_go_together_is_not_written_at_all() {
    let refused = |state: &DomainState| {
        let mut writer = StreamWriter::create(Vec::new(), V2, Peer::Specification).unwrap();
        let error = state.to_stream(&mut writer).unwrap_err();
        assert_eq!(writer.finish().unwrap().len(), 16 + 8);
        error
    };
    let orphan = state(3, &["/local/domain/3 - n0", "/local/domain/3/a - n0"]);
    let mut without_parent = orphan.clone();
    without_parent.nodes.remove(&path("/local/domain/3"));
    assert!(matches!(refused(&without_parent), ToStreamError::Orphan { .. }));

    let shared = state(3, &["/local/domain/3 - n0", "/vm - n0"]);
    assert!(
        matches!(refused(&shared), ToStreamError::NotOwned { path } if path == crate::path("/vm"))
    );
    let others = state(3, &["/local/domain/3 - n0", "/local/domain/4 - n0"]);
    assert!(matches!(refused(&others), ToStreamError::NotOwned { .. }));

    let mut twice = orphan.clone();
    let open = TransactionState { id: TxId(5), nodes: Default::default() };
    let transactions = vec![open.clone(), open];
    twice.connection = Some(ConnectionState { transactions, ..Default::default() });
    let error = refused(&twice);
    let ToStreamError::State { violation: Violation::RepeatedTransaction { .. } } = error else {
        panic!("{error}")
    };
}
