//! What stock servers were seen to refuse, lose and mistake.

use xenstore_migration::{
    ByteOrder, NodeAccess, NodePerm, NodeScope, Peer, PeerChecker, PeerTrouble, PermFlags,
    Preamble, QuotaTable, RecordType, TransactionData, Version, WatchDepth,
};
use xenstore_proto::{Access, DomId, TxId};

use crate::any_record::Owned;
use crate::{id, node, ring};

const NATIVE: Preamble = Preamble::new(Version::V1, ByteOrder::NATIVE);

fn troubles(peer: Peer, records: &[Owned]) -> Vec<PeerTrouble> {
    let mut checker = PeerChecker::new(NATIVE, peer);
    records.iter().flat_map(|record| checker.check(&record.record())).collect()
}

#[test]
fn nothing_is_wrong_with_what_a_c_xenstored_wrote() {
    let domain = Owned::Domain(DomId::new(1), None, QuotaTable::new());
    let records = [ring(1, 0, None), ring(2, 1, Some(0)), node("/", 0), node("/a", 1), domain];
    for peer in Peer::ALL {
        assert_eq!(troubles(peer, &records), [], "{peer}");
        assert_eq!(PeerChecker::new(NATIVE, peer).check_preamble(), []);
    }
}

#[test]
fn each_trap_is_found() {
    let (connection, transaction) = (id(2), TxId(5));
    let scope = NodeScope::Pending { connection, transaction, access: NodeAccess::WRITTEN };
    let Owned::Node(_, perms, path, value) = node("/p", 0) else { unreachable!() };
    let extended = Owned::WatchExtended(id(2), WatchDepth::Untold, b"/w".to_vec(), Vec::new());
    let records = [
        ring(1, 2, Some(1)),
        ring(2, 1, None),
        Owned::Transaction(TransactionData { connection, transaction }),
        node("/of-9", 9),
        Owned::Node(scope, perms, path, value),
        Owned::Domain(DomId::new(9), None, QuotaTable::new()),
        Owned::Unknown(RecordType(55), Vec::new()),
        Owned::Unknown(RecordType(56), vec![0; 8]),
        extended,
    ];
    use PeerTrouble as T;
    let octets = |path: &str| path.as_bytes().into();
    let [one, two, nine] = [1, 2, 9].map(DomId::new);
    let expected = vec![
        T::TargetLater { domid: two, target: one },
        T::Transaction { connection, transaction },
        T::OwnerNotConnected { path: octets("/of-9"), owner: nine },
        T::PendingNode { path: octets("/p") },
        T::DomainNotConnected { domid: nine },
        T::UnknownEmpty { record_type: RecordType(55) },
        T::Skipped { record_type: RecordType(56) },
        T::WatchMisread { path: octets("/w") },
    ];
    assert_eq!(troubles(Peer::C2026, &records), expected);
    assert_eq!(expected.iter().filter(|trouble| trouble.is_refusal()).count(), 3);
    assert_eq!(troubles(Peer::Specification, &records), []);
    assert_eq!(
        troubles(Peer::C417, &records).last(),
        Some(&T::Skipped { record_type: RecordType::WATCH_DATA_EXTENDED })
    );
}

#[test]
fn a_foreign_byte_order_and_an_unknown_version_are_refused() {
    let foreign = match ByteOrder::NATIVE {
        ByteOrder::Little => ByteOrder::Big,
        ByteOrder::Big => ByteOrder::Little,
    };
    let checker = PeerChecker::new(Preamble::new(Version::V2, foreign), Peer::C417);
    assert_eq!(checker.check_preamble(), [PeerTrouble::Version, PeerTrouble::ByteOrder]);
    let checker = PeerChecker::new(Preamble::new(Version::V2, foreign), Peer::Specification);
    assert_eq!(checker.check_preamble(), []);
}

/// In the form that C xenstored writes, the length of half of the extended watches counts 8 octets that are not there.
#[test]
fn whether_only_the_watch_is_lost_or_all_behind_it_is_told() {
    // The lengths of path and token, with their NULs, leave 5, 6, 7 or 0 when divided by 8.
    let tokens = ["", "1", "12", "123", "1234", "12345", "123456"];
    for (token, lost) in tokens.into_iter().zip([false, true, true, true, true, false, false]) {
        let watch = Owned::WatchExtended(id(1), WatchDepth::Untold, b"/a".to_vec(), token.into());
        let path = b"/a".as_slice().into();
        let expected =
            if lost { PeerTrouble::WayLost { path } } else { PeerTrouble::WatchMisread { path } };
        assert_eq!(expected.is_refusal(), lost);
        assert_eq!(troubles(Peer::C2026Written, &[watch]), [expected], "{token}");
    }
}

/// The domain could come back with the same id and be another.
#[test]
fn a_right_of_a_domain_that_is_not_connected_is_lost() {
    let scope = NodeScope::Committed;
    let stale = NodePerm { flags: PermFlags::STALE, ..NodePerm::new(Access::Read, DomId::new(8)) };
    let mut perms =
        [0, 1, 9, DomId::ANY.get()].map(|it| NodePerm::new(Access::Read, DomId::new(it))).to_vec();
    perms.push(stale);
    let records = [ring(1, 1, None), Owned::Node(scope, perms, b"/a".to_vec(), Vec::new())];
    let lost = PeerTrouble::RightLost { path: b"/a".as_slice().into(), domid: DomId::new(9) };
    assert!(!lost.is_refusal());
    for peer in [Peer::C417, Peer::C2026] {
        assert_eq!(troubles(peer, &records), std::slice::from_ref(&lost));
    }
    assert_eq!(troubles(Peer::Specification, &records), []);
}
