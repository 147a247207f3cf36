//! Changes that land between the reads of a retrieve.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use libxl_config::retrieve::{Attachment, Consistency, Means, Retriever, TemplateSource};
use libxl_config::template::{MemoryStore, create, forget};
use xenstored::Embedded;
use xsclient::{EVENTS_PER_WATCH_MAX, Request};

use crate::hosts::{
    self, GUEST, client, deadline, disk, retrieve, template, templates, vdevs, write,
};

/// Calls `change` before the request number `at` of those that read.
fn before_read(
    xenstore: &Embedded,
    at: usize,
    mut change: impl FnMut(&mut xenstored::Server) + Send + 'static,
) {
    let mut reads = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
        if matches!(request, Request::Read(_) | Request::Directory(_)) {
            if reads == at {
                change(server);
            }
            reads += 1;
        }
    })));
}

/// How many reads one attempt takes.
fn reads(xenstore: &Embedded, templates: &MemoryStore, means: Means) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, request| {
        if matches!(request, Request::Read(_) | Request::Directory(_)) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })));
    Retriever::new(&mut client(xenstore), templates).means(means).retrieve(GUEST).unwrap();
    xenstore.set_interceptor(None);
    count.load(Ordering::Relaxed)
}

#[test]
fn a_hotplug_landing_between_any_two_reads_is_seen_whole_or_not_at_all() {
    for means in [Means::Fence, Means::Transaction] {
        let total = reads(&hosts::xenstore(), &templates(&["xvda", "xvdb"]), means);
        assert!(total > 20, "{total} reads");
        let mut inside = 0;
        for at in 0..total {
            let xenstore = hosts::xenstore();
            let templates = templates(&["xvda", "xvdb"]);
            before_read(&xenstore, at, |server| {
                for request in disk("xvdb", 51728, "4") {
                    server.apply(request);
                }
            });
            let retrieved = Retriever::new(&mut client(&xenstore), &templates)
                .means(means)
                .retrieve(GUEST)
                .unwrap();
            let Consistency::Consistent { attempts } = retrieved.report.consistency else {
                panic!("{means:?}, before read {at}: {:?}", retrieved.report.consistency);
            };
            let xvdb = retrieved.report.devices.iter().find(|device| device.id == "xvdb").unwrap();
            // A transaction of this server sees the moment of its start, a fence that of its end.
            let before = means == Means::Transaction && vdevs(&retrieved) == ["xvda"];
            let expected = if before { Attachment::Absent } else { Attachment::Connected };
            assert_eq!(xvdb.attachment, expected, "{means:?}, before read {at}");
            assert_eq!(xvdb.in_configuration, !before, "{means:?}, before read {at}");
            inside += usize::from(attempts > 1 || before);
        }
        assert!(inside > 0, "{means:?}: the change never landed inside a read");
    }
}

/// The first device of its kind, which no directory of kinds showed before.
#[test]
fn the_first_device_of_a_kind_is_seen_whole_or_not_at_all() {
    let nodes = [
        ("/libxl/7/device/vif/0/backend", "/local/domain/0/backend/vif/7/0"),
        ("/libxl/7/device/vif/0/mac", "00:16:3e:00:00:01"),
        ("/local/domain/7/device/vif/0/state", "4"),
        ("/local/domain/0/backend/vif/7/0/state", "4"),
    ];
    for means in [Means::Fence, Means::Transaction] {
        let total = reads(&hosts::xenstore(), &templates(&["xvda"]), means);
        for at in 0..total {
            let xenstore = hosts::xenstore();
            before_read(&xenstore, at, move |server| {
                for (path, value) in nodes {
                    server.apply(write(path, value));
                }
            });
            let templates = templates(&["xvda"]);
            let retrieved = Retriever::new(&mut client(&xenstore), &templates)
                .means(means)
                .retrieve(GUEST)
                .unwrap();
            let Consistency::Consistent { .. } = retrieved.report.consistency else {
                panic!("{means:?}, before read {at}: {:?}", retrieved.report);
            };
            let macs: Vec<_> =
                retrieved.config.nics.iter().map(|nic| nic.mac.to_string()).collect();
            let before = means == Means::Transaction && macs.is_empty();
            assert!(
                before || macs == ["00:16:3e:00:00:01"],
                "{means:?}, before read {at}: {macs:?}"
            );
        }
    }
}

