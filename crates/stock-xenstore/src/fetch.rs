//! Filling the cache: download, unpack, build the stand-in hypervisor.
//!
//! In the cache directory a name other than the lock's exists only once what it names is finished (made under a
//! temporary name, then renamed). Nothing is synced: after a power cut, `cargo clean` is the remedy.

use std::ffi::OsStr;
use std::fs::{self, File, TryLockError};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::apt::{DOWNLOAD_LIMIT, own_lists, write_configuration};
use crate::commands::run;
use crate::{Packages, Tools, Unavailable};

/// The packages that the daemons and tools need: their own, and shared libraries that a Debian system may lack. The
/// rest (libc, zlib, liblzma, libzstd) apt and dpkg themselves depend on.
const PACKAGES: [&str; 13] = [
    "xen-utils-4.17",
    "xenstore-utils",
    "libxenstore4",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17", // libxenctrl, libxenguest
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2", // for xl
];

/// The directory of the unpacked packages. The number grows with a change to [`PACKAGES`].
const UNPACKED: &str = "debian-1";
/// In it, laid out like `/`, what the packages hold.
const ROOT: &str = "root";
/// In it, the version of xen-utils.
const VERSION: &str = "version";

/// Programs that must be able to start.
const PROGRAMS: [&str; 5] = [
    "usr/lib/xen-4.17/bin/xenstored",
    "usr/lib/xen-4.17/bin/oxenstored",
    "usr/lib/xen-4.17/bin/test-xenstore",
    "usr/lib/xen-4.17/bin/xenstore-control",
    "usr/bin/xenstore-ls",
];

const STAND_IN_SOURCE: &str = include_str!("../stand-in/hypervisor.c");

/// For one run of dpkg-deb or cc: it takes well under a second on an idle machine.
const LOCAL_LIMIT: Duration = Duration::from_mins(1);
/// For another process's fetch: more than three runs of apt-get and the rest take.
const LOCK_LIMIT: Duration = Duration::from_mins(12);
const LOCK_RETRY: Duration = Duration::from_millis(50);

const TO_DOWNLOAD: &str = "download Debian's Xen packages";
const TO_UNPACK: &str = "unpack Debian's Xen packages";
const TO_COMPILE: &str = "compile the stand-in hypervisor";
const TO_LINK: &str = "list the shared libraries that it needs";

pub(crate) fn fetch(cache: &Path, tools: &Tools) -> Result<Packages, Unavailable> {
    // Absolute, because the programs run in other directories.
    let cache = std::path::absolute(cache).map_err(in_cache(cache))?;
    if let Some(packages) = finished(&cache)? {
        return Ok(packages);
    }
    fs::create_dir_all(&cache).map_err(in_cache(&cache))?;
    let _lock = lock(&cache.join("lock"))?;
    if let Some(packages) = finished(&cache)? {
        return Ok(packages);
    }
    unpack_packages(&cache, tools)?;
    build_stand_in(&cache, tools)?;
    finished(&cache)?.ok_or(Unavailable::FileMissing { file: ROOT })
}

/// What the cache holds, if that is everything.
fn finished(cache: &Path) -> Result<Option<Packages>, Unavailable> {
    let unpacked = cache.join(UNPACKED);
    let stand_in = cache.join(stand_in_name());
    if !stand_in.exists() || !unpacked.exists() {
        return Ok(None);
    }
    let version_file = unpacked.join(VERSION);
    let version = fs::read_to_string(&version_file).map_err(in_cache(&version_file))?;
    let root = unpacked.join(ROOT);
    let libraries = library_directory(&root)?;
    Ok(Some(Packages { root, libraries, stand_in, version }))
}

/// Takes the lock `path` of a cache, which ends with the file. Waits as long as another process's fetch may take.
///
/// The kernel would wait without a deadline only, so this asks again and again.
pub fn lock(path: &Path) -> Result<File, Unavailable> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(in_cache(path))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(in_cache(path)(source)),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(Unavailable::Locked { path: path.into(), limit: LOCK_LIMIT });
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_RETRY),
        }
    }
}

fn unpack_packages(cache: &Path, tools: &Tools) -> Result<(), Unavailable> {
    let unpacked = cache.join(UNPACKED);
    if unpacked.exists() {
        return Ok(());
    }
    // Before anything is downloaded, for a quick answer that names what is missing.
    for (tool, needed_to) in
        [(&tools.apt_get, TO_DOWNLOAD), (&tools.dpkg_deb, TO_UNPACK), (&tools.cc, TO_COMPILE)]
    {
        run(Command::new(tool).arg("--version"), needed_to, LOCAL_LIMIT)?;
    }
    let work = tempfile::Builder::new().prefix("unfinished-").tempdir_in(cache);
    let work = work.map_err(in_cache(cache))?;
    let downloads = download(work.path(), tools)?;

    let new = work.path().join(UNPACKED);
    let root = new.join(ROOT);
    fs::create_dir_all(&root).map_err(in_cache(&root))?;
    let mut version = None;
    for entry in fs::read_dir(&downloads).map_err(in_cache(&downloads))? {
        let package = entry.map_err(in_cache(&downloads))?.path();
        if package.extension() != Some(OsStr::new("deb")) {
            continue;
        }
        version = version.or_else(|| xen_utils_version(&package));
        run(
            Command::new(&tools.dpkg_deb).arg("-x").arg(&package).arg(&root),
            TO_UNPACK,
            LOCAL_LIMIT,
        )?;
    }
    let version = version.ok_or(Unavailable::FileMissing { file: PROGRAMS[0] })?;
    let version_file = new.join(VERSION);
    fs::write(&version_file, version).map_err(in_cache(&version_file))?;
    check_programs(&root)?;
    fs::rename(&new, &unpacked).map_err(in_cache(&unpacked))
}

