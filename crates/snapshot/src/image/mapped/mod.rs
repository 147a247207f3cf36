//! Memory images with each page at a fixed place.
//!
//! A page is at octet 4096 + 4096 times its number, so that it can be read, or mapped into memory, without reading anything
//! else; zero pages are holes. Behind the pages are all other octets of the stream, so that the very stream comes out again;
//! the types of the pages; and a CRC32C for each mebibyte of all of it. A BLAKE3 digest in the header is that of header and table.
//!
//! A page has one place, so a stream that tells of a page twice (a live migration) is refused by name; a stream in any other
//! order is taken.

mod layout;
mod page_area;
mod reader;
mod records;
mod seen;
mod types;
mod writer;

pub use reader::MappedReader;
pub use writer::{MappedOptions, write};

/// Where the table of digests is in an image with these lengths; `None` if no file is so long.
pub(crate) fn table_at(pfn_end: u64, records_len: u64) -> Option<u64> {
    layout::MappedLayout::new(pfn_end, records_len).map(|layout| layout.table_at)
}
