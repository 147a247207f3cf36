//! The formats in which Xen's own tools save a domain, as they are nested in one another.
//!
//! ```text
//! xl header, configuration     what `xl save` writes in front
//! libxl header                 what libxl_domain_suspend writes begins here
//!   record LIBXC_CONTEXT
//!   image header, domain header    what libxc writes begins here
//!     records: X86_PV_INFO, .., PAGE_DATA, PAGE_DATA, .., END
//!   record EMULATOR_CONTEXT, ..
//!   record END
//! ```
//!
//! [`StreamReader`] gives the pieces of any of the three, [`CheckedReader`] refuses what is no saved domain, and
//! [`StreamWriter`] writes pieces. The layouts are drawn in `docs/memory-images.md`; they are specified in Xen's
//! `docs/specs/libxl-migration-stream.pandoc` and `docs/specs/libxc-migration-stream.pandoc`.
//!
//! Only little-endian streams of x86 guests are read: there are no others.

mod checker;
mod error;
pub(crate) mod fields;
mod libxc;
mod libxl;
mod pages;
mod place;
mod reader;
mod record;
mod writer;
mod xl;

pub use checker::{CheckedReader, StreamSummary};
pub use error::{StreamError, StreamFailure};
pub use libxc::{
    DOMAIN_HEADER_LEN, DomainHeader, GuestType, IMAGE_HEADER_LEN, ImageHeader, ImageVersion,
    LIBXC_MARKER, LibxcHeaderError, LibxcType,
};
pub use libxl::{LIBXL_HEADER_LEN, LIBXL_IDENT, LibxlHeader, LibxlHeaderError, LibxlType};
pub(crate) use pages::is_zero;
pub use pages::{PAGE_LEN, PageEntry, PageType};
pub use place::{Part, Place};
pub use reader::{Content, Event, Start, StreamReader};
pub(crate) use reader::{PageContent, fill};
pub use record::{BodyError, EmulatorId, LibxcBody, LibxcRecord, LibxlBody, LibxlRecord};
pub use writer::{StreamWriteError, StreamWriter};
pub(crate) use xl::XlFixed;
pub use xl::{XL_HEADER_LEN, XL_MAGIC, XlHeader, XlHeaderError};
