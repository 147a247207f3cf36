//! What holds for any nodes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use snapshot::xenstore_state::{Consistency, Limits, Means, apply as apply_state, extract};
use xenstore_migration::domain_state::DomainState;
use xenstore_migration::{
    ByteOrder, Peer, Preamble, ReadOptions, StreamReader, StreamWriter, Version,
};
use xenstored::{Embedded, Store};
use xsclient::{DomId, Path, Perms};

use crate::hosts::{self, VM, client, knowing_all, nodes_below, path, request};

/// What a guest has written: below its data, its attributes and in the tree of its VM.
type Written = BTreeMap<Path, (Vec<u8>, Perms)>;

fn any_written() -> impl Strategy<Value = Written> {
    let root = prop_oneof![Just("/local/domain/7/data"), Just("/local/domain/7/attr"), Just(VM)];
    let below = proptest::collection::vec("[ab@-]{1,2}", 1..4);
    let at = (root, below).prop_map(|(root, below)| path(&format!("{root}/{}", below.join("/"))));
    let value = proptest::collection::vec(any::<u8>(), 0..20);
    let entry = (
        prop_oneof!["n", "r", "w", "b"],
        prop_oneof![Just(0), Just(7), 0..DomId::FIRST_RESERVED.get()],
    );
    let perms = proptest::collection::vec(entry, 1..4).prop_map(|entries| {
        let entries: Vec<_> = entries.iter().map(|(letter, id)| format!("{letter}{id}")).collect();
        entries.join(",").parse().unwrap()
    });
    proptest::collection::btree_map(at, (value, perms), 0..25)
}

fn host(written: &Written) -> Embedded {
    let mut store = Store::from_text(hosts::HOST).unwrap();
    for (path, (value, perms)) in written {
        store.write(path, value).unwrap();
        store.set_perms(path, perms.clone()).unwrap();
    }
    Embedded::new(store)
}

fn unlimited() -> Limits {
    Limits { nodes: usize::MAX, octets: usize::MAX }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn any_nodes_are_read_as_they_are(written in any_written(), fence in any::<bool>()) {
        let xenstore = host(&written);
        let mut request = request(if fence { Means::Fence } else { Means::Transaction });
        request.limits = unlimited();
        let extracted = extract(&mut client(&xenstore), &request).unwrap();
        prop_assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
        let expected = nodes_below(&xenstore.snapshot(), &["/local/domain/7", VM]);
        prop_assert_eq!(&extracted.state.nodes, &expected);

        // Whoever keeps it as a stream has it as it was.
        let preamble = Preamble::new(Version::V2, ByteOrder::Little);
        let peer = Peer::Specification;
        let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
        let losses = extracted.state.to_stream(&mut writer).unwrap();
        prop_assert!(losses.is_empty(), "{:?}", losses);
        let stream = writer.finish().unwrap();
        let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
        let read = DomainState::from_stream(&mut reader).unwrap();
        prop_assert_eq!(read.state, extracted.state);
    }

    #[test]
    fn any_state_comes_back_over_any_other_and_the_rest_of_the_store_stays(
        before in any_written(),
        after in any_written(),
    ) {
        let state = extract(&mut client(&host(&before)), &request(Means::Transport)).unwrap().state;
        let xenstore = host(&after);
        let everything = knowing_all(&state, hosts::everything());
        apply_state(&mut client(&xenstore), &state, &everything).unwrap();
        let restored = nodes_below(&xenstore.snapshot(), &["/"]);
        prop_assert_eq!(restored, nodes_below(&host(&before).snapshot(), &["/"]));
        let again = apply_state(&mut client(&xenstore), &state, &everything).unwrap();
        prop_assert!(!again.committed && again.plan.changes.is_empty());
    }
}
