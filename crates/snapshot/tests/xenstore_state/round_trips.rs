//! The budget: a round trip a level, whatever the nodes.

use snapshot::xenstore_state::{Means, extract};
use xenstored::{Embedded, Store};

use crate::hosts::{self, client, path, request};

/// A guest with `nodes` nodes on each of three levels below its data.
fn guest(nodes: usize) -> Embedded {
    let mut store = Store::from_text(hosts::HOST).unwrap();
    for n in 0..nodes {
        let path = path(&format!("/local/domain/7/data/{n}/a/b"));
        store.write(&path, b"value").unwrap();
    }
    Embedded::new(store)
}

fn round_trips(xenstore: &Embedded, means: Means) -> u64 {
    let mut client = client(xenstore);
    let before = client.statistics();
    let extracted = extract(&mut client, &request(means)).unwrap();
    let trips = client.statistics().since(&before).round_trips;
    assert_eq!(extracted.round_trips, trips);
    trips
}

#[test]
fn a_level_is_a_round_trip_however_many_nodes_it_has() {
    for means in [Means::Fence, Means::Transaction] {
        let few = round_trips(&guest(25), means);
        // /local/domain/7/data/N/a/b is five levels, and one more ends the fence. A transaction reads the first level twice, the
        // second time together with the second.
        let expected = 6;
        for nodes in [50, 100, 1000] {
            let many = round_trips(&guest(nodes), means);
            assert_eq!((few, many), (expected, expected), "{means:?}, {nodes} nodes a level");
        }
    }
}

#[test]
fn the_tree_of_the_vm_is_read_beside_the_other_levels() {
    let with = round_trips(&hosts::xenstore(), Means::Fence);
    let without = hosts::xenstore();
    hosts::apply(&without, hosts::remove(hosts::VM));
    assert_eq!(with, round_trips(&without, Means::Fence));
    assert_eq!(with, 6);
}

#[test]
fn another_level_is_another_round_trip() {
    let xenstore = hosts::xenstore();
    let before = round_trips(&xenstore, Means::Fence);
    hosts::apply(&xenstore, hosts::write("/local/domain/7/data/app/deep/er/still", b""));
    assert_eq!(round_trips(&xenstore, Means::Fence), before + 1);
}

/// So many replies are held at a time, whatever a guest has written.
#[test]
fn a_level_of_more_than_4096_nodes_takes_a_round_trip_for_each_4096() {
    let xenstore = |nodes| {
        let mut store = Store::from_text(hosts::HOST).unwrap();
        for n in 0..nodes {
            store.write(&path(&format!("/local/domain/7/data/app/{n}")), b"").unwrap();
        }
        Embedded::new(store)
    };
    // Besides these, the level has deep, device/vbd/51712 and the VM's image/ostype.
    assert_eq!([4000, 4093, 4094].map(|n| round_trips(&xenstore(n), Means::Fence)), [6, 6, 6]);
    assert_eq!(round_trips(&xenstore(5000), Means::Fence), 7);
}

#[test]
fn nobody_is_asked_for_a_node_twice_but_for_the_roots() {
    let xenstore = hosts::xenstore();
    let nodes = hosts::extract_guest(&xenstore).state.nodes.len() as u64;
    let mut client = client(&xenstore);
    extract(&mut client, &request(Means::Fence)).unwrap();
    // Three for each node; of both roots, WATCH, UNWATCH and two at the end; GET_FEATURE, which knows no such
    // domain, and CONTROL, which knows no connection of it.
    assert_eq!(client.statistics().requests, nodes * 3 + 2 * 4 + 2);
}
