//! Memory images: a saved domain as a file that can be checked, and out of which comes the very stream it was made of.
//!
//! What Xen's own tools write has no digest, no holes for zero pages, and its pages are nowhere aligned. Three formats hold it
//! otherwise; each gives back the stream octet for octet, so that `xl restore` and libxl take it:
//!
//! | format | what it is for |
//! |---|---|
//! | [`passthrough`] | the stream as it is, with its digests beside it |
//! | [`mapped`] | each page at a fixed place, zero pages as holes: fast, read at random, mapped into memory |
//! | [`packed`] | 1 MiB frames, compressed, each of which can be had alone: small, and any stream |
//!
//! All have a header of 4096 octets that tells everything there is to tell without the rest ([`inspect()`]), a version of their
//! own, a digest for each mebibyte, and a root digest over those and the header. One flipped bit anywhere is refused. An
//! image is [`ImageState::Partial`] until it is marked as complete, which is the last thing that is written ([`Unmarked`]).
//!
//! [`stream`] reads and writes the framing of the stream itself, whichever of the nested formats of xl, libxl and libxc it
//! starts with. Every image is made of a stream that has been checked.
//!
//! Files are the caller's: nothing here names, creates, syncs or removes one. A reader takes a [`File`](std::fs::File), octets
//! in memory, or anything else that is [`ReadAt`].
//!
//! ```no_run
//! use std::fs::File;
//! use snapshot::image::{Limits, mapped};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let file = File::options().read(true).write(true).create_new(true).open("guest.image")?;
//! let written = mapped::write(File::open("guest.save")?, file, &mapped::MappedOptions::default())?;
//! written.file().sync_all()?;
//! let complete = written.mark_complete()?;
//! complete.file.sync_all()?;
//!
//! let image = mapped::MappedReader::open(complete.file, Limits::default())?;
//! image.verify()?;
//! image.write_stream(File::create_new("guest.again")?)?;
//! # Ok(())
//! # }
//! ```
//!
//! The layouts are drawn in `docs/memory-images.md`.

mod digest;
mod error;
#[doc(hidden)]
pub mod fuzzing;
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
mod zeros;

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
