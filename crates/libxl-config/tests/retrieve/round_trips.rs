//! The budget: four round trips, whatever the devices, and no question of which nothing is made.

use libxl_config::Layout;
use libxl_config::retrieve::{Attachment, DeviceReport, Means, Retriever};
use libxl_config::template::{DomId, MemoryStore};
use xenstored::{Embedded, Store};
use xsclient::Reply;

use crate::hosts::{self, GUEST, client, disk, templates};

#[test]
fn a_domain_takes_at_most_four_round_trips_whatever_its_devices() {
    let few = hosts::xenstore();
    let many = hosts::xenstore();
    for n in 1..200_u32 {
        let number = 1 << 28 | (n + 20) << 8;
        for request in disk(&format!("d{}p0", n + 20), number, "4") {
            hosts::apply(&many, request);
        }
    }
    for (xenstore, disks) in [(&few, 1), (&many, 200)] {
        for means in [Means::Fence, Means::Transaction] {
            let mut client = client(xenstore);
            let before = client.statistics();
            let templates = templates(&["xvda"]);
            let retrieved =
                Retriever::new(&mut client, &templates).means(means).retrieve(GUEST).unwrap();
            assert_eq!(retrieved.config.disks.len(), disks);
            let trips = client.statistics().since(&before).round_trips;
            assert!(trips <= 4, "{means:?}, {disks} disks: {trips} round trips");
        }
    }
}

#[test]
fn a_configuration_alone_takes_no_question_about_states() {
    let xenstore = hosts::xenstore();
    for (vdev, number, state) in [("xvdb", 51728, "2"), ("xvdc", 51744, "5")] {
        for request in disk(vdev, number, state) {
            hosts::apply(&xenstore, request);
        }
    }
    for means in [Means::Fence, Means::Transaction] {
        let asked = |attachments| {
            let mut client = client(&xenstore);
            let templates = templates(&["xvda", "xvdb"]);
            let retriever = Retriever::new(&mut client, &templates).means(means);
            let retrieved = retriever.attachments(attachments).retrieve(GUEST).unwrap();
            (client.statistics().requests, retrieved)
        };
        let ((all, told), (few, untold)) = (asked(true), asked(false));
        // Three of a backend and one of its frontend.
        let states = 3 * 4;
        assert_eq!(all - few, states, "{means:?}: {all} requests and {few}");
        assert_eq!(told.config.to_json(Layout::Yajl), untold.config.to_json(Layout::Yajl));
        assert_eq!(told.report.devices.len(), 3);
        assert!(told.report.devices.iter().any(|device| !device.attachment.is_settled()));
        let unknown = |device: &DeviceReport| device.attachment == Attachment::Unknown;
        assert!(untold.report.devices.iter().all(unknown), "{:?}", untold.report.devices);
    }
}

#[test]
fn domains_asked_for_together_share_their_round_trips() {
    let xenstore = hosts::xenstore();
    for domid in 100..130 {
        hosts::apply(
            &xenstore,
            hosts::write(&format!("/local/domain/{domid}/name"), &format!("guest{domid}")),
        );
    }
    let mut client = client(&xenstore);
    let templates = templates(&["xvda"]);
    let mut retriever = Retriever::new(&mut client, &templates);
    let domids: Vec<DomId> = (100..130).chain([7]).map(DomId::new).collect();
    let answers = retriever.retrieve_all(&domids);
    assert_eq!(answers.iter().map(|(domid, _)| *domid).collect::<Vec<_>>(), domids);
    for (domid, answer) in answers {
        let name = answer.unwrap().config.c_info.name.unwrap();
        let expected = if domid == GUEST { "web".to_owned() } else { format!("guest{domid}") };
        assert_eq!(name, expected);
    }
    assert!(client.statistics().round_trips <= 4);
}

#[test]
fn a_thousand_domains_are_listed_although_their_directory_is_larger_than_one_reply() {
    let mut store = Store::new();
    for domid in 0..1500 {
        store.write(&format!("/local/domain/{domid}/name").parse().unwrap(), b"x").unwrap();
    }
    // Not everything there is a domain.
    store.write(&"/local/domain/007".parse().unwrap(), b"").unwrap();
    let xenstore = Embedded::new(store);
    let refused = xenstore.apply(xsclient::Request::Directory("/local/domain".parse().unwrap()));
    assert_eq!(refused, Reply::Error(xsclient::Errno::E2BIG));
    let mut client = client(&xenstore);
    let templates = MemoryStore::new();
    let domids = Retriever::new(&mut client, &templates).domains().unwrap();
    assert_eq!(domids, (0..1500).map(DomId::new).collect::<Vec<_>>());
    let statistics = client.statistics();
    assert!(statistics.directory_pages > 1 && statistics.round_trips == 1, "{statistics:?}");
}
