//! A snapshot as text, with a digest of its own.
//!
//! ```text
//! {
//!   "format": "domkeep-snapshot",
//!   "version": [1, 0],
//!   "digest": "<64 digits>",
//!   "snapshot": { ... }
//! }
//! ```
//!
//! The digest is the BLAKE3 of the whole text with 64 zeros in its place. So the text is taken only as it was written, octet for
//! octet: one that was edited, or laid out in another way, is refused. The digest finds what chance does to it. It does not keep out whoever can compute it again: against that, sign the text.

use serde_json::{Value, json};

use super::Snapshot;
use crate::disk::image::Digest;

/// What a manifest says that it is.
pub const MANIFEST_FORMAT: &str = "domkeep-snapshot";

/// Version of the manifest: another major one is not read; a newer minor one only adds.
pub const MANIFEST_VERSION: [u32; 2] = [1, 0];

/// Octets of a manifest at most. A configuration has tens of kilobytes; this leaves room for thousands of disks.
pub const MANIFEST_MAX: usize = 16 << 20;

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Longer than any.
    #[error("a manifest has at most {MANIFEST_MAX} octets, and this has {octets}")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// No JSON.
    #[error("the manifest is not JSON")]
    Syntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// JSON of something else.
    #[error("the text is not a manifest: `format` is not {MANIFEST_FORMAT:?}")]
    OtherFormat,
    /// Of a version that is not read.
    #[error("the manifest is of version {major}.{minor}, and version {}.x is read", MANIFEST_VERSION[0])]
    Version {
        /// Which.
        major: u64,
        /// And its minor one.
        minor: u64,
    },
    /// Not as it was written.
    #[error("the manifest's digest is {found}, and it says {says}")]
    Digest {
        /// What its text has.
        found: Digest,
        /// What it says.
        says: String,
    },
    /// A path in it is not UTF-8, which no JSON can hold.
    #[error("the snapshot cannot be written as a manifest")]
    Unwritable {
        /// What.
        source: serde_json::Error,
    },
    /// The digest is right, and there is something in it that cannot be.
    #[error("the manifest's snapshot cannot be read")]
    Content {
        /// What.
        source: serde_json::Error,
    },
}

impl Snapshot {
    /// The manifest, to be kept octet for octet.
    ///
    /// # Errors
    ///
    /// [`ManifestError::Unwritable`] if a path in it is not UTF-8. A save refuses such paths; what a caller's own snapshotter tells of
    /// its disks is its own.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        let snapshot =
            serde_json::to_value(self).map_err(|source| ManifestError::Unwritable { source })?;
        Ok(sealed(&json!(MANIFEST_VERSION), &snapshot))
    }

    /// Reads a manifest.
    ///
    /// # Errors
    ///
    /// If it is not, octet for octet, what [`to_json`](Self::to_json) wrote.
    pub fn from_json(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_MAX {
            return Err(ManifestError::TooLong { octets: text.len() });
        }
        let mut read: Value =
            serde_json::from_str(text).map_err(|source| ManifestError::Syntax { source })?;
        if read["format"] != MANIFEST_FORMAT {
            return Err(ManifestError::OtherFormat);
        }
        let (Some(major), Some(minor)) = (read["version"][0].as_u64(), read["version"][1].as_u64())
        else {
            return Err(ManifestError::OtherFormat);
        };
        if major != u64::from(MANIFEST_VERSION[0]) {
            return Err(ManifestError::Version { major, minor });
        }
        let says = read["digest"].as_str().unwrap_or_default();
        let found = Digest::of(unsealed(text, says).as_bytes());
        if found.to_string() != says {
            return Err(ManifestError::Digest { found, says: says.to_owned() });
        }
        let snapshot = read["snapshot"].take();
        serde_json::from_value(snapshot).map_err(|source| ManifestError::Content { source })
    }
}

/// What is in the place of the digest while that is computed.
const NO_DIGEST: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A manifest of that version.
pub(super) fn sealed(version: &Value, snapshot: &Value) -> String {
    let document = json!({
        "format": MANIFEST_FORMAT,
        "version": version,
        "digest": NO_DIGEST,
        "snapshot": snapshot,
    });
    let text = format!("{document:#}\n");
    let digest = Digest::of(text.as_bytes()).to_string();
    text.replacen(NO_DIGEST, &digest, 1)
}

/// The text without its digest, which comes before anything else that could look like it.
fn unsealed(text: &str, digest: &str) -> String {
    if digest.len() == NO_DIGEST.len() {
        text.replacen(digest, NO_DIGEST, 1)
    } else {
        text.to_owned()
    }
}
