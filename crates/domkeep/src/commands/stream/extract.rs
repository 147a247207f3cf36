//! `stream extract`: what a domain has in Xenstore, as a stream.

use serde::Serialize;
use snapshot::xenstore_state::{
    Consistency, ExtractRequest, Extracted, Missing, MissingReason, StatePart, extract,
};
use xenstore_migration::domain_state::{StreamLoss, ToStreamError};
use xenstore_migration::{Peer, Preamble, StreamWriter, Version};

use super::findings::{plural, preamble_in_words};
use super::sink::Sink;
use crate::arguments::Extract;
use crate::domains;
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: &Extract,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let out = asked.out.as_path();
    let peer = Peer::from(asked.peer);
    let newest = if peer.knows(Version::V2) { Version::V2 } else { Version::V1 };
    let preamble = Preamble::new(asked.version.map_or(newest, Into::into), asked.byte_order.into());
    // Before anything is asked: an answer that cannot be kept is of no use.
    let sink = Sink::create(out)?;
    let mut stderr = Output::stderr(output.is_json());
    let output = if sink.is_stdout() { &mut stderr } else { output };
    let mut client = places.client()?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let mut request = ExtractRequest::new(domid, places.deadline());
    request.roots.clone_from(&asked.roots);
    let extracted = extract(&mut client, &request)?;
    let mut writer = StreamWriter::create(sink, preamble, peer)
        .map_err(|source| Sink::begin_error(out, source))?;
    let losses = extracted.state.to_stream(&mut writer).map_err(|source| match source {
        ToStreamError::Write { source } => Sink::write_error(out, source),
        source => CommandError::ToStream { path: out.to_owned(), domid, source },
    })?;
    let sink = writer.finish().map_err(|source| Sink::write_error(out, source))?;
    let octets = sink.finish()?;
    let report = Report { asked, preamble, peer, extracted: &extracted, losses: &losses, octets };
    if output.is_json() {
        output.document(&report.document())?;
    } else {
        output.text(report.in_words())?;
    }
    Ok(Exit::bad_news_if(report.is_bad()))
}

struct Report<'r> {
    asked: &'r Extract,
    preamble: Preamble,
    peer: Peer,
    extracted: &'r Extracted,
    losses: &'r [StreamLoss],
    octets: u64,
}

impl Report<'_> {
    fn is_bad(&self) -> bool {
        let changing = matches!(self.extracted.consistency, Consistency::Changing { .. });
        changing || !self.losses.is_empty() || self.extracted.missing.iter().any(is_bad)
    }

    fn in_words(&self) -> String {
        let mut words = String::new();
        let mut line = |text: String| {
            words.push_str(&printable(&text));
            words.push('\n');
        };
        for missing in &self.extracted.missing {
            line(format!("without {missing}"));
        }
        for loss in self.losses {
            line(format!("lost: {loss}"));
        }
        if let Consistency::Changing { attempts, changed } = &self.extracted.consistency {
            let attempts = plural((*attempts).into(), "attempt", "attempts");
            line(format!("not of one moment: something changed in each of {attempts}"));
            for path in changed {
                line(format!("    {path}"));
            }
        }
        let state = &self.extracted.state;
        line(format!(
            "{}: domain {}, {}, {} octets, {}, for {}",
            self.asked.out.display(),
            state.domid,
            plural(state.nodes.len() as u64, "node", "nodes"),
            self.octets,
            preamble_in_words(self.preamble),
            self.peer,
        ));
        words
    }

    fn document(&self) -> Document {
        let Extracted { state, consistency, missing, .. } = self.extracted;
        let (consistent, attempts, changed) = match consistency {
            Consistency::Consistent { attempts } => (true, *attempts, Vec::new()),
            Consistency::Changing { attempts, changed } => {
                (false, *attempts, changed.iter().map(ToString::to_string).collect())
            }
            _ => (false, 0, Vec::new()),
        };
        Document {
            out: self.asked.out.display().to_string(),
            domid: state.domid.get(),
            roots: state.roots.iter().map(ToString::to_string).collect(),
            nodes: state.nodes.len(),
            version: self.preamble.version.number(),
            byte_order: self.preamble.byte_order.name(),
            peer: self.peer.name(),
            octets: self.octets,
            consistent,
            attempts,
            changed,
            missing: missing.iter().map(MissingDocument::from).collect(),
            losses: self.losses.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Whether something is missing that the domain surely has, or that was asked for; as opposed to what a server does not tell.
fn is_bad(missing: &Missing) -> bool {
    match (&missing.part, &missing.reason) {
        (
            _,
            MissingReason::NotInProtocol | MissingReason::HalfTold | MissingReason::NoConnection,
        ) => false,
        (StatePart::Features | StatePart::Quotas | StatePart::Quota(_), _) => false,
        // Not every toolstack makes one.
        (StatePart::VmTree, MissingReason::NoSuchNode) => false,
        _ => true,
    }
}

#[derive(Serialize)]
struct Document {
    out: String,
    domid: u16,
    roots: Vec<String>,
    nodes: usize,
    version: u32,
    byte_order: &'static str,
    peer: &'static str,
    octets: u64,
    /// Whether all of it is of one moment.
    consistent: bool,
    attempts: u32,
    /// What changed during the last attempt, if that is known.
    changed: Vec<String>,
    missing: Vec<MissingDocument>,
    losses: Vec<String>,
}

#[derive(Serialize)]
struct MissingDocument {
    part: String,
    reason: String,
    /// Whether it is why the exit status is 1.
    bad: bool,
}

impl From<&Missing> for MissingDocument {
    fn from(missing: &Missing) -> Self {
        Self {
            part: missing.part.to_string(),
            reason: missing.reason.to_string(),
            bad: is_bad(missing),
        }
    }
}
