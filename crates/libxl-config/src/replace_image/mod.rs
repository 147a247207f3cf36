//! Moves disks of a running domain to other images: in the live view and in the template, together.
//!
//! When QEMU has moved a disk to another image (`blockdev-snapshot` to an overlay, a finished mirror), nobody tells Xenstore
//! or the template: both still name the image from before, and `xl save` with `xl restore` opens that one again. What was
//! written since is lost without a word. [`ReplaceImage::replace`] tells both.
//!
//! ```no_run
//! use libxl_config::model::DiskFormat;
//! use libxl_config::replace_image::{Image, ReplaceImage, Replacement};
//! use libxl_config::template::UserdataDir;
//! use xsclient::{Client, DomId, Endpoint, Options};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//! let templates = UserdataDir::open(UserdataDir::HOST_PATH)?;
//! let overlay = Image::new("/srv/web-overlay.qcow2", DiskFormat::Qcow2);
//! let replaced = ReplaceImage::new(&mut client, &templates)
//!     .replace(DomId::new(7), &[Replacement::new("xvda", overlay)])?;
//! for disk in &replaced.disks {
//!     println!("{}: {} instead of {}", disk.vdev, disk.image, disk.live);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! It does not move the disk itself, does not look at the images, and changes nothing but what names them: the `params` of
//! the backend's directory and of its copy below `/libxl`, and `pdev_path` and `format` in the template's entry.
//!
//! # Order
//!
//! Under the template's lock, which is libxl's own in [`UserdataDir`](crate::template::UserdataDir): the template is
//! read, one Xenstore transaction for all disks commits, the template is written. A reader of this crate waits for the
//! lock; if this process is killed in between, `retrieve` names the new image (the live view decides) and reports the
//! template's as different, and the same call again completes what is missing.
//!
//! After an error, [`ReplaceError::views`] says of each view whether it names the old images or the new. The steps and
//! what each failure leaves are tabulated in `docs/replace-image.md`.

#[cfg(test)]
mod crashes;
mod edit;
mod error;
mod image;
mod judge;
mod refusal;
mod replacer;
mod writes;

pub use edit::EditError;
pub use error::{ReplaceError, UndoError, ViewState, Views};
pub use image::{Image, Plan, Replaced, ReplacedDisk, Replacement};
pub use refusal::Refusal;
pub use replacer::{ATTEMPTS_MAX, ReplaceImage, TIME_TO_UNDO};
