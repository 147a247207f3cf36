//! What becomes JSON comes back as it was.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use xenstore_migration::json::{self, DocumentError, EncodeOptions};
use xenstore_migration::{Deviation, Peer, Preamble, ReadOptions, StreamReader, StreamWriter};

use crate::any_record::{Owned, preamble, records};
use crate::{document, encoded, lines, rich};

pub(crate) fn written(preamble: Preamble, peer: Peer, records: &[Owned]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    for record in records {
        writer.write(&record.record()).unwrap();
    }
    writer.finish().unwrap()
}

/// Whether a stream comes back from its document and from its lines.
fn comes_back(stream: &[u8], options: EncodeOptions) -> Result<(), String> {
    let document = json::decode(stream, ReadOptions::default()).map_err(|it| it.to_string())?;
    let lines = lines(stream).join("\n");
    for text in [document, lines] {
        let again = json::encode(text.as_bytes(), options).map_err(|it| it.to_string())?;
        if again != stream {
            return Err(format!("other octets came of {text}"));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_records_come_back_octet_for_octet(
        (preamble, records) in preamble().prop_flat_map(|preamble| (Just(preamble), records(preamble.version)))
    ) {
        let stream = written(preamble, Peer::Specification, &records);
        prop_assert_eq!(comes_back(&stream, EncodeOptions::default().unchecked()), Ok(()));
    }
}

#[test]
fn every_record_in_every_form_comes_back_octet_for_octet() {
    for rich::Rich { peer, stream } in rich::streams() {
        comes_back(&stream, EncodeOptions::default().unchecked())
            .unwrap_or_else(|error| unreachable!("{peer}: {error}"));
    }
}

#[test]
fn streams_of_real_servers_come_back_octet_for_octet() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let captures = root.join("../../../shared/captures/migration");
    if !captures.is_dir() {
        println!(
            "skipped: streams_of_real_servers_come_back_octet_for_octet: no {}",
            captures.display()
        );
    }
    let mut streams = 0;
    for directory in [root.join("testdata"), captures] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.extension().is_none_or(|end| end != "bin") {
                continue;
            }
            comes_back(&fs::read(&path).unwrap(), EncodeOptions::default())
                .unwrap_or_else(|error| unreachable!("{}: {error}", path.display()));
            streams += 1;
        }
    }
    assert!(streams > 0);
}

/// As it comes out of a library that sorts keys: the records before what they are records of.
#[test]
fn fields_may_stand_in_any_order() {
    fn sorted(value: &Value, backwards: bool) -> Value {
        match value {
            Value::Object(fields) => {
                let mut keys: Vec<_> = fields.keys().collect();
                keys.sort();
                if backwards {
                    keys.reverse();
                }
                let field = |key: &String| (key.clone(), sorted(&fields[key], backwards));
                Value::Object(keys.into_iter().map(field).collect::<Map<_, _>>())
            }
            Value::Array(items) => items.iter().map(|it| sorted(it, backwards)).collect(),
            other => other.clone(),
        }
    }
    for rich::Rich { stream, .. } in rich::streams() {
        let document = document(&stream);
        for backwards in [false, true] {
            let options = EncodeOptions::default().unchecked();
            assert_eq!(encoded(&sorted(&document, backwards), options).unwrap(), stream);
        }
        let pretty = serde_json::to_string_pretty(&document).unwrap();
        let options = EncodeOptions::default().unchecked();
        assert_eq!(json::encode(pretty.as_bytes(), options).unwrap(), stream);
    }
}

#[test]
fn octets_may_be_hexadecimal_though_they_are_text() {
    let stream = include_bytes!("../../testdata/one-node.bin");
    let mut document = document(stream);
    let record = document["records"][0].as_object_mut().unwrap();
    let path = record.remove("path").unwrap();
    assert_eq!(path, "/tool");
    record.insert("path_hex".to_owned(), json!("2F746f6f6C"));
    assert_eq!(encoded(&document, EncodeOptions::default()).unwrap(), stream);
}

#[test]
fn padding_that_says_nothing_becomes_zero_and_is_named() {
    let mut stream = include_bytes!("../../testdata/one-node.bin").to_vec();
    let padding = stream.len() - 9;
    assert_eq!(stream[padding], 0);
    stream[padding] = 1;
    let dirty = document(&stream);
    assert_eq!(dirty["deviations"][0]["message"], Deviation::PaddingNotZero.to_string());
    assert_eq!(dirty["deviations"][0]["first"]["type"], "NODE_DATA");
    stream[padding] = 0;
    assert_eq!(encoded(&dirty, EncodeOptions::default()).unwrap(), stream);
}

/// An extended watch as it is specified, in a stream whose lengths count padding: nobody writes both.
#[test]
fn a_stream_that_no_known_server_writes_asks_for_a_form() {
    let by_c = rich::streams().into_iter().find(|rich| rich.peer == Peer::C2026);
    let counted = rich::preambles().nth(2).unwrap();
    let all = rich::records(counted.version, Peer::Specification);
    let watch = all.iter().find(|it| matches!(it, Owned::WatchExtended(..))).unwrap();
    let node = all.iter().find(|it| matches!(it, Owned::Node(_, _, path, _) if path.len() > 1));
    assert!(by_c.is_some());
    let mut stream = written(counted, Peer::C2026, std::slice::from_ref(node.unwrap()));
    stream.truncate(stream.len() - 8);
    let behind = written(counted, Peer::Specification, std::slice::from_ref(watch));
    let mut behind = behind[16..].to_vec();
    let len = u32::from_le_bytes(behind[4..8].try_into().unwrap()).next_multiple_of(8);
    behind[4..8].copy_from_slice(&len.to_le_bytes());
    stream.extend(behind);
    let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
    while reader.next_record().unwrap().is_some() {}
    assert_eq!(reader.peer(), None);
    let mut document = document(&stream);
    assert_eq!(document["peer"], Value::Null);
    let options = EncodeOptions::default().unchecked();
    let error = encoded(&document, options).unwrap_err();
    assert!(matches!(error, DocumentError::NoPeer), "{error}");
    document["peer"] = "specification".into();
    let written = encoded(&document, options).unwrap();
    assert_ne!(written, stream);
    document.as_object_mut().unwrap().remove("peer");
    assert_eq!(encoded(&document, options).unwrap(), written);
}

#[test]
fn what_cannot_be_read_has_no_document() {
    let stream = include_bytes!("../../testdata/one-node.bin");
    for len in 0..stream.len() {
        assert!(json::decode(&stream[..len], ReadOptions::default()).is_err(), "{len} octets");
    }
}
