//! Which of Xen's libraries are loaded.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::ffi::OpenFailure;

/// Releases of Xen whose libraries have the prototypes and structures that are used here. 4.17 is the one that the lab runs.
const KNOWN: std::ops::RangeInclusive<u8> = 16..=21;
/// The logger, which has had one version ever since.
const XENTOOLLOG: &str = "libxentoollog.so.1";

/// What libxl's soname begins with.
pub(crate) const LIBXL: &str = "libxenlight.so";
/// What libxenctrl's does.
pub(crate) const LIBXENCTRL: &str = "libxenctrl.so";

/// Where a library of Xen's is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LibraryAt {
    /// Where the loader finds that of the running Xen, by its soname.
    #[default]
    Host,
    /// This file, of whatever name. `libxentoollog.so.1` is looked for beside it, then where the loader finds it.
    File(PathBuf),
}

/// Why a library of Xen's cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// No Xen, or a guest of one.
    #[error("this is not the control domain of a Xen host: {}", missing.display())]
    NotAXenHost {
        /// What a control domain has.
        missing: Missing,
    },
    /// A Xen whose libraries are not known.
    #[error("Xen {version} runs here, and its libraries are not the known ones of 4.16 to 4.21")]
    UnknownVersion {
        /// As the kernel tells it.
        version: String,
    },
    /// It cannot be loaded.
    #[error("a library of Xen's cannot be loaded; looked for {}", tried.join(" and "))]
    NotFound {
        /// Names and paths that were given to the loader.
        tried: Vec<String>,
        /// What the loader said, last first.
        source: LoaderError,
    },
    /// It is another library, or of another version.
    #[error("{library} has no function {name}: it is not that of Xen 4.16 to 4.21")]
    MissingFunction {
        /// Which library.
        library: String,
        /// The function.
        name: &'static str,
    },
    /// It is of another version.
    #[error("{library} has a larger {name} than any known libxl")]
    UnknownStruct {
        /// Which library.
        library: String,
        /// The structure.
        name: &'static str,
    },
    /// It is there, and does not work.
    #[error("{library} does not work here")]
    Unusable {
        /// Which library.
        library: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl LoadError {
    pub(crate) fn unusable(
        library: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::Unusable { library, source: Box::new(source) }
    }

    /// What an administrator can do about it.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::NotAXenHost { .. } => "run it in the control domain of a Xen host",
            Self::NotFound { .. } => {
                "install the libraries of the running Xen: Debian's libxenmisc4.17, Fedora's xen-libs, Alpine's xen-libs"
            }
            Self::Unusable { .. } => "run it as root, with xenstored running",
            _ => "use a Domkeep that knows this version of Xen",
        }
    }
}

/// The dynamic loader's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoaderError(String);

/// What a control domain has and this system has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The kernel runs on no Xen.
    Hypervisor,
    /// It runs on Xen, in a guest.
    Control,
}

impl Missing {
    fn display(self) -> impl fmt::Display {
        match self {
            Self::Hypervisor => "/sys/hypervisor/type does not say xen",
            Self::Control => "neither /proc/xen/capabilities nor /dev/xen/xenbus_backend say so",
        }
    }
}

/// Whether this is the control domain of a Xen host.
fn look_for_host(root: &Path) -> Result<(), Missing> {
    let kind = fs::read_to_string(root.join("sys/hypervisor/type")).unwrap_or_default();
    if kind.trim() != "xen" {
        return Err(Missing::Hypervisor);
    }
    // The one needs a file system that is not mounted everywhere; the other, a device, is only made in the first domain.
    let capabilities = fs::read_to_string(root.join("proc/xen/capabilities")).unwrap_or_default();
    let controls =
        capabilities.contains("control_d") || root.join("dev/xen/xenbus_backend").exists();
    if controls { Ok(()) } else { Err(Missing::Control) }
}

