//! What a program of its own needs to resume a domain whose saver is dead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::view::DomainIdentity;

/// More than that is not read: a guardian is started with this on a pipe, and a pipe holds 64 KiB without a reader.
pub const GUARDIAN_NEEDS_MAX: usize = 64 << 10;

/// How another process reaches the hypervisor, and which domain it is to resume.
///
/// A guardian is a program of its own, started by exec before the domain is suspended: a fork of a multithreaded process could do
/// little. Which program that is, its caller says; this is the part that only the implementation of
/// [`DomainControl`](super::DomainControl) knows. The guardian holds the reading end of a pipe. If that closes without a word of
/// release, the saver is dead, and the guardian
///
/// 1. opens the implementation that `control` names, with `address` and `environment`,
/// 2. waits until the domain, by domid *and* uuid, has [`settled`](super::DomainControl::settled): one that runs may have been
///    asked to suspend a moment ago, and a helper may be streaming still,
/// 3. [resumes](super::DomainControl::resume) it if it is suspended.
///
/// Nothing in here is secret, and nothing of it depends on the dead process: no descriptor, no memory, no lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardianNeeds {
    /// The implementation: `simulated`, `libxl`.
    pub control: String,
    /// Where that finds its hypervisor, if it is told: the socket of a simulated host. libxl needs nothing.
    pub address: Option<String>,
    /// Variables that the guardian must have, as `XENSTORED_PATH`; to those of its own.
    pub environment: BTreeMap<String, String>,
    /// The domain.
    pub domain: DomainIdentity,
}

/// Why a text is not what a guardian needs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GuardianNeedsError {
    /// Too long.
    #[error("what a guardian needs has {octets} octets, more than {GUARDIAN_NEEDS_MAX}")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// Not JSON, or of another shape.
    #[error("what a guardian needs cannot be read")]
    Syntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// It is for another implementation.
    #[error("what a guardian needs is for {found}, not for {expected}")]
    OtherControl {
        /// The implementation that was asked.
        expected: &'static str,
        /// The one that it is for.
        found: String,
    },
    /// There is no address, and the implementation needs one.
    #[error("what a guardian needs has no address, which {control} needs")]
    NoAddress {
        /// The implementation.
        control: String,
    },
}

impl GuardianNeeds {
    /// As one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!(self).to_string()
    }

    /// From JSON.
    ///
    /// # Errors
    ///
    /// If it is too long, or is not what [`to_json`](Self::to_json) writes.
    pub fn from_json(text: &str) -> Result<Self, GuardianNeedsError> {
        if text.len() > GUARDIAN_NEEDS_MAX {
            return Err(GuardianNeedsError::TooLong { octets: text.len() });
        }
        serde_json::from_str(text).map_err(|source| GuardianNeedsError::Syntax { source })
    }
}
