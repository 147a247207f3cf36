//! `stream convert`: a stream in another version, byte order or form.

use std::path::Path;

use serde::Serialize;
use xenstore_migration::{ConvertError, Loss, Peer, Preamble, ReadOptions, StreamWriter, convert};

use super::findings::{Finding, plural, preamble_in_words};
use super::sink::Sink;
use super::source::Source;
use crate::arguments::{Form, UnknownChoice};
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;

/// The last line for a program.
#[derive(Serialize)]
struct Converted {
    out: String,
    version: u32,
    byte_order: &'static str,
    peer: &'static str,
    octets: u64,
    losses: u64,
}

pub(super) fn run(
    file: &Path,
    out: &Path,
    form: Form,
    unknown: UnknownChoice,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let options = ReadOptions::default();
    let options = if unknown == UnknownChoice::Refuse { options.known_only() } else { options };
    let mut source = Source::open(file, options)?;
    let original = source.reader.preamble();
    let preamble = Preamble::new(
        form.version.map_or(original.version, Into::into),
        form.byte_order.map_or(original.byte_order, Into::into),
    );
    let peer = Peer::from(form.peer);
    let sink = Sink::create(out)?;
    // Where the stream goes, nothing else does.
    let mut stderr = Output::stderr(output.is_json());
    let output = if sink.is_stdout() { &mut stderr } else { output };
    let mut writer = StreamWriter::create(sink, preamble, peer)
        .map_err(|source| Sink::begin_error(out, source))?;
    let mut losses = Losses { count: 0, output, told: Ok(()) };
    let lose = |loss: Loss<'_>| losses.add(&Finding::new(Some(loss.place), &loss.kind));
    convert(&mut source.reader, &mut writer, lose).map_err(|error| match error {
        ConvertError::Read { source } => CommandError::StreamRead { path: file.to_owned(), source },
        error => Sink::convert_error(file, out, error),
    })?;
    let end = source.end()?;
    if end.goes_on {
        let message = format!("what follows the stream at octet {} is left out", end.octets);
        losses.add(&Finding::new(None, &message));
    }
    let sink = writer.finish().map_err(|source| Sink::write_error(out, source))?;
    let octets = sink.finish()?;
    let Losses { count, output, told } = losses;
    told?;
    let quiet = out.as_os_str() == "-" && count == 0;
    let out = out.display().to_string();
    if output.is_json() {
        let (version, byte_order) = (preamble.version.number(), preamble.byte_order.name());
        let peer = peer.name();
        output.line(&Converted { out, version, byte_order, peer, octets, losses: count })?;
    } else if !quiet {
        let form = preamble_in_words(preamble);
        let losses = plural(count, "loss", "losses");
        let out = printable(&out);
        output.text(format!("{out}: {octets} octets, {form}, for {peer}; {losses}"))?;
    }
    Ok(Exit::bad_news_if(count > 0))
}

/// Losses, told as they come: there may be more than memory.
struct Losses<'o> {
    count: u64,
    output: &'o mut Output,
    /// Whether they could be told. The stream is written all the same.
    told: Result<(), CommandError>,
}

impl Losses<'_> {
    fn add(&mut self, loss: &Finding) {
        self.count += 1;
        if self.told.is_ok() {
            self.told = if self.output.is_json() {
                self.output.line(loss)
            } else {
                self.output.text(format!("lost: {}", loss.in_words()))
            };
        }
    }
}
