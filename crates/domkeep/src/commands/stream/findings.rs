//! Findings with their places, no more of them than somebody reads.

use serde::Serialize;
use xenstore_migration::{Deviations, Peer, Place, Preamble};

/// Most findings of one sort that are printed; the others are counted. A stream can have a million of the same.
pub(super) const LISTED_MAX: usize = 100;

/// Something about a record.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// `None` if it is about the stream as such.
    #[serde(flatten)]
    place: Option<Place>,
    message: String,
}

impl Finding {
    pub(super) fn new(place: Option<Place>, message: &impl ToString) -> Self {
        Self { place, message: message.to_string() }
    }

    pub(super) fn in_words(&self) -> String {
        match &self.place {
            Some(place) => format!("{place}: {}", self.message),
            None => self.message.clone(),
        }
    }
}

/// The first findings of one sort, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) first: Vec<Finding>,
    pub(super) count: u64,
}

impl Findings {
    pub(super) fn add(&mut self, place: Option<Place>, found: &impl ToString) {
        self.count += 1;
        if self.first.len() < LISTED_MAX {
            self.first.push(Finding::new(place, found));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many are not listed.
    pub(super) fn unlisted(&self) -> u64 {
        self.count - self.first.len() as u64
    }
}

/// A line for each deviation.
pub(super) fn deviations_in_words(found: &Deviations) -> Vec<String> {
    let line = |(deviation, count, first)| {
        let times = plural(count, "time", "times");
        format!("not as specified: {deviation}: {times}, first {first}")
    };
    found.iter().map(line).collect()
}

pub(super) fn plural(count: u64, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

pub(super) fn preamble_in_words(preamble: Preamble) -> String {
    format!("version {}, {}", preamble.version, preamble.byte_order)
}

pub(super) fn peer_in_words(peer: Option<Peer>) -> String {
    match peer {
        Some(Peer::Specification) => "written as specified".to_owned(),
        Some(peer) => format!("written as {peer} does"),
        None => "written as no known server does".to_owned(),
    }
}
