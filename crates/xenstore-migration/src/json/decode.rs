//! A stream as a document.

use std::io::Read;

use serde::Serialize;

use super::failure::DecodeError;
use crate::deviation::Deviations;
use crate::limits::DOCUMENT_MAX;
use crate::peer::Peer;
use crate::preamble::Preamble;
use crate::reader::{ReadOptions, StreamReader};

/// Reads a stream to its END, and gives it as a JSON document: [`crate::json`] has its fields.
///
/// Records are read one at a time: put a [`std::io::BufReader`] around what has system calls behind it. The document holds all of
/// them, and is cut off by nothing but [`DOCUMENT_MAX`].
///
/// ```
/// use xenstore_migration::{ReadOptions, json};
///
/// let stream: &[u8] = include_bytes!("../../testdata/one-node.bin");
/// let document: serde_json::Value = serde_json::from_str(&json::decode(stream, ReadOptions::default())?)?;
/// assert_eq!(document["version"], 1);
/// assert_eq!(document["records"][0]["path"], "/tool");
/// assert_eq!(document["peer"], "specification");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If the stream cannot be read to its end, or its document would be too long.
pub fn decode(input: impl Read, options: ReadOptions) -> Result<String, DecodeError> {
    let mut reader = StreamReader::open(input, options)?;
    let head = text(&Head::new(reader.preamble()));
    let mut document = format!("{},\"records\":[", head.trim_end_matches('}'));
    let mut records = 0;
    while let Some(placed) = reader.next_record()? {
        document.push_str(if records == 0 { "\n" } else { ",\n" });
        document.push_str(&text(&placed));
        records += 1;
        if document.len() > DOCUMENT_MAX {
            return Err(DecodeError::TooLong { records });
        }
    }
    let tail = text(&Tail { peer: reader.peer().map(Peer::name), deviations: reader.deviations() });
    document.push_str("\n],");
    document.push_str(tail.trim_start_matches('{'));
    document.push('\n');
    if document.len() > DOCUMENT_MAX {
        return Err(DecodeError::TooLong { records });
    }
    Ok(document)
}

/// What comes before the records: the first line for a program that wants lines.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Head {
    version: u32,
    byte_order: &'static str,
}

impl Head {
    /// What a preamble says.
    pub const fn new(preamble: Preamble) -> Self {
        Self { version: preamble.version.number(), byte_order: preamble.byte_order.name() }
    }
}

/// What is known behind the records.
#[derive(Serialize)]
struct Tail<'r> {
    peer: Option<&'static str>,
    deviations: &'r Deviations,
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("its maps have texts as keys, and nothing else can fail")
}
