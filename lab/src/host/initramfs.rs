//! The first file systems of dom0 and of the guests.

use std::fs;
use std::path::Path;

use super::archive::Archive;
use super::modules::Modules;
use super::{Image, LabError};
use crate::guest::RING_MODULE;

/// What dom0 needs to reach its root file system. The rest it loads from there.
const DOM0_MODULES: &[&str] = &["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
/// What a guest needs for its devices.
const GUEST_MODULES: &[&str] = &["xen-blkfront", "xen-netfront", "9pnet_xen", "9p"];
/// The shared libraries of a Rust program, in the packages' library directory.
const LIBRARIES: &[&str] = &["libc.so.6", "libgcc_s.so.1", "libm.so.6"];

/// dom0's: finds the root file system and starts `dom0-start` there.
pub(super) fn of_dom0(image: &Image) -> Result<Vec<u8>, LabError> {
    let mut archive = Archive::default();
    archive.directory("bin");
    let busybox = image.root().join("usr/bin/busybox");
    archive.file("bin/busybox", &read(&busybox)?);
    archive.file("init", include_bytes!("../../image/initramfs-init"));
    archive.file("dom0-start", include_bytes!("../../image/dom0-start"));
    add_modules(&mut archive, image, DOM0_MODULES)?;
    Ok(archive.finish())
}

/// A guest's: `program` is its first and only one, which loads `ring_module` when it is told to.
pub(super) fn of_guest(
    image: &Image,
    program: &Path,
    ring_module: Option<&Path>,
) -> Result<Vec<u8>, LabError> {
    let mut archive = Archive::default();
    archive.directory("dev");
    archive.directory("proc");
    archive.directory("sys");
    archive.directory("mnt");
    archive.directory("lib64");
    // On Debian's paths, where the loader looks by itself.
    archive.directory("lib");
    archive.directory("lib/x86_64-linux-gnu");
    let libraries = image.libraries();
    archive.file("lib64/ld-linux-x86-64.so.2", &read(&libraries.join("ld-linux-x86-64.so.2"))?);
    for library in LIBRARIES {
        let file = format!("lib/x86_64-linux-gnu/{library}");
        archive.file(&file, &read(&libraries.join(library))?);
    }
    archive.file("init", &read(program)?);
    add_modules(&mut archive, image, GUEST_MODULES)?;
    if let Some(module) = ring_module {
        archive.file(RING_MODULE.trim_start_matches('/'), &read(module)?);
    }
    Ok(archive.finish())
}

/// The modules as `modules/NAME`, and `modules/order` with the names one a line.
fn add_modules(archive: &mut Archive, image: &Image, wanted: &[&str]) -> Result<(), LabError> {
    archive.directory("modules");
    let mut order = String::new();
    for file in Modules::read(&image.modules())?.in_order(wanted)? {
        let name = file.rsplit('/').next().unwrap_or(&file);
        archive.file(&format!("modules/{name}"), &read(&image.modules().join(&file))?);
        order.push_str(name);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>, LabError> {
    fs::read(file).map_err(LabError::file(file))
}