/// Downloads [`PACKAGES`] below `work` and tells the directory that they are in.
fn download(work: &Path, tools: &Tools) -> Result<PathBuf, Unavailable> {
    let downloads = work.join("packages");
    fs::create_dir(&downloads).map_err(in_cache(&downloads))?;
    let download = |configuration: &Path| {
        let mut apt_get = Command::new(&tools.apt_get);
        apt_get.arg("-c").arg(configuration).arg("download").args(PACKAGES);
        run(apt_get.current_dir(&downloads), TO_DOWNLOAD, DOWNLOAD_LIMIT)
    };
    // The system's lists may be of another year, in which the daemons had bugs that are mended since, and are not ours to
    // update. Where the newest lists cannot be had, they are better than nothing.
    let newest = own_lists(work, &tools.apt_get).and_then(|own| download(&own));
    if newest.is_err() {
        let with_system_lists = write_configuration(&work.join("system.conf"), "")?;
        download(&with_system_lists).or(newest)?;
    }
    Ok(downloads)
}

/// From a name such as `xen-utils-4.17_4.17.5+72-g01140da4e8-1_amd64.deb`.
fn xen_utils_version(package: &Path) -> Option<String> {
    let mut parts = package.file_name()?.to_str()?.split('_');
    (parts.next()? == PACKAGES[0]).then(|| parts.next().map(str::to_owned))?
}

/// Checks that [`PROGRAMS`] are there with all their shared libraries.
fn check_programs(root: &Path) -> Result<(), Unavailable> {
    let libraries = library_directory(root)?;
    for program in PROGRAMS {
        let tool = root.join(program);
        if !tool.exists() {
            return Err(Unavailable::FileMissing { file: program });
        }
        // With this set, the dynamic linker lists the libraries and the program itself does not run.
        let output = Command::new(&tool)
            .env("LD_TRACE_LOADED_OBJECTS", "1")
            .env("LD_LIBRARY_PATH", &libraries)
            .output()
            .map_err(|source| Unavailable::ToolNotStarted { tool, needed_to: TO_LINK, source })?;
        let listed = String::from_utf8_lossy(&output.stdout);
        let missing = listed.lines().find_map(|line| line.trim().strip_suffix(" => not found"));
        if let Some(library) = missing {
            return Err(Unavailable::LibraryMissing { program, library: library.to_owned() });
        }
    }
    Ok(())
}

/// The directory of shared libraries, whose name holds the machine's architecture.
fn library_directory(root: &Path) -> Result<PathBuf, Unavailable> {
    const LIBRARY: &str = "usr/lib/*/libxenstore.so.4";
    let all = root.join("usr/lib");
    for entry in fs::read_dir(&all).map_err(in_cache(&all))? {
        let directory = entry.map_err(in_cache(&all))?.path();
        if directory.join("libxenstore.so.4").exists() {
            return Ok(directory);
        }
    }
    Err(Unavailable::FileMissing { file: LIBRARY })
}

fn build_stand_in(cache: &Path, tools: &Tools) -> Result<(), Unavailable> {
    let library = cache.join(stand_in_name());
    if library.exists() {
        return Ok(());
    }
    let work = tempfile::Builder::new().prefix("unfinished-").tempdir_in(cache);
    let work = work.map_err(in_cache(cache))?;
    let source = work.path().join("hypervisor.c");
    fs::write(&source, STAND_IN_SOURCE).map_err(in_cache(&source))?;
    let new = work.path().join("hypervisor.so");
    run(
        Command::new(&tools.cc)
            .args(["-shared", "-fPIC", "-O2", "-fvisibility=hidden", "-o"])
            .arg(&new)
            .arg(&source)
            .arg("-ldl"),
        TO_COMPILE,
        LOCAL_LIMIT,
    )?;
    fs::rename(&new, &library).map_err(in_cache(&library))
}

/// Different for every source, so that a cache serves any state of the workspace.
fn stand_in_name() -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(STAND_IN_SOURCE.as_bytes());
    format!("stand-in-{:016x}.so", hasher.finish())
}

pub(crate) fn in_cache(path: &Path) -> impl FnOnce(io::Error) -> Unavailable {
    let path = path.to_owned();
    move |source| Unavailable::Cache { path, source }
}
