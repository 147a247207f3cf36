//! What an `xl save` file has in front of the stream.

use super::fields::{array, u32_at};

/// The 32 octets that an `xl save` file begins with.
pub const XL_MAGIC: [u8; 32] = *b"Xen saved domain, xl format\n \0 \r";

/// Octets of the header, without its optional data.
pub const XL_HEADER_LEN: usize = 48;

/// Written in the order of the machine that saved.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The configuration is libxl-json; otherwise it is the text of an `xl.cfg`.
const JSON: u32 = 1;
/// What follows is a libxl stream of version 2; otherwise it is the stream of Xen 4.5 and before.
const STREAM_V2: u32 = 2;

/// The header of an `xl save` file, little-endian as every machine that runs xl on x86 writes it.
///
/// ```text
/// octet  0      32               36             40            44               48
///        magic  0x01020304 u32   mandatory u32  optional u32  optional-len u32 optional data
/// ```
///
/// The optional data are the length of the configuration (u32) and the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XlHeader<'a> {
    /// Flags that a reader has to know.
    pub mandatory_flags: u32,
    /// Flags that a reader need not know.
    pub optional_flags: u32,
    /// Everything between the header and the stream.
    pub optional: &'a [u8],
}

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XlFixed {
    pub(crate) mandatory_flags: u32,
    pub(crate) optional_flags: u32,
    pub(crate) optional_len: u32,
}

impl<'a> XlHeader<'a> {
    /// A header with optional data that [`XlHeader::optional_of`] has made, as xl writes it: libxl-json, stream of version 2.
    pub const fn new(optional: &'a [u8]) -> Self {
        Self { mandatory_flags: JSON | STREAM_V2, optional_flags: 0, optional }
    }

    /// The optional data that hold a configuration. xl counts the NUL behind the text.
    pub fn optional_of(configuration: &[u8]) -> Vec<u8> {
        let len = u32::try_from(configuration.len()).unwrap_or(u32::MAX);
        [&len.to_le_bytes(), configuration].concat()
    }

    /// The configuration as it was written, with the NUL behind it; `None` if the file has none.
    ///
    /// # Errors
    ///
    /// If its length and that of the optional data do not go together.
    pub fn configuration(&self) -> Result<Option<&'a [u8]>, XlHeaderError> {
        let Some((len, configuration)) = self.optional.split_first_chunk::<4>() else {
            return if self.optional.is_empty() {
                Ok(None)
            } else {
                Err(XlHeaderError::Configuration { len: None, has: self.optional.len() })
            };
        };
        let len = u32::from_le_bytes(*len);
        if len as usize != configuration.len() {
            return Err(XlHeaderError::Configuration { len: Some(len), has: configuration.len() });
        }
        Ok(Some(configuration))
    }

    /// Whether the configuration is libxl-json.
    pub const fn is_json(&self) -> bool {
        self.mandatory_flags & JSON != 0
    }

    /// The octets of the header and its optional data.
    ///
    /// # Errors
    ///
    /// If there are more optional data than the header can say.
    pub fn to_octets(&self) -> Result<Vec<u8>, XlHeaderError> {
        let len = u32::try_from(self.optional.len())
            .map_err(|_| XlHeaderError::OptionalLength { len: u32::MAX, max: u32::MAX })?;
        let numbers = [BYTE_ORDER, self.mandatory_flags, self.optional_flags, len];
        let mut octets = XL_MAGIC.to_vec();
        octets.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        octets.extend_from_slice(self.optional);
        Ok(octets)
    }
}

impl XlFixed {
    pub(crate) fn from_octets(octets: &[u8; XL_HEADER_LEN]) -> Result<Self, XlHeaderError> {
        if array::<32>(octets, 0) != XL_MAGIC {
            return Err(XlHeaderError::Magic);
        }
        let order = u32_at(octets, 32);
        if order == BYTE_ORDER.swap_bytes() {
            return Err(XlHeaderError::BigEndian);
        }
        if order != BYTE_ORDER {
            return Err(XlHeaderError::ByteOrder { mark: order });
        }
        let mandatory_flags = u32_at(octets, 36);
        if mandatory_flags & !(JSON | STREAM_V2) != 0 {
            return Err(XlHeaderError::Flags { flags: mandatory_flags });
        }
        if mandatory_flags & STREAM_V2 == 0 {
            return Err(XlHeaderError::Legacy);
        }
        let (optional_flags, optional_len) = (u32_at(octets, 40), u32_at(octets, 44));
        Ok(Self { mandatory_flags, optional_flags, optional_len })
    }

    pub(crate) fn with(self, optional: &[u8]) -> XlHeader<'_> {
        let Self { mandatory_flags, optional_flags, optional_len: _ } = self;
        XlHeader { mandatory_flags, optional_flags, optional }
    }
}

/// Why octets are no header of an `xl save` file that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XlHeaderError {
    /// The first octets are others.
    #[error("the first 32 octets are not those of an xl save file")]
    Magic,
    /// Written on a big-endian machine.
    #[error("the file was saved on a big-endian machine")]
    BigEndian,
    /// The byte-order mark is none.
    #[error("the byte-order mark is {mark:#010x}")]
    ByteOrder {
        /// What is in its place.
        mark: u32,
    },
    /// Flags that must be understood and are not known.
    #[error("mandatory flags {flags:#x} have bits set that are not known")]
    Flags {
        /// All of them.
        flags: u32,
    },
    /// The stream of Xen 4.5 and before.
    #[error("the file holds a stream of Xen 4.5 or older")]
    Legacy,
    /// More optional data than are taken.
    #[error("the optional data have {len} octets, and no more than {max} are taken")]
    OptionalLength {
        /// What the header says.
        len: u32,
        /// [`Limits::config_max`](crate::image::Limits::config_max)
        max: u32,
    },
    /// The configuration's length and that of the optional data do not go together.
    #[error("the configuration has {} octets, and there are {has}", match len { Some(len) => *len, None => 0 })]
    Configuration {
        /// What the configuration's length field says; `None` if that is cut.
        len: Option<u32>,
        /// What there is.
        has: usize,
    },
}
