//! `stream verify`: whatever is wrong with a stream.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use xenstore_migration::{
    AssumedKind, Deviations, OrderChecker, Peer, PeerChecker, Placed, Preamble, ReadOptions,
    RecordType, StreamKind,
};

use super::findings::{
    Finding, Findings, deviations_in_words, peer_in_words, plural, preamble_in_words,
};
use super::source::{End, Source};
use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::printable;
use crate::output::Output;

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// `None`: what the stream looks like.
    pub(super) kind: Option<StreamKind>,
    pub(super) peer: Option<Peer>,
    /// Whether deviations are bad news.
    pub(super) strict: bool,
}

pub(super) fn run(path: &Path, asked: Asked, output: &mut Output) -> Result<Exit, CommandError> {
    let mut source = Source::open(path, ReadOptions::default())?;
    let mut verifying = Verifying::new(source.reader.preamble(), asked);
    let broken = loop {
        match source.next_record() {
            Ok(Some(placed)) => verifying.check(&placed),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let form = source.reader.peer();
    let deviating = source.reader.deviations().clone();
    let end = if broken.is_none() { Some(source.end()?) } else { None };
    let verified = verifying.end(path, form, deviating, end, broken.as_ref());
    if output.is_json() {
        output.document(&verified.document())?;
    } else {
        output.text(verified.in_words())?;
    }
    match broken {
        Some(error) => Err(error),
        None => Ok(Exit::bad_news_if(verified.is_bad(asked.strict))),
    }
}

/// A stream that is being checked.
struct Verifying {
    preamble: Preamble,
    asked: Asked,
    /// What it may be, [`StreamKind::Domain`] last: a stream is that of a domain as long as nothing says otherwise.
    candidates: Vec<Candidate>,
    assumed: AssumedKind,
    records: BTreeMap<RecordType, u64>,
    peer: Option<PeerCandidate>,
}

struct Candidate {
    kind: StreamKind,
    checker: OrderChecker,
    found: Findings,
}

struct PeerCandidate {
    peer: Peer,
    checker: PeerChecker,
    refusals: Findings,
    losses: Findings,
}

impl Verifying {
    fn new(preamble: Preamble, asked: Asked) -> Self {
        let kinds = match asked.kind {
            Some(kind) => vec![kind],
            None => vec![StreamKind::LiveUpdate, StreamKind::Domain],
        };
        let candidate = |kind| {
            let checker = OrderChecker::new(preamble, kind);
            Candidate { kind, checker, found: Findings::default() }
        };
        let candidates = kinds.into_iter().map(candidate).collect();
        let peer = asked.peer.map(|peer| {
            let checker = PeerChecker::new(preamble, peer);
            let mut candidate = PeerCandidate {
                peer,
                checker,
                refusals: Findings::default(),
                losses: Findings::default(),
            };
            for trouble in candidate.checker.check_preamble() {
                candidate.refusals.add(None, &trouble);
            }
            candidate
        });
        let (assumed, records) = (AssumedKind::default(), BTreeMap::new());
        Self { preamble, asked, candidates, assumed, records, peer }
    }

    fn check(&mut self, placed: &Placed<'_>) {
        let Placed { place, record } = placed;
        *self.records.entry(record.record_type()).or_default() += 1;
        self.assumed.see(record);
        if self.asked.kind.is_none() && self.assumed.kind() == StreamKind::LiveUpdate {
            self.candidates.retain(|candidate| candidate.kind == StreamKind::LiveUpdate);
        }
        for candidate in &mut self.candidates {
            for violation in candidate.checker.check(record) {
                candidate.found.add(Some(*place), &violation);
            }
        }
        if let Some(peer) = &mut self.peer {
            for trouble in peer.checker.check(record) {
                let sort = if trouble.is_refusal() { &mut peer.refusals } else { &mut peer.losses };
                sort.add(Some(*place), &trouble);
            }
        }
    }

    fn end(
        mut self,
        path: &Path,
        form: Option<Peer>,
        deviating: Deviations,
        end: Option<End>,
        broken: Option<&CommandError>,
    ) -> Verified {
        let assumed = self.asked.kind.is_none();
        let (kind, violations) = match self.candidates.pop() {
            Some(candidate) => (candidate.kind, candidate.found),
            None => (StreamKind::LiveUpdate, Findings::default()),
        };
        Verified {
            file: path.display().to_string(),
            kind,
            assumed,
            preamble: self.preamble,
            records: self.records,
            form,
            violations,
            deviating,
            end,
            peer: self.peer,
            error: broken.map(|error| on_one_line(error)),
        }
    }
}

/// What was found.
struct Verified {
    file: String,
    kind: StreamKind,
    /// Whether the kind was not given.
    assumed: bool,
    preamble: Preamble,
    records: BTreeMap<RecordType, u64>,
    form: Option<Peer>,
    violations: Findings,
    deviating: Deviations,
    end: Option<End>,
    peer: Option<PeerCandidate>,
    error: Option<String>,
}

impl Verified {
    fn is_bad(&self, strict: bool) -> bool {
        let goes_on = self.end.is_some_and(|end| end.goes_on);
        let of_peer = |peer: &PeerCandidate| !peer.refusals.is_empty() || !peer.losses.is_empty();
        !self.violations.is_empty()
            || self.peer.as_ref().is_some_and(of_peer)
            || (strict && (goes_on || !self.deviating.is_empty()))
    }

    fn in_words(&self) -> String {
        let mut lines = Vec::new();
        list(&self.violations, "", "violations", &mut lines);
        if let Some(PeerCandidate { peer, refusals, losses, .. }) = &self.peer {
            list(refusals, &format!("for {peer}: "), "refusals", &mut lines);
            list(losses, &format!("for {peer}: "), "losses", &mut lines);
        }
        lines.extend(deviations_in_words(&self.deviating));
        if let Some(end) = self.end.filter(|end| end.goes_on) {
            lines.push(format!("the file goes on behind octet {}", end.octets));
        }
        lines.push(self.summary());
        let file = printable(&self.file);
        lines.iter().map(|line| format!("{file}: {line}\n")).collect()
    }

    fn summary(&self) -> String {
        let assumed = if self.assumed { " (assumed)" } else { "" };
        let mut words = format!(
            "{}{assumed}, {}, {}",
            kind_in_words(self.kind),
            preamble_in_words(self.preamble),
            peer_in_words(self.form),
        );
        if self.records.is_empty() {
            words.push_str("; no records");
        }
        for (number, (record_type, count)) in self.records.iter().enumerate() {
            words.push_str(if number == 0 { "; " } else { ", " });
            words.push_str(&format!("{count} {record_type}"));
        }
        words.push_str("; ");
        if self.error.is_some() {
            words.push_str("broken off behind these; ");
        }
        words.push_str(&plural(self.violations.count, "violation", "violations"));
        if let Some(PeerCandidate { peer, refusals, losses, .. }) = &self.peer {
            let refusals = plural(refusals.count, "refusal", "refusals");
            let losses = plural(losses.count, "loss", "losses");
            words.push_str(&format!("; for {peer} {refusals} and {losses}"));
        }
        words
    }

    fn document(&self) -> Document<'_> {
        let peer = self.peer.as_ref().map(|peer| PeerDocument {
            peer: peer.peer.name(),
            refusals: &peer.refusals.first,
            refusal_count: peer.refusals.count,
            losses: &peer.losses.first,
            loss_count: peer.losses.count,
        });
        let count = |(record_type, count): (&RecordType, &u64)| (record_type.to_string(), *count);
        Document {
            file: &self.file,
            kind: match self.kind {
                StreamKind::LiveUpdate => "live-update",
                StreamKind::Domain => "domain",
            },
            kind_assumed: self.assumed,
            version: self.preamble.version.number(),
            byte_order: self.preamble.byte_order.name(),
            peer: self.form.map(Peer::name),
            records: self.records.iter().map(count).collect(),
            violations: &self.violations.first,
            violation_count: self.violations.count,
            deviations: &self.deviating,
            octets: self.end.map(|end| end.octets),
            goes_on: self.end.map(|end| end.goes_on),
            for_peer: peer,
            error: self.error.as_deref(),
        }
    }
}

fn list(found: &Findings, prefix: &str, several: &str, lines: &mut Vec<String>) {
    lines.extend(found.first.iter().map(|finding| format!("{prefix}{}", finding.in_words())));
    if found.unlisted() > 0 {
        lines.push(format!("{prefix}and {} more {several}", found.unlisted()));
    }
}

fn kind_in_words(kind: StreamKind) -> &'static str {
    match kind {
        StreamKind::LiveUpdate => "all of a server",
        StreamKind::Domain => "one domain",
    }
}

#[derive(Serialize)]
struct Document<'v> {
    file: &'v str,
    kind: &'static str,
    /// Whether it was not given.
    kind_assumed: bool,
    version: u32,
    byte_order: &'static str,
    /// Who writes so.
    peer: Option<&'static str>,
    /// How many of each type.
    records: BTreeMap<String, u64>,
    violations: &'v [Finding],
    /// How many there are, also those that are not listed.
    violation_count: u64,
    deviations: &'v Deviations,
    #[serde(skip_serializing_if = "Option::is_none")]
    octets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goes_on: Option<bool>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    for_peer: Option<PeerDocument<'v>>,
    /// Why it cannot be read to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'v str>,
}

#[derive(Serialize)]
struct PeerDocument<'v> {
    peer: &'static str,
    refusals: &'v [Finding],
    refusal_count: u64,
    losses: &'v [Finding],
    loss_count: u64,
}
