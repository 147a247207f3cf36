//! Memory images of compressed frames.
//!
//! The stream, whatever is in it, is cut into frames of 1 MiB, each of which is compressed alone; a table says where each
//! is. So any part of the stream can be had without decoding what is before it, and the very stream comes out again. The codec
//! does not see pages that are zero, which are only counted, nor pages that look random, which are stored as they are, and once in a
//! frame; so it has the time for those that it makes shorter. A frame that does not become shorter is stored as it is. There are two digests of each frame, of what
//! is in the file and of what comes out of it. A BLAKE3 digest in the header is that of header and table.

mod codec;
mod frame;
mod noise;
mod pieces;
mod reader;
mod table;
mod workers;
mod writer;

pub use codec::{Codec, ZSTD_LEVEL_DEFAULT};
pub use reader::{PackedReader, PackedStream};
pub use writer::{PackedOptions, WORKERS_DEFAULT, write};
