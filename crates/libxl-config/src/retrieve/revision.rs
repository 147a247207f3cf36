//! What one answer is called, so that a caller can tell whether the next is another.

use std::fmt;

use serde::{Serialize, Serializer};

use super::observed::{Answer, Observed};
use crate::template::Revision;

/// The name of a retrieved configuration: another one when the template changes, or anything in Xenstore that it was read
/// from. The same on every host and in every build.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfigurationRevision([u8; 16]);

impl ConfigurationRevision {
    pub(super) fn of(template: Option<&Revision>, seen: &Observed) -> Self {
        let mut digest = blake3::Hasher::new();
        // Lengths go in front of everything, so that no two answers look alike when joined.
        let mut put = |octets: &[u8]| {
            digest.update(&(octets.len() as u64).to_le_bytes());
            digest.update(octets);
        };
        put(template.map(ToString::to_string).unwrap_or_default().as_bytes());
        for (ask, answer) in seen.answers() {
            put(ask.path().as_str().as_bytes());
            match answer {
                Answer::Value(Ok(value)) => put(value),
                Answer::Children(Ok(names)) => {
                    // The order of names is the server's own.
                    let mut names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
                    names.sort_unstable();
                    names.iter().for_each(|name| put(name.as_bytes()));
                }
                Answer::Value(Err(errno)) | Answer::Children(Err(errno)) => {
                    put(errno.name().as_bytes())
                }
            }
        }
        let (half, _) = digest
            .finalize()
            .as_bytes()
            .split_first_chunk()
            .map_or(([0; 16], ()), |(half, _)| (*half, ()));
        Self(half)
    }
}

impl fmt::Display for ConfigurationRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for ConfigurationRevision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ConfigurationRevision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
