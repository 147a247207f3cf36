//! Changes that land between the reads of an extract.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use snapshot::xenstore_state::{Consistency, Extracted, Means, MissingReason, extract};
use xenstored::{Embedded, InProcess, Server};
use xsclient::{
    Client, Decoded, Decoder, DomId, Interest, Manner, MessageType, Options, Readiness, Request,
    Transport, limits,
};

use crate::hosts::{self, VM, client, nodes_below, path, remove, request, set_perms, write};

/// Calls `change` before the request number `at` of those that read, and before each after it if `again`.
fn before_read(
    xenstore: &Embedded,
    at: usize,
    again: bool,
    mut change: impl FnMut(&mut Server) + Send + 'static,
) {
    let mut reads = 0;
    xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
        if is_read(request) {
            if reads == at || (again && reads > at) {
                change(server);
            }
            reads += 1;
        }
    })));
}

fn is_read(request: &Request) -> bool {
    matches!(request, Request::Read(_) | Request::Directory(_) | Request::GetPerms(_))
}

/// How many reads one attempt takes.
fn reads(means: Means) -> usize {
    let xenstore = hosts::xenstore();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    xenstore.set_interceptor(Some(Box::new(move |_, _, _, request| {
        if is_read(request) {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    })));
    extract(&mut client(&xenstore), &request(means)).unwrap();
    count.load(Ordering::Relaxed)
}

/// Makes a change before each read in turn; the state must be that before the change or that after it.
fn is_never_torn(changes: &[Request]) {
    let before = nodes_below(&hosts::xenstore().snapshot(), &["/local/domain/7", VM]);
    for means in [Means::Fence, Means::Transaction] {
        let total = reads(means);
        assert!(total > 50, "{total} reads");
        let mut inside = 0;
        for at in 0..total {
            let xenstore = hosts::xenstore();
            let requests = changes.to_vec();
            before_read(&xenstore, at, false, move |server| {
                for request in &requests {
                    server.apply(request.clone());
                }
            });
            let extracted = extract(&mut client(&xenstore), &request(means)).unwrap();
            let Consistency::Consistent { attempts } = extracted.consistency else {
                panic!("{means:?}, before read {at}: {:?}", extracted.consistency);
            };
            let after = nodes_below(&xenstore.snapshot(), &["/local/domain/7", VM]);
            let seen = &extracted.state.nodes;
            assert!(*seen == after || *seen == before, "{means:?}, before read {at}: {seen:?}");
            inside += usize::from(attempts > 1 || *seen == before);
        }
        assert!(inside > 0, "{means:?}: the change never landed inside a read");
    }
}

#[test]
fn values_that_belong_together_are_seen_together() {
    is_never_torn(&[
        write("/local/domain/7/name", b"renamed"),
        write("/local/domain/7/data/app/deep", b"later"),
        write(&format!("{VM}/name"), b"renamed"),
    ]);
}

#[test]
fn a_tree_that_grows_is_seen_whole_or_not_at_all() {
    is_never_torn(&[
        write("/local/domain/7/data/new/below", b"1"),
        write("/local/domain/7/attr/os", b"2"),
        write(&format!("{VM}/image/cmdline"), b"3"),
    ]);
}

#[test]
fn a_tree_that_is_removed_is_seen_whole_or_not_at_all() {
    is_never_torn(&[remove("/local/domain/7/data"), remove(&format!("{VM}/image"))]);
}

#[test]
fn permissions_and_the_roots_themselves_count() {
    is_never_torn(&[
        set_perms("/local/domain/7", "r0"),
        write("/local/domain/7", b"v"),
        write(VM, b"v"),
        set_perms(VM, "r0"),
    ]);
}

#[test]
fn a_domain_that_is_made_another_vm_is_read_again() {
    const OTHER: &str = "/vm/00000000-0000-4000-8000-000000000001";
    for means in [Means::Fence, Means::Transaction] {
        for at in 0..reads(means) {
            let xenstore = hosts::xenstore();
            before_read(&xenstore, at, false, move |server| {
                server.apply(write(&format!("{OTHER}/name"), b"new"));
                server.apply(write("/local/domain/7/vm", OTHER.as_bytes()));
            });
            let extracted = extract(&mut client(&xenstore), &request(means)).unwrap();
            assert!(matches!(extracted.consistency, Consistency::Consistent { .. }));
            let vm = &extracted.state.nodes[&path("/local/domain/7/vm")].value;
            let vm = str::from_utf8(vm).unwrap();
            assert!(extracted.state.roots.contains(&path(vm)), "{means:?}, before read {at}");
            assert_eq!(extracted.state.roots.len(), 2);
        }
    }
}

#[test]
fn what_keeps_changing_is_said_to_and_named() {
    for means in [Means::Fence, Means::Transaction] {
        let xenstore = hosts::xenstore();
        let mut n = 0;
        before_read(&xenstore, 8, true, move |server| {
            n += 1;
            server.apply(write("/local/domain/7/data/app", format!("{n}").as_bytes()));
        });
        let mut request = request(means);
        request.attempts = 3;
        let extracted = extract(&mut client(&xenstore), &request).unwrap();
        match (means, extracted.consistency) {
            (Means::Fence, Consistency::Changing { attempts: 3, changed }) => {
                assert_eq!(changed, [path("/local/domain/7/data/app")]);
            }
            // A transaction of this server sees the moment of its start.
            (Means::Transaction, Consistency::Consistent { attempts: 1 }) => {}
            (means, consistency) => panic!("{means:?}: {consistency:?}"),
        }
    }
}

/// More events than the client keeps: where it cannot know what changed, everything may have.
#[test]
fn a_flood_of_changes_is_a_change_of_everything() {
    let xenstore = hosts::xenstore();
    before_read(&xenstore, 40, true, move |server| {
        for n in 0..1500 {
            server.apply(write(&format!("/local/domain/7/data/flood-{n}"), b""));
        }
    });
    let mut request = request(Means::Fence);
    request.attempts = 1;
    let Extracted { consistency, .. } = extract(&mut client(&xenstore), &request).unwrap();
    let Consistency::Changing { changed, .. } = consistency else { panic!("{consistency:?}") };
    assert!(changed.contains(&path("/local/domain/7/data/flood-0")), "{changed:?}");
}

#[test]
fn what_another_domain_does_disturbs_nobody() {
    let xenstore = hosts::xenstore();
    let mut n = 0;
    before_read(&xenstore, 0, true, move |server| {
        n += 1;
        server.apply(write(&format!("/local/domain/8/data/{n}"), b""));
        server.apply(write("/local/domain/77", b""));
    });
    let extracted = hosts::extract_guest(&xenstore);
    assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 1 });
}

