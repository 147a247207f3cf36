//! The kernel module by which a guest reaches the ring that it shares with Xenstore.
//!
//! It is built for the guests' own kernel against Debian's headers, which are unpacked beside the host's image: they are
//! none of the host's, and only the scenarios that spoil rings need them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stock_xenstore::{lock, own_lists, run, write_configuration};

use super::image::UNFINISHED;
use super::{Image, LabError};

const SOURCE: &str = include_str!("../../image/lab_ring.c");
/// What Debian's headers are made for, and name in their makefiles.
const COMPILER: &str = "gcc-12";
/// Changes when the code below makes something else of the same source.
const FORMAT: &str = "1";

/// For one run of apt-get: 15 MB, over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);
/// For one of dpkg-deb, and for make: seconds on an idle machine.
const LOCAL_LIMIT: Duration = Duration::from_mins(3);

const TO_DOWNLOAD: &str = "download the headers of the guests' kernel";
const TO_UNPACK: &str = "unpack the headers of the guests' kernel";
const TO_BUILD: &str = "build the guests' kernel module";

/// The module's file in the cache directory, built if it is not there. That needs apt-get, dpkg-deb, make, gcc-12 and a
/// network.
pub(super) fn build(image: &Image, cache: &Path) -> Result<PathBuf, LabError> {
    let cache = std::path::absolute(cache).map_err(LabError::file(cache))?;
    let finished = cache.join(key(image.kernel_version())).join("lab_ring.ko");
    if finished.exists() {
        return Ok(finished);
    }
    let _lock = lock(&cache.join("lock"))?;
    if !finished.exists() {
        make(image.kernel_version(), &cache)?;
    }
    Ok(finished)
}

fn key(kernel: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [FORMAT, kernel, SOURCE] {
        hasher.update(part.as_bytes()).update(b"\0");
    }
    format!("ring-module-{}", &hasher.finalize().to_hex()[..16])
}

fn make(kernel: &str, cache: &Path) -> Result<(), LabError> {
    // Before anything is downloaded, for a quick answer that names what is missing.
    for tool in ["apt-get", "dpkg-deb", "make", COMPILER] {
        run(Command::new(tool).arg("--version"), TO_BUILD, LOCAL_LIMIT)?;
    }
    println!("lab: building the guests' kernel module (15 MB of headers to download, once)");
    let work = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(cache);
    let work = work.map_err(LabError::file(cache))?;
    let headers = headers(kernel, work.path())?;
    let module = work.path().join("module");
    fs::create_dir(&module).map_err(LabError::file(&module))?;
    for (file, text) in [("lab_ring.c", SOURCE), ("Kbuild", "obj-m := lab_ring.o\n")] {
        let file = module.join(file);
        fs::write(&file, text).map_err(LabError::file(&file))?;
    }
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(&headers).arg(format!("M={}", module.display())).arg("modules");
    run(&mut make, TO_BUILD, LOCAL_LIMIT)?;
    let directory = cache.join(key(kernel));
    fs::rename(&module, &directory).map_err(LabError::file(&directory))
}

/// Downloads and unpacks below `work`, and gives the directory to build in.
fn headers(kernel: &str, work: &Path) -> Result<PathBuf, LabError> {
    let (archives, root) = (work.join("packages"), work.join("root"));
    fs::create_dir(&archives).map_err(LabError::file(&archives))?;
    let packages = packages(kernel);
    let download = |configuration: &Path| {
        let mut apt_get = Command::new("apt-get");
        apt_get.arg("-c").arg(configuration).arg("download").args(&packages);
        run(apt_get.current_dir(&archives), TO_DOWNLOAD, DOWNLOAD_LIMIT)
    };
    // As with the host's packages: the system's lists may be old, and are better than nothing.
    let newest = own_lists(work, Path::new("apt-get")).and_then(|own| download(&own));
    if newest.is_err() {
        let with_system_lists = write_configuration(&work.join("system.conf"), "")?;
        download(&with_system_lists).or(newest)?;
    }
    for archive in fs::read_dir(&archives).map_err(LabError::file(&archives))? {
        let archive = archive.map_err(LabError::file(&archives))?.path();
        run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(&root), TO_UNPACK, LOCAL_LIMIT)?;
    }
    let headers = root.join("usr/src").join(format!("linux-headers-{kernel}"));
    // It includes the other packages' makefile by the path at which that would be installed.
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(LabError::file(&makefile))?;
    let here = text.replace("/usr/src/", &format!("{}/usr/src/", root.display()));
    fs::write(&makefile, here).map_err(LabError::file(&makefile))?;
    Ok(headers)
}

/// Of a kernel such as `6.1.0-56-amd64`.
fn packages(kernel: &str) -> [String; 4] {
    let mut parts = kernel.split('.');
    let series: Vec<_> = parts.by_ref().take(2).collect();
    let common = kernel.trim_end_matches("-amd64");
    [
        format!("linux-headers-{kernel}"),
        format!("linux-headers-{common}-common"),
        format!("linux-kbuild-{}", series.join(".")),
        format!("linux-compiler-{COMPILER}-x86"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_of_the_kernel_that_the_guests_run() {
        assert_eq!(
            packages("6.1.0-56-amd64"),
            [
                "linux-headers-6.1.0-56-amd64",
                "linux-headers-6.1.0-56-common",
                "linux-kbuild-6.1",
                "linux-compiler-gcc-12-x86"
            ]
        );
        assert_ne!(key("6.1.0-56-amd64"), key("6.1.0-57-amd64"));
    }
}
