//! The host's root file system and the programs around it, made once and kept.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use stock_xenstore::{lock, run};

use super::LabError;
use super::packages::{self, LEFT_OUT, PACKAGES};

/// All that a boot needs and that does not change between boots.
#[derive(Clone, Debug)]
pub struct Image {
    directory: PathBuf,
    /// Of Debian's kernel, such as `6.1.0-56-amd64`.
    kernel: String,
}

/// What maintainer scripts would have written, as far as the host needs it.
const FILES: &[(&str, &str)] = &[
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    (
        "etc/group",
        "root:x:0:\ntty:x:5:\ndisk:x:6:\nkmem:x:15:\ndialout:x:20:\ncdrom:x:24:\ntape:x:26:\naudio:x:29:\n\
         video:x:44:\nsgx:x:101:\nkvm:x:102:\ninput:x:103:\nrender:x:104:\nlp:x:7:\nnogroup:x:65534:\n",
    ),
    ("etc/hostname", "lab\n"),
    ("etc/hosts", "127.0.0.1 localhost lab\n"),
];
/// As [`FILES`]; links.
const LINKS: &[(&str, &str)] = &[
    ("usr/bin/awk", "gawk"),
    ("etc/mtab", "../proc/self/mounts"),
    ("var/run", "/run"),
    ("var/lock", "/run/lock"),
];

/// Of the root file system; a sparse file, and a boot's writes go elsewhere.
const IMAGE_SIZE: &str = "4G";
/// Changes when the code below makes something else of the same lists.
const FORMAT: &str = "1";
/// What a directory of the cache is called before it is finished.
pub(super) const UNFINISHED: &str = "unfinished-";
/// For depmod, mkfs and gunzip; mkfs copies 400 MB.
const LOCAL_LIMIT: Duration = Duration::from_mins(5);

impl Image {
    /// The image in the cache directory, made if it is not there. That needs apt-get, dpkg-deb, tar and a network, and
    /// takes a minute or two; no root.
    pub fn build(cache: &Path) -> Result<Image, LabError> {
        let cache = std::path::absolute(cache).map_err(LabError::file(cache))?;
        fs::create_dir_all(&cache).map_err(LabError::file(&cache))?;
        let directory = cache.join(key());
        if !directory.exists() {
            let _lock = lock(&cache.join("lock"))?;
            if !directory.exists() {
                make(&cache, &directory)?;
            }
        }
        let kernel = kernel(&directory.join("root"))?;
        Ok(Image { directory, kernel })
    }

    /// The unpacked packages, laid out like `/`.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// The file system image of dom0.
    pub(super) fn disk(&self) -> PathBuf {
        self.directory.join("root.img")
    }

    /// The hypervisor, as a multiboot file.
    pub(super) fn hypervisor(&self) -> PathBuf {
        self.directory.join("xen.elf")
    }

    /// Such as `6.1.0-56-amd64`.
    pub(super) fn kernel_version(&self) -> &str {
        &self.kernel
    }

    /// The kernel of dom0 and of the guests.
    pub(super) fn kernel(&self) -> PathBuf {
        self.root().join("boot").join(format!("vmlinuz-{}", self.kernel))
    }

    /// The kernel's modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.root().join("usr/lib/modules").join(&self.kernel)
    }

    /// The packages' shared libraries, libc among them.
    pub(super) fn libraries(&self) -> PathBuf {
        libraries(&self.root())
    }

    /// A program of the packages, with their libraries and not with this machine's.
    pub(super) fn program(&self, file: &str) -> Command {
        program(&self.root(), file, file)
    }

    /// The packages' dynamic linker, by which any program can be tried with their libraries.
    pub(super) fn loader(&self) -> Command {
        loader(&self.root())
    }
}