#[test]
fn a_domain_that_goes_while_it_is_read_is_gone_or_said_to_change() {
    for means in [Means::Fence, Means::Transaction] {
        for at in 0..reads(means) {
            let xenstore = hosts::xenstore();
            before_read(&xenstore, at, false, |server| {
                server.apply(remove("/local/domain/7"));
                server.apply(remove(VM));
            });
            match extract(&mut client(&xenstore), &request(means)) {
                Err(error) => assert!(error.to_string().starts_with("no domain 7"), "{error}"),
                Ok(extracted) => {
                    assert_eq!(means, Means::Transaction, "before read {at}");
                    assert_eq!(extracted.state.nodes.len(), 17, "before read {at}");
                }
            }
        }
    }
}

#[test]
fn a_node_that_its_directory_shows_and_that_is_gone_is_named_if_it_keeps_happening() {
    let xenstore = hosts::xenstore();
    xenstore.set_interceptor(Some(Box::new(|server, _, _, request| match request {
        Request::Directory(at) if at.as_str() == "/local/domain/7/data" => {
            server.apply(write("/local/domain/7/data/fleeting", b""));
        }
        Request::Directory(at) if at.as_str() == "/local/domain/7/data/fleeting" => {
            server.apply(remove("/local/domain/7/data/fleeting"));
        }
        _ => {}
    })));
    let extracted = hosts::extract_guest(&xenstore);
    let fleeting = path("/local/domain/7/data/fleeting");
    assert_eq!(
        extracted.consistency,
        Consistency::Changing { attempts: 5, changed: vec![fleeting.clone()] }
    );
    assert!(!extracted.state.nodes.contains_key(&fleeting));
    let vanished = |reason: &MissingReason| matches!(reason, MissingReason::Vanished);
    assert!(extracted.missing.iter().any(|missing| vanished(&missing.reason)));
}

/// C xenstored drops an event that equals one still waiting to be sent, and a change of the watched node equals the watch's
/// first event. This transport drops each event but the first that has the path of a root.
struct Merging {
    inner: InProcess,
    decoder: Decoder,
    output: Vec<u8>,
    seen: Vec<Vec<u8>>,
}

impl Transport for Merging {
    fn manner(&self) -> Manner {
        self.inner.manner()
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        self.inner.wait(interest, deadline)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let received = self.inner.receive(buffer)?;
        self.decoder.push(&buffer[..received]);
        while let Ok(Decoded::Message(message)) = self.decoder.decode() {
            if message.ty == MessageType::WATCH_EVENT {
                if self.seen.contains(&message.payload) {
                    continue;
                }
                self.seen.push(message.payload.clone());
            }
            message.encode(limits::PAYLOAD_MAX, &mut self.output).unwrap();
        }
        if self.output.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = self.output.len().min(buffer.len());
        buffer[..taken].copy_from_slice(&self.output[..taken]);
        self.output.drain(..taken);
        assert!(self.output.is_empty(), "nobody would be woken for the rest");
        Ok(taken)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.inner.send(octets)
    }
}

#[test]
fn a_change_of_a_root_that_the_server_merged_with_a_first_event_is_seen() {
    for (root, change) in [
        ("/local/domain/7", write("/local/domain/7", b"changed")),
        ("/local/domain/7", set_perms("/local/domain/7", "r0")),
        (VM, write(VM, b"changed")),
        (VM, remove(VM)),
    ] {
        let xenstore = hosts::xenstore();
        let at = path(root);
        // Behind the root's own three reads, so that what was read is what was before.
        let mut reads_of_root = 0;
        xenstore.set_interceptor(Some(Box::new(move |server, _, _, request| {
            let of_root = is_read(request) && request.subject() == Some(at.as_str());
            if !of_root && reads_of_root == 3 {
                server.apply(change.clone());
                reads_of_root += 1;
            }
            reads_of_root += usize::from(of_root && reads_of_root < 3);
        })));
        let transport = Merging {
            inner: xenstore.transport(DomId::DOM0),
            decoder: Decoder::new(limits::PAYLOAD_MAX),
            output: Vec::new(),
            seen: Vec::new(),
        };
        let mut client = Client::over(Box::new(transport), Options::default());
        let extracted = extract(&mut client, &request(Means::Fence)).unwrap();
        assert_eq!(extracted.consistency, Consistency::Consistent { attempts: 2 }, "{root}");
        let roots = ["/local/domain/7", VM];
        assert_eq!(extracted.state.nodes, nodes_below(&xenstore.snapshot(), &roots));
    }
}
