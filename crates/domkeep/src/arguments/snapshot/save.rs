//! `snapshot plan` and `snapshot save`: exactly what was typed.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use snapshot::save::{After, Consistency, Hold};

use super::{ControlAt, FormatChoice, Packing, control};

#[derive(Debug, Args)]
pub(crate) struct Save {
    #[command(flatten)]
    pub(crate) what: SaveWhat,
    /// The manifest of the snapshot: a new file
    #[arg(long, value_name = "PATH")]
    pub(crate) manifest: PathBuf,
}

/// What is saved, and where: every path is the caller's.
#[derive(Debug, Args)]
pub(crate) struct SaveWhat {
    /// Name or id of the domain
    #[arg(required_unless_present = "request")]
    pub(crate) domain: Option<String>,
    /// The hypervisor: libxl (this Xen host's), libxl:FILE, or simulated:SOCKET, a simulated host
    #[arg(long, value_name = "KIND[:ADDRESS]", default_value = "libxl", value_parser = control())]
    pub(crate) control: ControlAt,
    /// All of the request as JSON, instead of the options below; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["domain", "asked"])]
    pub(crate) request: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// The request, as options.
#[derive(Debug, Args)]
#[group(id = "asked", multiple = true)]
pub(crate) struct Asked {
    /// A new file for the memory image; FORMAT is mapped (which is it without one), packed or stream
    #[arg(long, value_name = "PATH[,format=FORMAT]", value_parser = memory(), required_unless_present_any = ["no_memory", "request"])]
    pub(crate) memory: Option<MemorySpec>,
    /// Disks alone
    #[arg(long, conflicts_with = "memory")]
    pub(crate) no_memory: bool,
    #[command(flatten)]
    pub(crate) packing: Packing,
    /// A new file for the digests of a memory image that is a stream
    #[arg(long, value_name = "PATH")]
    pub(crate) side_digest: Option<PathBuf>,
    /// A new file for what the domain has in Xenstore
    #[arg(long, value_name = "PATH")]
    pub(crate) xenstore_state: Option<PathBuf>,
    /// What is done with a disk; each one that the guest can write has to be named. ACTION is overlay:PATH, internal:TAG,
    /// copy:PATH or skip:REASON
    #[arg(long = "disk", value_name = "VDEV=ACTION", value_parser = disk())]
    pub(crate) disks: Vec<DiskSpec>,
    /// Read frozen images and copies once more, for a digest of all of them
    #[arg(long)]
    pub(crate) digest_disks: bool,
    /// The QMP socket of the domain's QEMU, for overlays and internal snapshots [default with libxl: libxl's own, if it is there]
    #[arg(long, value_name = "SOCKET")]
    pub(crate) qmp: Option<PathBuf>,
    /// A new file for what was done, which `snapshot recover` reads if this process dies
    #[arg(long, value_name = "PATH")]
    pub(crate) journal: Option<PathBuf>,
    /// What becomes of the domain [default: resume]
    #[arg(long, value_enum)]
    pub(crate) after: Option<AfterChoice>,
    /// What the guest does while its disks are frozen [default: suspended]
    #[arg(long, value_enum)]
    pub(crate) hold: Option<HoldChoice>,
    /// Refuse what does not go together as well as this [default: per-disk]
    #[arg(long, value_enum)]
    pub(crate) min_consistency: Option<ConsistencyChoice>,
}

/// Where the memory image goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemorySpec {
    pub(crate) path: PathBuf,
    pub(crate) format: FormatChoice,
}

