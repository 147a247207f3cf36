//! `stream encode`: JSON as a stream.

use std::path::Path;

use serde::Serialize;
use xenstore_migration::StreamKind;
use xenstore_migration::json::{EncodeOptions, Encoded, encode_to};
use xenstore_migration::limits::DOCUMENT_MAX;

use super::findings::{plural, preamble_in_words};
use super::sink::Sink;
use crate::arguments::UnknownChoice;
use crate::commands::whole;
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;

/// The answer for a program.
#[derive(Serialize)]
struct Written {
    out: String,
    version: u32,
    byte_order: &'static str,
    peer: &'static str,
    octets: u64,
    records: u64,
}

pub(super) fn options(
    kind: Option<StreamKind>,
    unknown: UnknownChoice,
    unchecked: bool,
) -> EncodeOptions {
    let options = EncodeOptions::default();
    let options = kind.map_or(options, |kind| options.of_kind(kind));
    let options = if unknown == UnknownChoice::Refuse { options.known_only() } else { options };
    if unchecked { options.unchecked() } else { options }
}

pub(super) fn run(
    file: &Path,
    out: &Path,
    options: EncodeOptions,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    // All of it, since what says how it is to be written may come last.
    let document = whole::read(file, DOCUMENT_MAX as u64)?;
    let sink = Sink::create(out)?;
    let to_stdout = sink.is_stdout();
    let encoded = encode_to(&document, sink, options)
        .map_err(|error| Sink::encode_error(file, out, error))?;
    let Encoded { preamble, peer, records, output: sink, .. } = encoded;
    let octets = sink.finish()?;
    // Where the stream goes, nothing else does.
    let mut stderr = Output::stderr(output.is_json());
    let output = if to_stdout { &mut stderr } else { output };
    let out = out.display().to_string();
    if output.is_json() {
        let (version, byte_order) = (preamble.version.number(), preamble.byte_order.name());
        let peer = peer.name();
        output.line(&Written { out, version, byte_order, peer, octets, records })?;
    } else if !to_stdout {
        let (form, records) = (preamble_in_words(preamble), plural(records, "record", "records"));
        let out = printable(&out);
        output.text(format!("{out}: {records}, {octets} octets, {form}, for {peer}"))?;
    }
    Ok(Exit::Done)
}
