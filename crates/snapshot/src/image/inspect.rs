//! What a file is, from its first octets.

use super::header::{HEADER_LEN, HeaderError, IMAGE_MAGIC, ImageInfo};
use super::limits::Limits;
use super::stream::{
    Content, DomainHeader, ImageHeader, Start, StreamError, StreamFailure, StreamReader, XlFixed,
};

/// Octets from which everything can be told that can be without reading more of the file.
pub const INSPECT_LEN: usize = HEADER_LEN;

/// What a file is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Inspected {
    /// One of Domkeep's images, complete or not.
    Image(Box<ImageInfo>),
    /// What Xen's own tools write.
    Stream(StreamInfo),
}

/// What the first octets of a stream tell. It does not say how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// What it starts with.
    pub start: Start,
    /// Octets of the optional data of an xl header.
    pub optional_len: Option<usize>,
    /// Whether the configuration in an xl header is libxl-json.
    pub json: Option<bool>,
    /// The header of the libxc image; `None` if the octets given end before it, as they may behind a long configuration.
    pub image: Option<ImageHeader>,
    /// What the libxc image says of the domain; `None` if the octets given end before it.
    pub domain: Option<DomainHeader>,
}

/// Tells what a file is from its first octets: [`INSPECT_LEN`] of them, or all if there are fewer.
///
/// # Errors
///
/// If it is neither an image nor a stream, or its header is broken. What is behind the header is not looked at.
pub fn inspect(first: &[u8]) -> Result<Inspected, InspectError> {
    if first.starts_with(&IMAGE_MAGIC) {
        let Some(page) = first.first_chunk::<HEADER_LEN>() else {
            return Err(InspectError::Cut { has: first.len() });
        };
        let info = ImageInfo::from_page(page).map_err(|source| InspectError::Image { source })?;
        return Ok(Inspected::Image(Box::new(info)));
    }
    let mut reader = StreamReader::new(first, Limits::default());
    let mut optional_len = None;
    let (mut json, mut image, mut domain) = (None, None, None);
    while domain.is_none() {
        match reader.next_event() {
            Ok(Some(event)) => match event.content {
                Content::XlHeader(header) => {
                    optional_len = Some(header.optional.len());
                    json = Some(header.is_json());
                }
                Content::ImageHeader(header) => image = Some(header),
                Content::DomainHeader(header) => domain = Some(header),
                _ => {}
            },
            Ok(None) => break,
            // There is more of the file.
            Err(StreamError { failure: StreamFailure::Cut { .. }, .. })
                if first.len() >= INSPECT_LEN =>
            {
                break;
            }
            Err(StreamError { failure: StreamFailure::Unknown, .. }) => {
                return Err(InspectError::Unknown);
            }
            Err(source) => return Err(InspectError::Stream { source }),
        }
    }
    let Some(start) = reader.start() else { return Err(InspectError::Unknown) };
    if let (Start::Xl, None, Some(fixed)) = (start, json, first.first_chunk()) {
        // The configuration is longer than what is there, and says nothing more.
        let fixed = XlFixed::from_octets(fixed).ok();
        optional_len = fixed.map(|fixed| fixed.optional_len as usize);
        json = fixed.map(|fixed| fixed.with(&[]).is_json());
    }
    Ok(Inspected::Stream(StreamInfo { start, optional_len, json, image, domain }))
}

/// Why it cannot be told what a file is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// Something else than an image or a stream.
    #[error("the first octets are neither those of an image nor those of a saved domain")]
    Unknown,
    /// An image that ends within its header, or too few octets.
    #[error("an image's header has {HEADER_LEN} octets, and {has} are there")]
    Cut {
        /// How many there are.
        has: usize,
    },
    /// The header of the image is broken.
    #[error("the image's header cannot be read")]
    Image {
        /// Why not.
        source: HeaderError,
    },
    /// The headers of the stream are broken.
    #[error("the headers of the stream cannot be read")]
    Stream {
        /// Why not.
        source: StreamError,
    },
}
