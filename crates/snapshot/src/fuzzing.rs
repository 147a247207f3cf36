//! What the fuzz targets of the texts of snapshots run.

pub use crate::journal::fuzzing::journal;
pub use crate::manifest::fuzzing::manifest;
pub use crate::request_json::fuzzing::snapshot_request;