/// The running Xen's version, `4.17`, if the kernel tells.
fn running_version(root: &Path) -> Option<(u8, u8)> {
    let number = |name: &str| {
        let text = fs::read_to_string(root.join("sys/hypervisor/version").join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some((number("major")?, number("minor")?))
}

/// The files that may be that library of this host, the likeliest first.
fn sonames(name: &str, root: &Path) -> Result<Vec<String>, LoadError> {
    let soname = |minor: u8| format!("{name}.4.{minor}");
    match running_version(root) {
        // Another release's library speaks another hypercall interface.
        Some((4, minor)) if KNOWN.contains(&minor) => Ok(vec![soname(minor)]),
        Some((major, minor)) => {
            Err(LoadError::UnknownVersion { version: format!("{major}.{minor}") })
        }
        None => Ok(KNOWN.rev().map(soname).collect()),
    }
}

/// Opens the library that is named so with `open`, which is given its file and that of the logger.
pub(crate) fn load<L>(
    name: &str,
    at: &LibraryAt,
    open: impl Fn(&Path, &Path) -> Result<L, OpenFailure>,
) -> Result<L, LoadError> {
    let host = Path::new("/");
    let candidates: Vec<(PathBuf, PathBuf)> = match at {
        LibraryAt::Host => {
            look_for_host(host).map_err(|missing| LoadError::NotAXenHost { missing })?;
            sonames(name, host)?.into_iter().map(|name| (name.into(), XENTOOLLOG.into())).collect()
        }
        LibraryAt::File(path) => {
            let beside = path.with_file_name(XENTOOLLOG);
            let log = if beside.exists() { beside } else { XENTOOLLOG.into() };
            vec![(path.clone(), log)]
        }
    };
    let (mut tried, mut last) = (Vec::new(), String::new());
    for (file, log) in candidates {
        let library = file.display().to_string();
        match open(&file, &log) {
            Ok(opened) => return Ok(opened),
            Err(OpenFailure::Load { library, problem }) => {
                tried.push(library.display().to_string());
                last = problem;
            }
            Err(OpenFailure::Function { name }) => {
                return Err(LoadError::MissingFunction { library, name });
            }
            Err(OpenFailure::Struct { name }) => {
                return Err(LoadError::UnknownStruct { library, name });
            }
        }
    }
    tried.dedup();
    Err(LoadError::NotFound { tried, source: LoaderError(last) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ffi::Library;

    fn host(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn a_guest_of_xen_is_not_taken_for_its_host() {
        let looked = |files: &[(&str, &str)]| look_for_host(host(files).path());
        assert_eq!(looked(&[]), Err(Missing::Hypervisor));
        assert_eq!(looked(&[("sys/hypervisor/type", "kvm\n")]), Err(Missing::Hypervisor));
        let xen = ("sys/hypervisor/type", "xen\n");
        assert_eq!(looked(&[xen]), Err(Missing::Control));
        assert_eq!(looked(&[xen, ("proc/xen/capabilities", "\n")]), Err(Missing::Control));
        assert_eq!(looked(&[xen, ("proc/xen/capabilities", "control_d\n")]), Ok(()));
        assert_eq!(looked(&[xen, ("dev/xen/xenbus_backend", "")]), Ok(()));
    }

    #[test]
    fn only_the_library_of_the_running_xen_is_looked_for() {
        let version = |minor: &str| {
            let host = host(&[
                ("sys/hypervisor/version/major", "4\n"),
                ("sys/hypervisor/version/minor", minor),
            ]);
            sonames(LIBXENCTRL, host.path())
        };
        assert_eq!(version("17\n").unwrap(), ["libxenctrl.so.4.17"]);
        assert!(
            matches!(version("15\n"), Err(LoadError::UnknownVersion { version }) if version == "4.15")
        );
        assert!(matches!(version("22\n"), Err(LoadError::UnknownVersion { .. })));
        assert_eq!(sonames(LIBXL, host(&[]).path()).unwrap().len(), 6);
    }

    fn libxl(file: &str) -> Result<(), LoadError> {
        load(LIBXL, &LibraryAt::File(file.into()), Library::open).map(|_| ())
    }

    #[test]
    fn a_missing_library_is_named_with_what_the_loader_said() {
        let error = libxl("/nowhere/libxenlight.so.4.17").unwrap_err();
        let LoadError::NotFound { tried, source } = &error else { panic!("{error}") };
        assert!(!tried.is_empty() && !source.to_string().is_empty(), "{error}");
        assert!(error.advice().contains("libxenmisc4.17"), "{}", error.advice());
    }

    #[test]
    fn a_library_that_is_not_libxl_is_refused_by_the_function_that_it_lacks() {
        let some = libxl("libc.so.6");
        // Without libxentoollog nothing is looked at further.
        assert!(matches!(
            some,
            Err(LoadError::NotFound { .. } | LoadError::MissingFunction { .. })
        ));
    }
}
