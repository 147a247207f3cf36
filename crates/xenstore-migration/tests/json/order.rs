//! No stream is made that the specification forbids, unless that is asked for.

use xenstore_migration::json::{DocumentError, EncodeOptions};
use xenstore_migration::{
    ByteOrder, ConnectionId, ConnectionSpec, GlobalData, NodePerm, NodeScope, Peer, Preamble,
    RecordType, StreamKind, Version, Violation, WatchDepth,
};
use xenstore_proto::{Access, DomId};

use crate::any_record::Owned;
use crate::round_trips::written;
use crate::{document, encoded};

const PREAMBLE: Preamble = Preamble::new(Version::V2, ByteOrder::Big);

fn node(path: &str) -> Owned {
    let perms = vec![NodePerm::new(Access::None, DomId::DOM0)];
    Owned::Node(NodeScope::Committed, perms, path.into(), b"value".to_vec())
}

fn connection(number: u32, spec: ConnectionSpec) -> Owned {
    let (id, input, output) = (ConnectionId::new(number).unwrap(), Vec::new(), Vec::new());
    Owned::Connection { id, spec, input, output_rest: 0, output, unique_id: None }
}

fn ring(number: u32) -> Owned {
    let domid = DomId::new(3);
    connection(number, ConnectionSpec::Ring { domid, target: None, port: 3 })
}

/// What the default says of the records, and whether they are written all the same where that is asked for.
fn refused(records: &[Owned], options: EncodeOptions) -> Option<(String, Violation)> {
    let stream = written(PREAMBLE, Peer::Specification, records);
    let document = document(&stream);
    assert_eq!(encoded(&document, EncodeOptions::default().unchecked()).unwrap(), stream);
    match encoded(&document, options) {
        Ok(again) => {
            assert_eq!(again, stream);
            None
        }
        Err(DocumentError::Order { at, reason }) => Some((at, reason)),
        Err(other) => unreachable!("{other}"),
    }
}

#[test]
fn records_that_do_not_go_together_are_refused_by_their_place() {
    let watch = Owned::Watch(ConnectionId::new(9).unwrap(), b"/a".to_vec(), b"t".to_vec());
    let (at, reason) = refused(&[ring(1), watch], EncodeOptions::default()).unwrap();
    assert_eq!(at, "records[1]");
    assert!(matches!(reason, Violation::UnknownConnection { .. }), "{reason}");
    let doubled = [node("/a"), node("/b"), node("/a")];
    let (at, _) = refused(&doubled, EncodeOptions::default()).unwrap();
    assert_eq!(at, "records[2]");
}

/// A node without those above it is right in the stream of one domain, and wrong in that of a server; what it is may be
/// seen later.
#[test]
fn what_a_stream_is_for_decides_what_is_wrong() {
    let default = EncodeOptions::default();
    assert_eq!(refused(&[ring(1), node("/a/b")], default), None);
    let global = Owned::Global(GlobalData { socket_fd: None, event_channel_fd: None });
    let late = [node("/a/b"), ring(1), global.clone(), node("/c/d")];
    let (at, reason) = refused(&late, default).unwrap();
    assert_eq!(at, "records[0]");
    assert!(matches!(reason, Violation::NoParent { .. }), "{reason}");
    let (at, reason) = refused(&late, default.of_kind(StreamKind::Domain)).unwrap();
    assert_eq!(at, "records[2]");
    assert!(matches!(reason, Violation::NotOfADomain { .. }), "{reason}");
    let kind = default.of_kind(StreamKind::LiveUpdate);
    assert_eq!(refused(&[node("/a/b")], kind).unwrap().0, "records[0]");
    assert_eq!(refused(&[global, node("/"), node("/a")], default), None);
}

#[test]
fn what_is_yet_to_come_is_written_unless_it_is_refused() {
    let unknown = Owned::Unknown(RecordType(33), b"body".to_vec());
    let kind = connection(1, ConnectionSpec::Unknown { kind: 2, octets: [7; 8] });
    for record in [unknown, kind] {
        let records = [node("/"), ring(5), record];
        assert_eq!(refused(&records, EncodeOptions::default()), None);
        for options in [
            EncodeOptions::default().known_only(),
            EncodeOptions::default().known_only().unchecked(),
        ] {
            assert_eq!(refused(&records, options).unwrap().0, "records[2]");
        }
    }
}

/// C xenstored writes extended watches without a depth, which is a violation, and what makes the form.
#[test]
fn the_form_of_a_named_server_is_not_held_against_a_stream() {
    let id = ConnectionId::new(1).unwrap();
    let watch = Owned::WatchExtended(id, WatchDepth::Untold, b"/a".to_vec(), b"tok".to_vec());
    for version in [Version::V1, Version::V2] {
        let preamble = Preamble::new(version, ByteOrder::Little);
        let stream = written(preamble, Peer::C2026Written, &[ring(1), watch.clone()]);
        let mut document = document(&stream);
        assert_eq!(encoded(&document, EncodeOptions::default()).unwrap(), stream);
        document["peer"] = "specification".into();
        let error = encoded(&document, EncodeOptions::default()).unwrap_err();
        assert!(error.to_string().starts_with("records[1]"), "{error}");
        let error = encoded(&document, EncodeOptions::default().unchecked()).unwrap_err();
        assert!(matches!(error, DocumentError::Record { .. }), "{error}");
    }
}
