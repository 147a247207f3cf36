//! Telling Xenstore and the template of the disks' new images, if nobody has told them otherwise meanwhile.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceError, ReplaceImage, Replacement};
use xsclient::OpenError;

use crate::HostAccess;
use crate::control::DomainIdentity;
use crate::disk::image::ImageFormat;
use crate::journal::steps;
use crate::manifest::{ImageMove, NamedImage};

use super::domain::soon;

/// Why the new images are not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigureError {
    #[error("Xenstore cannot be reached: {0}")]
    Xenstore(#[from] OpenError),
    #[error(transparent)]
    Replace(#[from] ReplaceError),
    #[error("{vdev} is in {image} by now, so that its image was left as it is")]
    Moved { vdev: String, image: Image },
}

/// Brings both views to the new images. A disk that has been moved on since is left: what it is in now only that move knows.
pub(crate) fn apply(
    access: &HostAccess<'_>,
    domain: &DomainIdentity,
    moves: &[ImageMove],
) -> Result<(), ConfigureError> {
    let replacements: Vec<_> =
        moves.iter().map(|to| Replacement::new(&*to.vdev, image(&to.to))).collect();
    let mut client = (access.xenstore)(soon())?;
    let mut replace = ReplaceImage::new(&mut client, access.templates).deadline(soon());
    if let Some(hypervisor) = access.hypervisor {
        replace = replace.hypervisor(hypervisor);
    }
    let plan = replace.plan(domain.domid, &replacements)?;
    // With refusals, replacing tells them all.
    let judged = plan.refusals.is_empty().then_some(&plan.disks).into_iter().flatten();
    for (disk, moved) in judged.zip(moves) {
        let is_known = |image: &&Image| is_same(image, &moved.from) || is_same(image, &moved.to);
        if let Some(other) = [&disk.live, &disk.template].into_iter().find(|it| !is_known(it)) {
            return Err(ConfigureError::Moved { vdev: moved.vdev.clone(), image: other.clone() });
        }
    }
    steps::reached("before configure");
    replace.expecting(plan.before).replace(domain.domid, &replacements)?;
    steps::reached("after configure");
    Ok(())
}

fn image(named: &NamedImage) -> Image {
    let format = match named.format {
        ImageFormat::Raw => DiskFormat::Raw,
        ImageFormat::Qcow2 => DiskFormat::Qcow2,
    };
    Image::new(named.path.to_string_lossy(), format)
}

/// Whether both are one file: what configurations call an image need not be what QEMU calls it.
fn is_same(image: &Image, named: &NamedImage) -> bool {
    let inode = |path: &Path| path.metadata().map(|found| (found.dev(), found.ino())).ok();
    let path = Path::new(&image.path);
    path == named.path || inode(path).is_some_and(|file| Some(file) == inode(&named.path))
}