/// What is done with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskSpec {
    pub(crate) vdev: String,
    pub(crate) action: DiskSpecAction,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DiskSpecAction {
    Overlay(PathBuf),
    Internal(String),
    Copy(PathBuf),
    Skip(String),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum AfterChoice {
    /// It goes on as before
    Resume,
    /// It is left paused
    Pause,
    /// It is destroyed, once all is durable
    Destroy,
}

impl From<AfterChoice> for After {
    fn from(choice: AfterChoice) -> Self {
        match choice {
            AfterChoice::Resume => Self::Resume,
            AfterChoice::Pause => Self::LeavePaused,
            AfterChoice::Destroy => Self::Destroy,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum HoldChoice {
    /// It is suspended
    Suspended,
    /// It runs: without memory, and if all disks change at one moment
    Running,
}

impl From<HoldChoice> for Hold {
    fn from(choice: HoldChoice) -> Self {
        match choice {
            HoldChoice::Suspended => Self::Suspended,
            HoldChoice::Running => Self::Running,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ConsistencyChoice {
    /// Each disk is of a moment of its own
    PerDisk,
    /// All disks are of one moment
    CrashConsistent,
    /// And the guest was quiesced before
    Quiesced,
    /// Memory and disks are of one moment
    Complete,
}

impl From<ConsistencyChoice> for Consistency {
    fn from(choice: ConsistencyChoice) -> Self {
        match choice {
            ConsistencyChoice::PerDisk => Self::PerDisk,
            ConsistencyChoice::CrashConsistent => Self::CrashConsistent,
            ConsistencyChoice::Quiesced => Self::Quiesced,
            ConsistencyChoice::Complete => Self::Complete,
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("not PATH or PATH,format=FORMAT with mapped, packed or stream as FORMAT")]
struct MemoryError;

fn memory() -> impl TypedValueParser<Value = MemorySpec> {
    OsStringValueParser::new().try_map(|typed| memory_of(typed.as_bytes()).ok_or(MemoryError))
}

/// The path may hold any octet, but not end as the option does.
fn memory_of(typed: &[u8]) -> Option<MemorySpec> {
    const OPTION: &[u8] = b",format=";
    let at = typed.windows(OPTION.len()).rposition(|octets| octets == OPTION);
    let (path, format) = match at {
        None => (typed, FormatChoice::Mapped),
        Some(at) => {
            let name = str::from_utf8(&typed[at + OPTION.len()..]).ok()?;
            (&typed[..at], FormatChoice::from_str(name, false).ok()?)
        }
    };
    Some(MemorySpec { path: path_of(path)?, format })
}

#[derive(Debug, thiserror::Error)]
#[error("not VDEV=overlay:PATH, VDEV=internal:TAG, VDEV=copy:PATH or VDEV=skip:REASON")]
struct DiskError;

fn disk() -> impl TypedValueParser<Value = DiskSpec> {
    OsStringValueParser::new().try_map(|typed| disk_of(typed.as_bytes()).ok_or(DiskError))
}

fn disk_of(typed: &[u8]) -> Option<DiskSpec> {
    let (vdev, rest) = super::vdev_and_rest(typed)?;
    let colon = rest.iter().position(|octet| *octet == b':')?;
    let (kind, value) = (&rest[..colon], &rest[colon + 1..]);
    let text = || str::from_utf8(value).ok().filter(|text| !text.is_empty()).map(str::to_owned);
    let action = match kind {
        b"overlay" => DiskSpecAction::Overlay(path_of(value)?),
        b"copy" => DiskSpecAction::Copy(path_of(value)?),
        b"internal" => DiskSpecAction::Internal(text()?),
        b"skip" => DiskSpecAction::Skip(text()?),
        _ => return None,
    };
    Some(DiskSpec { vdev, action })
}

/// A path that is not empty.
pub(super) fn path_of(octets: &[u8]) -> Option<PathBuf> {
    (!octets.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(octets)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_image_is_a_path_with_anything_in_it_and_a_format() {
        let spec =
            |path: &[u8], format| Some(MemorySpec { path: OsStr::from_bytes(path).into(), format });
        assert_eq!(memory_of(b"/a,b=\xff"), spec(b"/a,b=\xff", FormatChoice::Mapped));
        assert_eq!(
            memory_of(b"/a,format=x,format=packed"),
            spec(b"/a,format=x", FormatChoice::Packed)
        );
        for wrong in [&b""[..], b",format=mapped", b"/a,format=", b"/a,format=raw"] {
            assert_eq!(memory_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_disk_is_a_vdev_and_what_is_done_with_it() {
        let action = |typed: &[u8]| disk_of(typed).map(|disk| (disk.vdev, disk.action));
        let xvda = |action| Some(("xvda".to_owned(), action));
        assert_eq!(action(b"xvda=overlay:/a:b=c"), xvda(DiskSpecAction::Overlay("/a:b=c".into())));
        assert_eq!(
            action(b"xvda=internal:before"),
            xvda(DiskSpecAction::Internal("before".into()))
        );
        assert_eq!(action(b"xvda=copy:x"), xvda(DiskSpecAction::Copy("x".into())));
        assert_eq!(action(b"xvda=skip:swap"), xvda(DiskSpecAction::Skip("swap".into())));
        for wrong in [
            &b"xvda"[..],
            b"xvda=skip",
            b"xvda=skip:",
            b"=copy:x",
            b"xvda=copy:",
            b"xvda=move:x",
            b"",
        ] {
            assert_eq!(action(wrong), None, "{wrong:?}");
        }
    }
}
