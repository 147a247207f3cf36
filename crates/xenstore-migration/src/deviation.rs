//! What streams have that the specification does not, and who writes so.

use std::fmt;

use crate::fields::{BodyError, aligned};
use crate::peer::{ExtendedForm, Peer};
use crate::preamble::Version;
use crate::reader::{Place, ReadFailure};

/// Something that is not as specified, and whose meaning is clear all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Deviation {
    /// The length of a record counts the padding behind its fields. All C xenstoreds write so.
    LengthCountsPadding,
    /// An extended watch without a depth, its path at octet 8, as C xenstored of 2026 writes it. Its length counts the
    /// field that is missing.
    ExtendedWatchWithoutDepth,
    /// An extended watch with its path at octet 10, as C xenstored of 2026 reads it.
    ExtendedWatchWithoutPad,
    /// An extended watch in a stream of version 1.
    ExtendedWatchInVersion1,
    /// Padding that is not zero, or a field that says nothing there: features in version 1, tx-id and access of a committed
    /// node. Writers must write zeros, readers are to ignore them; so they are lost when the stream is written again.
    PaddingNotZero,
}

impl Deviation {
    const ALL: [Self; 5] = [
        Self::LengthCountsPadding,
        Self::ExtendedWatchWithoutDepth,
        Self::ExtendedWatchWithoutPad,
        Self::ExtendedWatchInVersion1,
        Self::PaddingNotZero,
    ];

    pub(crate) const fn of(form: ExtendedForm) -> Self {
        match form {
            ExtendedForm::WithoutPad => Self::ExtendedWatchWithoutPad,
            _ => Self::ExtendedWatchWithoutDepth,
        }
    }
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LengthCountsPadding => {
                "the length of the record counts the padding behind its fields"
            }
            Self::ExtendedWatchWithoutDepth => "an extended watch without a depth",
            Self::ExtendedWatchWithoutPad => {
                "an extended watch without the padding behind its depth"
            }
            Self::ExtendedWatchInVersion1 => "an extended watch in version 1",
            Self::PaddingNotZero => "padding, or a field without meaning there, that is not zero",
        })
    }
}

/// The deviations of a stream, each with how often it was seen, and where first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deviations {
    seen: [Option<(u64, Place)>; Deviation::ALL.len()],
    /// The first record whose length does not count padding it has.
    exact: Option<Place>,
    /// Whether there is an extended watch as it is specified.
    specified_watch: bool,
    /// Whether there is a record of an unknown type and without a body, at which C xenstored gives up.
    empty_unknown: bool,
}

impl Deviations {
    /// Each that was seen: how often, and where first.
    pub fn iter(&self) -> impl Iterator<Item = (Deviation, u64, Place)> {
        let seen = Deviation::ALL.into_iter().zip(self.seen);
        seen.filter_map(|(deviation, seen)| seen.map(|(count, first)| (deviation, count, first)))
    }

    /// Whether everything was as specified.
    pub fn is_empty(&self) -> bool {
        self.seen.iter().all(Option::is_none)
    }

    /// How often one was seen.
    pub fn count(&self, deviation: Deviation) -> u64 {
        self.seen[deviation as usize].map_or(0, |(count, _)| count)
    }

    pub(crate) fn note(&mut self, deviation: Deviation, place: Place) {
        let (count, _) = self.seen[deviation as usize].get_or_insert((0, place));
        *count += 1;
    }

    pub(crate) fn note_empty_unknown(&mut self) {
        self.empty_unknown = true;
    }

    pub(crate) fn note_specified_watch(&mut self) {
        self.specified_watch = true;
    }

    /// A stream counts padding in all of its lengths or in none. That makes a wrong length stand out which differs
    /// by no more than the padding.
    pub(crate) fn note_length(
        &mut self,
        form: LengthForm,
        place: Place,
    ) -> Result<(), ReadFailure> {
        match form {
            LengthForm::Either => {}
            LengthForm::CountsPadding => {
                if let Some(other) = self.exact {
                    return Err(ReadFailure::MixedLengths { counts: false, other });
                }
                self.note(Deviation::LengthCountsPadding, place);
            }
            LengthForm::Exact => {
                if let Some((_, other)) = self.seen[Deviation::LengthCountsPadding as usize] {
                    return Err(ReadFailure::MixedLengths { counts: true, other });
                }
                self.exact.get_or_insert(place);
            }
        }
        Ok(())
    }

    pub(crate) fn refuse(&self) -> Result<(), ReadFailure> {
        match self.iter().next() {
            Some((deviation, ..)) => Err(ReadFailure::Deviation { deviation }),
            None => Ok(()),
        }
    }

    pub(crate) fn peer(&self, version: Version) -> Option<Peer> {
        let counts_padding = self.count(Deviation::LengthCountsPadding) > 0;
        let without_depth = self.count(Deviation::ExtendedWatchWithoutDepth) > 0;
        let without_pad = self.count(Deviation::ExtendedWatchWithoutPad) > 0;
        match (counts_padding, without_depth, without_pad) {
            (false, ..) => Some(Peer::Specification),
            (true, true, true) => None,
            (true, ..) if self.specified_watch || self.empty_unknown => None,
            (true, true, false) => Some(Peer::C2026Written),
            (true, false, true) if version < Version::V2 => None,
            (true, false, true) => Some(Peer::C2026),
            (true, false, false) if version < Version::V2 => Some(Peer::C417),
            (true, false, false) => Some(Peer::C2026),
        }
    }
}

/// What a record's length says about the form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LengthForm {
    /// Nothing: there is no padding.
    Either,
    /// It does not count the padding.
    Exact,
    /// It counts the padding.
    CountsPadding,
}

impl LengthForm {
    pub(crate) fn of(len: usize, fields: usize) -> Result<Self, BodyError> {
        if len == fields {
            Ok(Self::of_unknown(len))
        } else if len == aligned(fields) {
            Ok(Self::CountsPadding)
        } else {
            Err(BodyError::Length { len, fields })
        }
    }

    /// Of a record whose fields are not known.
    pub(crate) fn of_unknown(len: usize) -> Self {
        if len == aligned(len) { Self::Either } else { Self::Exact }
    }
}