#[test]
fn an_unplug_landing_between_any_two_reads_is_seen_whole_or_not_at_all() {
    for means in [Means::Fence, Means::Transaction] {
        let total = reads(&hosts::xenstore(), &templates(&["xvda"]), means);
        for at in 0..total {
            let xenstore = hosts::xenstore();
            let templates = templates(&["xvda"]);
            before_read(&xenstore, at, |server| {
                for path in [
                    "/local/domain/7/device/vbd/51712",
                    "/libxl/7/device/vbd/51712",
                    "/local/domain/0/backend/vbd/7/51712",
                ] {
                    server.apply(Request::Rm(path.parse().unwrap()));
                }
            });
            let retrieved = Retriever::new(&mut client(&xenstore), &templates)
                .means(means)
                .retrieve(GUEST)
                .unwrap();
            let consistent = matches!(retrieved.report.consistency, Consistency::Consistent { .. });
            let before = means == Means::Transaction && vdevs(&retrieved) == ["xvda"];
            let expected = if before { Attachment::Connected } else { Attachment::Absent };
            let xvda = &retrieved.report.devices[0];
            assert!(
                consistent && xvda.attachment == expected,
                "{means:?}, before read {at}: {:?}",
                retrieved.report
            );
        }
    }
}

#[test]
fn a_template_changed_while_xenstore_is_read_is_read_again() {
    let total = reads(&hosts::xenstore(), &templates(&["xvda"]), Means::Fence);
    for at in 0..total {
        let xenstore = hosts::xenstore();
        for request in disk("xvdb", 51728, "4") {
            hosts::apply(&xenstore, request);
        }
        let templates = Arc::new(templates(&["xvda"]));
        let changed = Arc::clone(&templates);
        before_read(&xenstore, at, move |_| {
            forget(&*changed, &hosts::key(), deadline()).unwrap();
            create(&*changed, &hosts::key(), &template(&["xvda", "xvdb"]), deadline()).unwrap();
        });
        let retrieved =
            Retriever::new(&mut client(&xenstore), &*templates).retrieve(GUEST).unwrap();
        assert_eq!(
            retrieved.report.consistency,
            Consistency::Consistent { attempts: 2 },
            "before read {at}"
        );
        // Not built from Xenstore, which would come without the template's format.
        assert!(
            retrieved.report.devices.iter().all(|device| device.note.is_none()),
            "{:?}",
            retrieved.report
        );
    }
}

/// A domain is created: its nodes are there before its template is.
#[test]
fn a_template_that_appears_while_xenstore_is_read_is_taken() {
    let total = reads(&hosts::xenstore(), &MemoryStore::new(), Means::Fence);
    for (at, has_uuid) in (0..total).flat_map(|at| [(at, true), (at, false)]) {
        let xenstore = hosts::xenstore();
        if !has_uuid {
            hosts::apply(&xenstore, Request::Rm("/local/domain/7/vm".parse().unwrap()));
        }
        let templates = Arc::new(MemoryStore::new());
        let appearing = Arc::clone(&templates);
        before_read(&xenstore, at, move |_| {
            create(&*appearing, &hosts::key(), &template(&["xvda"]), deadline()).unwrap();
        });
        let retrieved =
            Retriever::new(&mut client(&xenstore), &*templates).retrieve(GUEST).unwrap();
        let report = &retrieved.report;
        assert!(
            matches!(report.template, TemplateSource::Found { .. }),
            "before read {at}, uuid {has_uuid}: {report:?}"
        );
        assert_eq!(report.consistency, Consistency::Consistent { attempts: 2 });
    }
}

#[test]
fn a_domain_that_never_stops_changing_is_given_up_on_and_reported() {
    let xenstore = hosts::xenstore();
    let mut n = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
        if matches!(request, Request::Read(path) if path.name() == Some("target")) {
            n += 1;
            server.apply(write("/local/domain/7/memory/target", &(100_000 + n).to_string()));
        }
    })));
    let mut client = client(&xenstore);
    let templates = templates(&["xvda"]);
    let retrieved = Retriever::new(&mut client, &templates).attempts(3).retrieve(GUEST).unwrap();
    let Consistency::Changing { attempts: 3, changed } = &retrieved.report.consistency else {
        panic!("{:?}", retrieved.report.consistency);
    };
    assert_eq!(changed, &["/local/domain/7/memory/target"]);
    assert!(!retrieved.report.is_clean());
}

/// More than a client keeps for one watch.
#[test]
fn an_answer_that_kept_changing_is_given_when_the_server_goes_before_the_next() {
    let xenstore = hosts::xenstore();
    let templates = templates(&["xvda"]);
    let total = reads(&xenstore, &templates, Means::Fence);
    let mut read = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, connection, _, request| {
        if matches!(request, Request::Read(_) | Request::Directory(_)) {
            read += 1;
            if read == total {
                server.apply(write("/local/domain/7/memory/target", "131072"));
            } else if read > total {
                server.disconnect(connection);
            }
        }
    })));
    let retrieved = retrieve(&xenstore, &templates);
    let Consistency::Changing { attempts: 1, changed } = &retrieved.report.consistency else {
        panic!("{:?}", retrieved.report.consistency);
    };
    assert_eq!(changed, &["/local/domain/7/memory/target"]);
}