/// The name of an image is what it is made of. New packages of the same names make a new image only when this one is
/// deleted: a lab that changes by itself would be of no use.
fn key() -> String {
    let mut hasher = blake3::Hasher::new();
    let mut add = |text: &str| {
        hasher.update(text.as_bytes());
        hasher.update(b"\0");
    };
    add(FORMAT);
    add(IMAGE_SIZE);
    PACKAGES.iter().chain(LEFT_OUT).copied().for_each(&mut add);
    FILES.iter().chain(LINKS).flat_map(|(path, text)| [*path, *text]).for_each(&mut add);
    format!("image-{}", &hasher.finalize().to_hex()[..16])
}

fn make(cache: &Path, directory: &Path) -> Result<(), LabError> {
    println!("lab: making the host's image from Debian's packages (160 MB to download, once)");
    remove_unfinished(cache)?;
    let work = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(cache);
    let work = work.map_err(LabError::file(cache))?;
    let new = work.path().join("image");
    let root = new.join("root");
    fs::create_dir_all(&root).map_err(LabError::file(&root))?;
    let names = packages::unpack(work.path(), &root)?;
    let list = new.join("packages.txt");
    fs::write(&list, names.join("\n") + "\n").map_err(LabError::file(&list))?;
    write_files(&root)?;
    let depmod = ("usr/bin/kmod", "depmod");
    let mut depmod = program(&root, depmod.0, depmod.1);
    depmod.arg("-b").arg(&root).arg(kernel(&root)?);
    run(&mut depmod, "list the dependencies of kernel modules", LOCAL_LIMIT)?;
    gunzip(&root, &root.join("boot/xen-4.17-amd64.gz"), &new.join("xen.elf"))?;
    let mut mkfs = program(&root, "usr/sbin/mke2fs", "mke2fs");
    mkfs.args(["-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-d"]).arg(&root);
    mkfs.arg(new.join("root.img")).arg(IMAGE_SIZE);
    run(&mut mkfs, "make the host's file system", LOCAL_LIMIT)?;
    fs::rename(&new, directory).map_err(LabError::file(directory))
}

/// What a lab that was killed has left. The caller holds the lock, so nobody else is at it.
fn remove_unfinished(cache: &Path) -> Result<(), LabError> {
    for entry in fs::read_dir(cache).map_err(LabError::file(cache))? {
        let path = entry.map_err(LabError::file(cache))?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED)) {
            fs::remove_dir_all(&path).map_err(LabError::file(&path))?;
        }
    }
    Ok(())
}

fn write_files(root: &Path) -> Result<(), LabError> {
    for (path, text) in FILES {
        let path = root.join(path);
        fs::write(&path, text).map_err(LabError::file(&path))?;
    }
    for (path, target) in LINKS {
        let path = root.join(path);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).map_err(LabError::file(&path))?;
        }
        std::os::unix::fs::symlink(target, &path).map_err(LabError::file(&path))?;
    }
    Ok(())
}

fn gunzip(root: &Path, packed: &Path, to: &Path) -> Result<(), LabError> {
    let output = fs::File::create(to).map_err(LabError::file(to))?;
    let mut gunzip = Command::new(root.join("usr/bin/busybox"));
    gunzip.args(["gunzip", "-c"]).arg(packed).stdout(output);
    let status = gunzip.status().map_err(LabError::file(packed))?;
    if status.success() { Ok(()) } else { Err(LabError::Unpack { package: packed.to_owned() }) }
}

/// The version of the one kernel in the packages.
fn kernel(root: &Path) -> Result<String, LabError> {
    let boot = root.join("boot");
    for entry in fs::read_dir(&boot).map_err(LabError::file(&boot))? {
        let name = entry.map_err(LabError::file(&boot))?.file_name();
        if let Some(version) = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-")) {
            return Ok(version.to_owned());
        }
    }
    Err(LabError::NoKernel)
}

fn libraries(root: &Path) -> PathBuf {
    root.join("usr/lib/x86_64-linux-gnu")
}

fn loader(root: &Path) -> Command {
    let libraries = libraries(root);
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(libraries);
    command
}

fn program(root: &Path, file: &str, called: &str) -> Command {
    let mut command = loader(root);
    command.arg("--argv0").arg(called).arg(root.join(file));
    command
}
