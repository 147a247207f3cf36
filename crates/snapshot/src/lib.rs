//! Save and restore of Xen domains.
#![forbid(unsafe_code)]

mod complete_file;

pub use complete_file::{CompleteFile, CompleteFileError, CompleteFileStep};
