//! An overlay that was made here and is not in use yet.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use super::BackingName;
use crate::descriptor::open_again;
use crate::disk::image::{ImageError, ImageFormat, ImageRef, OpenImage, recorded};
use crate::disk::qemu_img::QemuImg;
use crate::disk::{DiskFailure, LeftReason, RollbackReport};
use crate::{CompleteFile, CreatedFile, CreationLog};

/// Octets of a new overlay, with clusters of 64 KiB: header, reference counts and an L1 table for 4 TiB.
pub(super) const OCTETS_NEEDED: u64 = 256 << 10;

#[derive(Debug)]
pub(super) struct PreparedOverlay {
    /// As it was made.
    pub(super) image: ImageRef,
    created: CreatedFile,
}

impl PreparedOverlay {
    /// Makes an overlay over `base`. It has its name once it is complete, synced, and found to rest on `base`.
    pub(super) fn create(
        qemu_img: &QemuImg,
        target: &Path,
        backing: &BackingName,
        base: &ImageRef,
        virtual_size: u64,
        log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<Self, DiskFailure> {
        let failed = |step| move |source| DiskFailure::Io { path: target.to_owned(), step, source };
        let name = backing.for_image(&base.path).map_err(failed("name its backing file"))?;
        let file = CompleteFile::create_logged(target, log)?;
        let for_program = file.as_fd().try_clone_to_owned().map_err(failed("open it again"))?;
        let own: File = for_program.try_clone().map_err(failed("open it again"))?.into();
        qemu_img.create_overlay(for_program, &name, base.format, virtual_size, deadline)?;
        let created = file.created().clone();
        let reopened =
            open_again(&own, File::options().read(true)).map_err(failed("open it again"))?;
        check_backing(&OpenImage::of(reopened, target.to_owned(), ImageFormat::Qcow2)?, base)?;
        drop(own);
        // It has its name by now even if only the directory could not be synced: then it has to be removed, as when it is not what
        // was meant.
        let prepared = file
            .finish()
            .map_err(DiskFailure::from)
            .and_then(|_| Ok(ImageRef::read(target, ImageFormat::Qcow2)?))
            .map(|image| Self { image, created: created.clone() });
        let prepared = prepared.and_then(|prepared| prepared.verify(base).map(|()| prepared));
        if prepared.is_err() {
            RollbackReport::default().remove(&created);
        }
        prepared
    }

    /// That it is the file that was made, unchanged, and rests on `base` still.
    pub(super) fn verify(&self, base: &ImageRef) -> Result<(), DiskFailure> {
        let path = &self.image.path;
        let opened = OpenImage::open(path.clone(), ImageFormat::Qcow2)?;
        let changes = opened.image.changes_since(&self.image);
        if !changes.is_empty() {
            return Err(DiskFailure::Changed { path: path.clone(), changes });
        }
        check_backing(&opened, base)
    }

    /// Removes it, unless somebody has written to it.
    pub(super) fn remove(&self, report: &mut RollbackReport) {
        match ImageRef::read(&self.image.path, ImageFormat::Qcow2) {
            Ok(now)
                if now.is_same_file(&self.image) && !now.changes_since(&self.image).is_empty() =>
            {
                report.leave(&self.image.path, LeftReason::Written);
            }
            _ => report.remove(&self.created),
        }
    }
}

/// Makes an overlay over any image, for a disk that is restored: what the image holds is never written again.
///
/// The image has to be as `base` tells of it. It is opened for reading only, and the overlay records its absolute path and its
/// format.
///
/// # Errors
///
/// If the base has changed, if there is something with the name already, or if a step fails. Nothing is left then.
pub fn create_overlay(
    qemu_img: &QemuImg,
    target: &Path,
    base: &ImageRef,
    log: &mut dyn CreationLog,
    deadline: Instant,
) -> Result<ImageRef, DiskFailure> {
    let changes = ImageRef::read(&base.path, base.format)?.changes_since(base);
    if !changes.is_empty() {
        return Err(DiskFailure::Changed { path: base.path.clone(), changes });
    }
    let (name, size) = (&BackingName::Absolute, base.virtual_size);
    let made = PreparedOverlay::create(qemu_img, target, name, base, size, log, deadline)?;
    Ok(made.image)
}

/// Whether what an overlay records leads to `base`, by device and inode.
pub(in crate::disk) fn check_backing(
    overlay: &OpenImage,
    base: &ImageRef,
) -> Result<(), DiskFailure> {
    let path = &overlay.image.path;
    let other = |recorded: &Path| DiskFailure::OtherBacking {
        overlay: path.clone(),
        recorded: recorded.to_owned(),
        base: base.path.clone(),
    };
    let Some(backing) = overlay.header.as_ref().and_then(|header| header.backing.as_ref()) else {
        return Err(other(Path::new("")));
    };
    let (found, format) = recorded(path, backing)
        .map_err(|source| DiskFailure::Chain { path: path.clone(), source })?;
    match ImageRef::read(&found, format) {
        Ok(image) if image.is_same_file(base) && format == base.format => Ok(()),
        Ok(_) | Err(ImageError::Header { .. }) => Err(other(&found)),
        Err(error) => Err(error.into()),
    }
}
