//! `stream inspect`: any stream, record by record.

use std::path::Path;

use serde::Serialize;
use xenstore_migration::json::Head;
use xenstore_migration::{Deviations, Place, Placed, ReadOptions};

use super::fields::fields;
use super::findings::{deviations_in_words, peer_in_words, plural, preamble_in_words};
use super::source::Source;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::output::Output;

/// Octets of text that are printed at once.
const PAGE: usize = 64 << 10;

/// The last line for a program.
#[derive(Serialize)]
struct Ended<'s> {
    /// How many there were before the end.
    records: u64,
    peer: Option<&'static str>,
    deviations: &'s Deviations,
    #[serde(skip_serializing_if = "Option::is_none")]
    octets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goes_on: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<BrokenOff>,
}

#[derive(Serialize)]
struct BrokenOff {
    #[serde(flatten)]
    place: Place,
    message: String,
}

pub(super) fn run(path: &Path, output: &mut Output) -> Result<Exit, CommandError> {
    let mut source = Source::open(path, ReadOptions::default())?;
    let mut page = Page { text: String::new(), output };
    let preamble = source.reader.preamble();
    if page.output.is_json() {
        page.document(&Head::new(preamble))?;
    } else {
        let preamble = preamble_in_words(preamble);
        page.line(&format!("xenstore-migration stream, {preamble}"))?;
    }
    let mut records = 0;
    let broken = loop {
        match source.next_record() {
            Ok(Some(placed)) => page.record(&placed)?,
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
        records += 1;
    };
    let (peer, deviating) = (source.reader.peer(), source.reader.deviations().clone());
    let end = if broken.is_none() { Some(source.end()?) } else { None };
    if page.output.is_json() {
        page.document(&Ended {
            records,
            peer: peer.map(xenstore_migration::Peer::name),
            deviations: &deviating,
            octets: end.map(|end| end.octets),
            goes_on: end.map(|end| end.goes_on),
            error: broken.as_ref().and_then(broken_off),
        })?;
    } else {
        for line in deviations_in_words(&deviating) {
            page.line(&line)?;
        }
        let records = plural(records, "record", "records");
        let form = peer_in_words(peer);
        match end {
            Some(end) => {
                page.line(&format!("end: {records}, {} octets, {form}", end.octets))?;
                if end.goes_on {
                    page.line(&format!("the file goes on behind octet {}", end.octets))?;
                }
            }
            None => page.line(&format!("broken off: {records}, {form}"))?,
        }
    }
    page.print()?;
    broken.map_or(Ok(Exit::Done), Err)
}

fn broken_off(error: &CommandError) -> Option<BrokenOff> {
    match error {
        CommandError::StreamRead { source, .. } => {
            Some(BrokenOff { place: source.place, message: on_one_line(&source.failure) })
        }
        _ => None,
    }
}

/// Lines that are printed together.
struct Page<'o> {
    text: String,
    output: &'o mut Output,
}

impl Page<'_> {
    fn record(&mut self, placed: &Placed<'_>) -> Result<(), CommandError> {
        let Placed { place, record } = placed;
        if self.output.is_json() {
            return self.document(placed);
        }
        let record_type = record.record_type();
        self.text.push_str(&format!("{} @{} {record_type}", place.index, place.offset));
        for (name, field) in fields(record) {
            self.text.push(' ');
            self.text.push_str(name);
            self.text.push('=');
            field.in_words(&mut self.text);
        }
        self.line("")
    }

    fn document(&mut self, document: &impl Serialize) -> Result<(), CommandError> {
        let text = serde_json::to_string(document);
        self.line(&text.map_err(|error| CommandError::Output(error.into()))?)
    }

    fn line(&mut self, line: &str) -> Result<(), CommandError> {
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() < PAGE { Ok(()) } else { self.print() }
    }

    fn print(&mut self) -> Result<(), CommandError> {
        self.output.text(std::mem::take(&mut self.text))
    }
}
