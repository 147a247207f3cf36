//! Streams as JSON, and back.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../stream/any_record.rs"]
mod any_record;
mod hostile;
mod order;
#[path = "../stream/rich.rs"]
mod rich;
mod round_trips;

use serde_json::Value;
use xenstore_migration::json::{self, DocumentError, EncodeOptions, Head};
use xenstore_migration::{Peer, ReadOptions, StreamReader};

/// A stream as a document, as a value that a test can change.
fn document(stream: &[u8]) -> Value {
    serde_json::from_str(&json::decode(stream, ReadOptions::default()).unwrap()).unwrap()
}

fn encoded(document: &Value, options: EncodeOptions) -> Result<Vec<u8>, DocumentError> {
    json::encode(document.to_string().as_bytes(), options)
}

/// A stream as lines, as `domkeep stream inspect --json` prints them.
fn lines(stream: &[u8]) -> Vec<String> {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut lines = vec![serde_json::to_string(&Head::new(reader.preamble())).unwrap()];
    while let Some(placed) = reader.next_record().unwrap() {
        lines.push(serde_json::to_string(&placed).unwrap());
    }
    let records = lines.len() - 1;
    let (peer, deviations) = (reader.peer().map(Peer::name), reader.deviations());
    let last = serde_json::json!({
        "records": records, "peer": peer, "deviations": deviations, "octets": stream.len(), "goes_on": false,
    });
    lines.push(last.to_string());
    lines
}
