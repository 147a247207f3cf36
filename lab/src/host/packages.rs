//! Debian's packages: which, how they are fetched and unpacked without root and without installing anything.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use stock_xenstore::{own_lists, run, write_configuration};

use super::LabError;

/// What dom0 and the machine around it are made of. apt adds what they depend on.
pub(super) const PACKAGES: &[&str] = &[
    // What every Debian system has, and packages do not name as a dependency.
    "base-files",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "e2fsprogs",
    "findutils",
    "gawk",
    "grep",
    "gzip",
    "hostname",
    "libc-bin",
    "mount",
    "ncurses-base",
    "procps",
    "sed",
    "tar",
    "util-linux",
    // The host.
    "linux-image-amd64",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "qemu-system-xen",
    "qemu-utils",
    "bridge-utils",
    "busybox-static",
    "iproute2",
    "kmod",
    "udev",
    // The machine that the host runs on.
    "qemu-system-x86",
    "ipxe-qemu",
    "seabios",
];

/// What is not unpacked, as tar matches it: half of the octets, and nothing here needs it.
pub(super) const LEFT_OUT: &[&str] = &[
    "./usr/share/doc/*",
    "./usr/share/man/*",
    "./usr/share/locale/*",
    "./usr/share/iso-codes",
    "./usr/share/xml",
    "./usr/share/perl*",
    "./usr/lib/python3*",
    "./usr/lib/x86_64-linux-gnu/perl*",
    "*/gstreamer-1.0",
    "./lib/modules/*/kernel/sound",
    "./lib/modules/*/kernel/drivers/gpu",
    "./lib/modules/*/kernel/drivers/hwmon",
    "./lib/modules/*/kernel/drivers/iio",
    "./lib/modules/*/kernel/drivers/infiniband",
    "./lib/modules/*/kernel/drivers/input",
    "./lib/modules/*/kernel/drivers/media",
    "./lib/modules/*/kernel/drivers/net/ethernet",
    "./lib/modules/*/kernel/drivers/net/wireless",
    "./lib/modules/*/kernel/drivers/scsi",
    "./lib/modules/*/kernel/drivers/staging",
    "./lib/modules/*/kernel/drivers/usb",
];

/// Directories of Debian that are links into usr; the packages' own names go through them.
const LINKS: &[(&str, &str)] =
    &[("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

/// For one run of apt-get: some 160 MB, over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(15);
/// For one package: the kernel's takes ten seconds on a loaded machine.
const UNPACK_LIMIT: Duration = Duration::from_mins(3);
const PROBE_LIMIT: Duration = Duration::from_mins(1);

const TO_PROBE: &str = "build the lab's host";
const TO_DOWNLOAD: &str = "download the packages of the lab's host";

/// Fetches the packages with all that they depend on, and unpacks them into the new directory `root`. `work` is for what
/// is not kept. Gives the names of the package files.
pub(super) fn unpack(work: &Path, root: &Path) -> Result<Vec<String>, LabError> {
    // Before anything is downloaded, for a quick answer that names what is missing.
    for tool in ["apt-get", "dpkg-deb", "tar"] {
        run(Command::new(tool).arg("--version"), TO_PROBE, PROBE_LIMIT)?;
    }
    let archives = download(work)?;
    for (link, directory) in LINKS {
        let directory = root.join(directory);
        fs::create_dir_all(&directory).map_err(LabError::file(&directory))?;
        let link = root.join(link);
        let target = directory.strip_prefix(root).unwrap_or(&directory);
        std::os::unix::fs::symlink(target, &link).map_err(LabError::file(&link))?;
    }
    let mut names = Vec::new();
    for archive in packages_in(&archives)? {
        unpack_one(&archive, root)?;
        names.extend(archive.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// Downloads into a directory below `work`, and tells which.
///
/// To apt nothing is installed, so that the answer is the whole closure and the same on every machine.
fn download(work: &Path) -> Result<PathBuf, LabError> {
    let status = work.join("status");
    fs::write(&status, "").map_err(LabError::file(&status))?;
    let with = |configuration: &Path| {
        let mut apt_get = Command::new("apt-get");
        apt_get.arg("-c").arg(configuration);
        apt_get.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        apt_get.args(["-o", "Debug::NoLocking=1", "-o", "APT::Architecture=amd64"]);
        apt_get.args(["--yes", "--no-install-recommends", "--download-only", "install"]);
        run(apt_get.args(PACKAGES), TO_DOWNLOAD, DOWNLOAD_LIMIT)
    };
    // The system's lists may name versions that are no longer served; without a way to newer ones they are all there is.
    let newest = own_lists(work, Path::new("apt-get")).and_then(|own| with(&own));
    if newest.is_err() {
        let cache = work.join("apt/cache");
        let partial = cache.join("archives/partial");
        fs::create_dir_all(&partial).map_err(LabError::file(&partial))?;
        let own_cache = format!("Dir::Cache \"{}\";\n", cache.display());
        let with_system_lists = write_configuration(&work.join("system.conf"), &own_cache)?;
        with(&with_system_lists).or(newest)?;
    }
    Ok(work.join("apt/cache/archives"))
}

fn packages_in(archives: &Path) -> Result<Vec<PathBuf>, LabError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(archives).map_err(LabError::file(archives))? {
        let path = entry.map_err(LabError::file(archives))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn unpack_one(archive: &Path, root: &Path) -> Result<(), LabError> {
    // dpkg-deb -x would make directories of LINKS; no maintainer script runs either way.
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(LabError::file(archive))?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--directory"]).arg(root);
    tar.args(LEFT_OUT.iter().map(|pattern| format!("--exclude={pattern}")));
    tar.stdin(dpkg.stdout.take().map_or_else(Stdio::null, Stdio::from));
    let unpacked = tar.stdout(Stdio::null()).spawn();
    let deadline = std::time::Instant::now() + UNPACK_LIMIT;
    let mut tar = unpacked.map_err(LabError::file(archive))?;
    let ended = stock_xenstore::wait(&mut tar, deadline).map_err(LabError::file(archive))?;
    if ended.is_none() {
        // They may be gone already.
        let _ = tar.kill();
        let _ = dpkg.kill();
        let _ = tar.wait();
    }
    let read = dpkg.wait().map_err(LabError::file(archive))?;
    if read.success() && ended.is_some_and(|status| status.success()) {
        Ok(())
    } else {
        Err(LabError::Unpack { package: archive.to_owned() })
    }
}
