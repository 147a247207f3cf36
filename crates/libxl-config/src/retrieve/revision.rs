//! What one answer is called, so that a caller can tell whether the next is another.

use std::fmt;

use serde::{Serialize, Serializer};

use super::observed::Observed;
use crate::template::Revision;

/// The name of a retrieved configuration: another one when the template changes, or anything in Xenstore that it was read
/// from. The same on every host and in every build.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConfigurationRevision([u8; 16]);

impl ConfigurationRevision {
    pub(super) fn of(template: Option<&Revision>, seen: &Observed) -> Self {
        let mut octets = seen.to_octets();
        octets.extend_from_slice(template.map(ToString::to_string).unwrap_or_default().as_bytes());
        let digest = blake3::hash(&octets);
        let mut half = [0; 16];
        half.copy_from_slice(&digest.as_bytes()[..16]);
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
