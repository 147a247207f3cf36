//! Manifests in files.

use std::path::Path;

use snapshot::Snapshot;
use snapshot::manifest::{MANIFEST_FORMAT, MANIFEST_MAX};

use super::error::SnapshotError;
use super::new_file;
use crate::commands::whole;
use crate::exit::CommandError;

/// Octets within which a manifest says that it is one.
const FORMAT_WITHIN: usize = 256;

/// Whether a file begins as manifests do.
pub(super) fn is_one(first: &[u8]) -> bool {
    let first = String::from_utf8_lossy(&first[..first.len().min(FORMAT_WITHIN)]);
    first.starts_with('{') && first.contains(&format!("{MANIFEST_FORMAT:?}"))
}

/// Reads a manifest, which must be octet for octet as it was written.
pub(super) fn read(path: &Path) -> Result<Snapshot, CommandError> {
    let octets = whole::read_file(path, MANIFEST_MAX as u64)?;
    let text = String::from_utf8(octets)
        .map_err(|_| SnapshotError::ManifestNotText { path: path.to_owned() })?;
    let snapshot = Snapshot::from_json(&text);
    Ok(snapshot.map_err(|source| SnapshotError::Manifest { path: path.to_owned(), source })?)
}

/// Writes a manifest to a new file.
pub(super) fn write(path: &Path, snapshot: &Snapshot) -> Result<(), CommandError> {
    let text = snapshot.to_json();
    let text = text.map_err(|source| SnapshotError::Manifest { path: path.to_owned(), source })?;
    new_file::write(path, text.as_bytes())
}