#[test]
fn a_change_among_more_events_than_are_kept_counts() {
    let xenstore = hosts::xenstore();
    let templates = templates(&["xvda"]);
    let total = reads(&xenstore, &templates, Means::Fence);
    before_read(&xenstore, total - 1, |server| {
        for n in 0..EVENTS_PER_WATCH_MAX {
            server.apply(write(&format!("/local/domain/70/data/{n}"), "x"));
        }
        server.apply(write("/local/domain/7/memory/target", "131072"));
    });
    let retrieved = retrieve(&xenstore, &templates);
    assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 2 });
    assert_eq!(retrieved.config.b_info.target_memkb.get(), Some(131_072));
}

#[test]
fn a_change_among_more_events_than_a_client_keeps_is_not_overlooked() {
    let xenstore = hosts::xenstore();
    let templates = templates(&["xvda"]);
    let last = reads(&xenstore, &templates, Means::Fence) - 1;
    before_read(&xenstore, last, |server| {
        for n in 0..2000 {
            server.apply(write(&format!("/local/domain/70/data/{n}"), "x"));
        }
        server.apply(write("/local/domain/7/memory/target", "131072"));
    });
    let mut client = client(&xenstore);
    let retrieved = Retriever::new(&mut client, &templates).retrieve(GUEST).unwrap();
    assert!(client.statistics().events_lost > 0, "{:?}", client.statistics());
    assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 2 });
    assert_eq!(retrieved.config.b_info.target_memkb.get(), Some(131_072));
}

#[test]
fn a_guest_that_keeps_writing_does_not_keep_a_read_from_being_consistent() {
    let xenstore = hosts::xenstore();
    xenstore.set_interceptor(Some(Box::new(|server, _, _, request| {
        if matches!(request, Request::Read(_) | Request::Directory(_)) {
            // A device's directory itself is the guest's, too.
            for path in [
                "/local/domain/7/data/x",
                "/local/domain/7/device/vbd/51712/state",
                "/local/domain/7/device/vbd/51712",
            ] {
                server.apply(write(path, "4"));
            }
        }
    })));
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 1 });
}

#[test]
fn a_guest_that_removes_its_end_of_a_device_does_not_keep_a_read_from_being_consistent() {
    let xenstore = hosts::xenstore();
    let total = reads(&xenstore, &templates(&["xvda"]), Means::Fence);
    before_read(&xenstore, total - 1, |server| {
        server.apply(Request::Rm("/local/domain/7/device/vbd/51712".parse().unwrap()));
    });
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 1 });
}

/// The directory of a kind is the toolstack's: no guest can make a device appear.
#[test]
fn a_frontend_that_appears_counts_although_its_keys_are_the_guests() {
    for path in ["/local/domain/7/device/vif/0/state", "/local/domain/7/device/vbd/51728/state"] {
        let xenstore = hosts::xenstore();
        let total = reads(&xenstore, &templates(&["xvda"]), Means::Fence);
        before_read(&xenstore, total - 1, move |server| {
            server.apply(write(path, "1"));
        });
        let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
        assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 2 }, "{path}");
        assert_eq!(retrieved.report.devices.len(), 2, "{path}");
    }
}

#[test]
fn changes_of_other_domains_do_not_count() {
    let xenstore = hosts::xenstore();
    xenstore.set_interceptor(Some(Box::new(|server, _, _, request| {
        if matches!(request, Request::Read(_)) {
            server.apply(write("/local/domain/70/name", "other"));
            server.apply(write("/local/domain/0/backend/vbd/70/51712/state", "2"));
            server.apply(write("/libxl/70/device/vbd/51712/state", "2"));
        }
    })));
    let retrieved = retrieve(&xenstore, &templates(&["xvda"]));
    assert_eq!(retrieved.report.consistency, Consistency::Consistent { attempts: 1 });
}

#[test]
fn the_revision_changes_with_template_and_view_and_with_nothing_else() {
    let xenstore = hosts::xenstore();
    let one = templates(&["xvda"]);
    let first = retrieve(&xenstore, &one).revision;
    assert_eq!(retrieve(&xenstore, &one).revision, first);
    hosts::apply(&xenstore, write("/local/domain/7/data/x", "1"));
    assert_eq!(retrieve(&xenstore, &one).revision, first);
    assert_ne!(retrieve(&xenstore, &templates(&["xvda", "xvdb"])).revision, first);
    hosts::apply(&xenstore, write("/local/domain/7/memory/target", "131072"));
    assert_ne!(retrieve(&xenstore, &one).revision, first);
}
