//! A snapshot as text, with a digest of its own.
//!
//! ```text
//! {
//!   "format": "domkeep-snapshot",
//!   "version": [1, 0],
//!   "digest": "<BLAKE3 of the text of `snapshot`, 64 digits>",
//!   "snapshot": { ... }
//! }
//! ```
//!
//! The text is taken only as it was written, octet for octet: one that was edited, or laid out in another way, is refused. The
//! digest finds what chance does to it. It does not keep out whoever can compute it again: against that, sign the text.

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
    /// The same values, laid out otherwise or with something beside them.
    #[error("the manifest is not octet for octet as it was written")]
    Edited,
    /// The digest is right, and there is something in it that cannot be.
    #[error("the manifest's snapshot cannot be read")]
    Content {
        /// What.
        source: serde_json::Error,
    },
}

impl Snapshot {
    /// The manifest, to be kept octet for octet.
    pub fn to_json(&self) -> String {
        let snapshot = json!(self);
        document(&MANIFEST_VERSION.map(u64::from), &snapshot)
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
        let snapshot = read["snapshot"].take();
        let (found, says) = (digest(&snapshot), read["digest"].as_str().unwrap_or_default());
        if found.to_string() != says {
            return Err(ManifestError::Digest { found, says: says.to_owned() });
        }
        if document(&[major, minor], &snapshot) != text {
            return Err(ManifestError::Edited);
        }
        serde_json::from_value(snapshot).map_err(|source| ManifestError::Content { source })
    }
}

fn document(version: &[u64; 2], snapshot: &Value) -> String {
    let document = json!({
        "format": MANIFEST_FORMAT,
        "version": version,
        "digest": digest(snapshot),
        "snapshot": snapshot,
    });
    format!("{document:#}\n")
}

fn digest(snapshot: &Value) -> Digest {
    Digest::of(snapshot.to_string().as_bytes())
}
