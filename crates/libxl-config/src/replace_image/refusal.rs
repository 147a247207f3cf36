//! Why a disk is not moved to another image.

use crate::model::DiskFormat;
use crate::retrieve::Attachment;

/// Something that speaks against replacing an image. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Neither view has such a disk, or the name is no vdev.
    #[error("{vdev}: neither the template nor Xenstore has such a disk")]
    NoSuchDisk {
        /// The disk, as asked for.
        vdev: String,
    },
    /// The disk is asked for more than once, maybe under two names.
    #[error("{vdev}: asked for twice")]
    Twice {
        /// The disk, as asked for the second time.
        vdev: String,
    },
    /// Xenstore does not have the disk, or the toolstack has removed it from its tree.
    #[error("{vdev}: in the template only ({attachment})")]
    TemplateOnly {
        /// The disk.
        vdev: String,
        /// What is left of it.
        attachment: Attachment,
    },
    /// The template does not have the disk.
    #[error("{vdev}: in Xenstore only, so that there is no entry to change in the template")]
    XenstoreOnly {
        /// The disk.
        vdev: String,
    },
    /// One of the views has several disks of that number.
    #[error("{vdev}: {count} disks have that number in {place}")]
    Ambiguous {
        /// The disk.
        vdev: String,
        /// How many there are.
        count: usize,
        /// `the template` or `Xenstore`.
        place: &'static str,
    },
    /// A CD-ROM drive: media are inserted and ejected, not replaced.
    #[error("{vdev}: a CD-ROM drive; insert and eject media instead")]
    Cdrom {
        /// The disk.
        vdev: String,
    },
    /// One of the views has no image for the disk.
    #[error("{vdev}: an empty drive")]
    Empty {
        /// The disk.
        vdev: String,
    },
    /// Attaching has not come to its end, or detaching has begun.
    #[error("{vdev}: {attachment}")]
    NotAttached {
        /// The disk.
        vdev: String,
        /// How far it has come.
        attachment: Attachment,
    },
    /// Not served from an image file by QEMU or tapdisk, so that nothing but a new backend brings another image.
    #[error(
        "{vdev}: served by {backend}, which has a device and not an image; only disks of qdisk and tap can be moved"
    )]
    Backend {
        /// The disk.
        vdev: String,
        /// What serves it, as Xenstore calls it: `phy`, `standalone`, ...
        backend: String,
    },
    /// The template asks for another kind of backend than the one that serves the disk.
    #[error("{vdev}: served by {live}, but the template asks for {template}")]
    OtherBackend {
        /// The disk.
        vdev: String,
        /// The template's backend.
        template: String,
        /// What serves it.
        live: String,
    },
    /// The toolstack's tree names no backend that could be this disk's.
    #[error("{vdev}: its backend is said to be at \"{told}\", which is no place for it")]
    ForeignBackend {
        /// The disk.
        vdev: String,
        /// What the toolstack's tree says; empty if nothing.
        told: String,
    },
    /// A disk under COLO replication, which has more images than one.
    #[error("{vdev}: replicated by COLO, which has more images than the one that is named")]
    Replicated {
        /// The disk.
        vdev: String,
    },
    /// A key that names the image is missing or has no such value.
    #[error("{vdev}: {path}: {what}")]
    BadValue {
        /// The disk.
        vdev: String,
        /// The node.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// The new image's path does not start at the root.
    #[error("{vdev}: the path of the new image is not absolute: \"{path}\"")]
    NotAbsolute {
        /// The disk.
        vdev: String,
        /// The path.
        path: String,
    },
    /// The new image's path has a control character, which `retrieve` would not take back.
    #[error("{vdev}: the path of the new image has a control character: \"{}\"", path.escape_debug())]
    ControlCharacter {
        /// The disk.
        vdev: String,
        /// The path.
        path: String,
    },
    /// The new image's path does not fit into one request together with the node that it is written to.
    #[error(
        "{vdev}: {node} and its new value take {len} octets, where Xenstore takes {max} at most"
    )]
    TooLong {
        /// The disk.
        vdev: String,
        /// The node.
        node: String,
        /// Octets of node and value, with what is between them.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// What serves the disk does not read such images.
    #[error("{vdev}: {backend} does not serve images in the format {format}")]
    Format {
        /// The disk.
        vdev: String,
        /// The format asked for.
        format: DiskFormat,
        /// What serves the disk.
        backend: String,
    },
}
