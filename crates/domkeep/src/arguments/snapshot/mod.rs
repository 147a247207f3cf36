//! `snapshot`: exactly what was typed.

mod restore;
mod save;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum};
use libxl_control::LibraryAt;
use snapshot::restore::Depth;

pub(crate) use restore::{ImageSpec, Recover, Restore, RestoreDiskSpec, UuidSpec};
pub(crate) use save::{Asked, DiskSpecAction, MemorySpec, Save, SaveWhat};

#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Say what a save would do, or everything that speaks against it; changes nothing
    Plan(SaveWhat),
    /// Save a domain: memory, disks, configuration and Xenstore state of one moment
    Save(Save),
    /// Compare what was saved with what is there; exit status 1 if anything is missing or different
    Verify(Verify),
    /// Bring a saved domain back: beside others, or in the place of one
    Restore(Restore),
    /// Undo or complete a save or restore whose process died
    Recover(Recover),
    /// Tell what a file is from its first octets: memory image, saved domain, manifest, journal, qcow2 image
    Inspect {
        /// The file
        file: PathBuf,
    },
    /// Write a memory image in another format; the domain in it is the same, octet for octet
    Transcode(Transcode),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// A manifest, a memory image of any format, or a side digest
    #[arg(value_name = "MANIFEST|IMAGE")]
    pub(crate) file: PathBuf,
    /// How thoroughly
    #[arg(long, value_enum, default_value_t = DepthChoice::Chain)]
    pub(crate) depth: DepthChoice,
    /// Where the memory image is, if not where the manifest says
    #[arg(long, value_name = "PATH")]
    pub(crate) memory: Option<PathBuf>,
    /// Where the Xenstore state is, if not where the manifest says
    #[arg(long, value_name = "PATH")]
    pub(crate) xenstore_state: Option<PathBuf>,
    /// The side digest of a stream, which has none of its own
    #[arg(long, value_name = "PATH", conflicts_with_all = ["memory", "xenstore_state"])]
    pub(crate) side_digest: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DepthChoice {
    /// Headers, and digests of tables
    Header,
    /// Of a disk also the images that it rests on
    Chain,
    /// Every octet that there is a digest of
    Full,
}

impl From<DepthChoice> for Depth {
    fn from(choice: DepthChoice) -> Self {
        match choice {
            DepthChoice::Header => Self::Header,
            DepthChoice::Chain => Self::Chain,
            DepthChoice::Full => Self::Full,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Transcode {
    /// A memory image of any format, or - for a stream on stdin
    #[arg(value_name = "IN")]
    pub(crate) file: PathBuf,
    /// The new file, or - for a stream to stdout; never replaces a file
    pub(crate) out: PathBuf,
    /// The format
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) to: FormatChoice,
    #[command(flatten)]
    pub(crate) packing: Packing,
    /// Also write the digests of a stream, which has none of its own, to this new file
    #[arg(long, value_name = "PATH")]
    pub(crate) side_digest: Option<PathBuf>,
}

/// How a packed image is compressed.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Packing {
    /// What compresses a packed image [default: zstd]
    #[arg(long, value_enum)]
    pub(crate) codec: Option<CodecChoice>,
    /// Level of zstd, 1 to 22 [default: 1, the fastest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=22))]
    pub(crate) level: Option<i32>,
    /// Threads that compress [default: 2]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormatChoice {
    /// As Xen's own tools write and read it
    Stream,
    /// Each page at a fixed place, zero pages as holes
    Mapped,
    /// Compressed
    Packed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CodecChoice {
    Zstd,
    Lz4,
}

/// How the hypervisor is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ControlAt {
    /// This host's Xen, through libxl.
    Libxl(LibraryAt),
    /// A simulated host, by its socket.
    Simulated(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("not libxl, libxl:FILE or simulated:SOCKET")]
struct ControlError;

fn control() -> impl TypedValueParser<Value = ControlAt> {
    OsStringValueParser::new().try_map(|typed| {
        let typed = typed.as_bytes();
        let path = |octets: &[u8]| {
            (!octets.is_empty())
                .then(|| PathBuf::from(OsStr::from_bytes(octets)))
                .ok_or(ControlError)
        };
        if typed == b"libxl" {
            Ok(ControlAt::Libxl(LibraryAt::Host))
        } else if let Some(file) = typed.strip_prefix(b"libxl:") {
            path(file).map(|file| ControlAt::Libxl(LibraryAt::File(file)))
        } else {
            let socket = typed.strip_prefix(b"simulated:").ok_or(ControlError)?;
            path(socket).map(ControlAt::Simulated)
        }
    })
}

/// A vdev, and what is behind the first `=`.
fn vdev_and_rest(typed: &[u8]) -> Option<(String, &[u8])> {
    let equals = typed.iter().position(|octet| *octet == b'=')?;
    let vdev = str::from_utf8(&typed[..equals]).ok().filter(|vdev| !vdev.is_empty())?;
    Some((vdev.to_owned(), &typed[equals + 1..]))
}
