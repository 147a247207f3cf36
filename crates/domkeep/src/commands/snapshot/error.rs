//! What can go wrong with saved domains, and the exit status for it.

use std::path::PathBuf;

use snapshot::disk::image::Qcow2HeaderError;
use snapshot::guard::GuardError;
use snapshot::image::{ImageOpenError, ImageReadError, ImageWriteError, InspectError};
use snapshot::manifest::ManifestError;
use snapshot::recover::RecoverError;
use snapshot::request_json::RequestError;
use snapshot::restore::{PlanRestoreError, RestoreCause, RestoreFailure};
use snapshot::save::{PlanSaveError, SaveFailure};
use snapshot::verify::VerifyError;

use snapshot::JournalError;

use crate::exit::Exit;

/// Why a command about saved domains did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("{}: it cannot be told what it is", path.display())]
    Inspect { path: PathBuf, source: InspectError },
    #[error("{}: is no qcow2 image that can be used", path.display())]
    Qcow2 { path: PathBuf, source: Qcow2HeaderError },
    #[error("{}: is no memory image that can be read", path.display())]
    ImageOpen { path: PathBuf, source: ImageOpenError },
    #[error("{}: is not as it was written", path.display())]
    ImageRead { path: PathBuf, source: ImageReadError },
    #[error("{}: is no saved domain", path.display())]
    NoDomain { path: PathBuf, source: ImageWriteError },
    #[error("{}: cannot be written", path.display())]
    ImageWrite { path: PathBuf, source: ImageWriteError },
    #[error("{}: what was written is not the domain in {}", out.display(), file.display())]
    OtherStream { file: PathBuf, out: PathBuf },
    #[error("{}: holds digests, and no domain", path.display())]
    DigestsAlone { path: PathBuf },
    #[error("an image is read at many places; from stdin comes a stream only")]
    ImageOnStdin,
    #[error("an image is written at many places; to stdout goes a stream only")]
    ImageToStdout,
    #[error("{option} is for images of the format {format} only")]
    OptionOfOther { option: &'static str, format: &'static str },
    #[error("{option} is for images, and this is a manifest")]
    ForImages { option: &'static str },
    #[error("{option} is for streams, and this image has digests of its own")]
    ForStreams { option: &'static str },
    #[error("--memory and --xenstore-state are for manifests, and this is none")]
    ForManifests,
    #[error("the snapshot cannot be compared")]
    Verify { source: VerifyError },
    #[error("--level is for --codec zstd only")]
    LevelOfLz4,
    #[error("{}: cannot be read as a manifest", path.display())]
    Manifest { path: PathBuf, source: ManifestError },
    #[error("{}: is no manifest, which is text", path.display())]
    ManifestNotText { path: PathBuf },
    #[error("no domain is {which}")]
    NoSuchDomain { which: String },
    #[error("disk {vdev} is named twice")]
    DiskTwice { vdev: String },
    #[error("{}: cannot be read as a request", path.display())]
    Request { path: PathBuf, source: RequestError },
    #[error("{}: is no request, which is text", path.display())]
    RequestNotText { path: PathBuf },
    #[error("the save cannot be planned")]
    PlanSave { source: Box<PlanSaveError> },
    #[error(transparent)]
    Save { source: Box<SaveFailure> },
    #[error("the domain cannot be guarded")]
    Guard { source: Box<GuardError> },
    #[error("the restore cannot be planned")]
    PlanRestore { source: PlanRestoreError },
    #[error("{}: {source}", path.display())]
    Restore { path: PathBuf, source: Box<RestoreFailure> },
    #[error("it is not recovered")]
    Recover { source: Box<RecoverError> },
    #[error("cancelled; nothing is left of it")]
    Cancelled,
}

impl SnapshotError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::ImageOpen { source: ImageOpenError::Io { source, .. }, .. }
            | Self::ImageRead { source: ImageReadError::Io { source, .. }, .. }
                if source.kind() != std::io::ErrorKind::UnexpectedEof =>
            {
                Exit::OutOfReach
            }
            Self::ImageRead { source: ImageReadError::Output { .. }, .. }
            | Self::ImageWrite {
                source: ImageWriteError::Output { .. } | ImageWriteError::Codec { .. },
                ..
            } => Exit::OutOfReach,
            Self::ImageOnStdin
            | Self::ImageToStdout
            | Self::OptionOfOther { .. }
            | Self::LevelOfLz4
            | Self::ForImages { .. }
            | Self::ForStreams { .. }
            | Self::DiskTwice { .. }
            | Self::ForManifests => Exit::Usage,
            Self::PlanSave { .. } | Self::PlanRestore { .. } => Exit::OutOfReach,
            Self::Request { .. } | Self::RequestNotText { .. } => Exit::Usage,
            Self::Recover { source } => match source.as_ref() {
                RecoverError::Query(_) | RecoverError::Journal(JournalError::Io { .. }) => {
                    Exit::OutOfReach
                }
                _ => Exit::BadNews,
            },
            _ => Exit::BadNews,
        }
    }

    pub(crate) fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::ImageOpen { source: ImageOpenError::Partial, .. } => {
                "whoever wrote it did not come to its end; nothing can be restored from it"
            }
            Self::ImageWrite { source: ImageWriteError::Duplicate { .. }, .. } => {
                "write it with --to packed, which takes pages that were sent more than once"
            }
            Self::ImageOpen { source, .. } if !matches!(source, ImageOpenError::Io { .. }) => {
                INSPECT
            }
            Self::NoDomain { .. } | Self::ManifestNotText { .. } => INSPECT,
            Self::ImageOnStdin => "give the name of the file",
            Self::ImageToStdout => "give the name of a new file, or --to stream",
            Self::NoSuchDomain { .. } => {
                "`domkeep list` shows the domains, `domkeep simulate list HOST` those of a simulated host"
            }
            Self::DiskTwice { .. } => "name each disk once: a disk is saved in one way",
            Self::PlanSave { source } if matches!(**source, PlanSaveError::Xenstore(_)) => {
                "start xenstored, or say with --xenstore SOCKET where it is"
            }
            Self::DigestsAlone { .. } => "give the stream that they are the digests of",
            Self::Manifest { source: ManifestError::Digest { .. }, .. } => {
                "a manifest is kept octet for octet as it was written"
            }
            Self::Save { source } if source.journal.is_some() => RECOVER,
            Self::Restore { source, .. } if source.journal.is_some() => RECOVER,
            Self::Restore { source, .. }
                if matches!(*source.cause, RestoreCause::Verify { .. }) =>
            {
                "`domkeep snapshot verify MANIFEST` says all that is wrong"
            }
            Self::Recover { .. } => "recover once more, when what is in its way has gone",
            _ => return None,
        })
    }
}

const INSPECT: &str = "`domkeep snapshot inspect FILE` tells what it is";
const RECOVER: &str = "`domkeep snapshot recover JOURNAL` undoes or completes it";
