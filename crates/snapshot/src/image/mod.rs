//! Memory images.
mod digest;
mod error;
mod header;
mod inspect;
mod limits;
pub mod mapped;
mod open;
pub mod packed;
pub mod passthrough;
mod read_at;
pub mod stream;
mod unmarked;

pub use digest::{CHUNK_LEN, Digest};
pub use error::{Area, ImageOpenError, ImageReadError, ImageWriteError};
pub use header::{
    FORMAT_VERSION, FormatVersion, HEADER_LEN, HeaderError, IMAGE_MAGIC, ImageFormat, ImageInfo,
    ImageState, Layout,
};
pub use inspect::{INSPECT_LEN, InspectError, Inspected, StreamInfo, inspect};
pub use limits::{BATCH_MAX, CONFIG_MAX, Limits, PFN_MAX, RECORD_MAX, STREAM_MAX};
pub use read_at::ReadAt;
pub use unmarked::{Complete, Unmarked};
