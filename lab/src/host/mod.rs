//! On the developer's machine: the host's image, its boots, and what they told.

mod archive;
mod boot;
mod image;
mod initramfs;
mod lab;
mod modules;
mod packages;
mod ring_module;

use std::io;
use std::path::{Path, PathBuf};

pub use image::Image;
pub use lab::Lab;

/// Why the lab cannot work here. A scenario that fails is none of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A program is missing, failed, or was too slow; or the network.
    #[error(transparent)]
    Unavailable(#[from] stock_xenstore::Unavailable),
    /// A file or directory cannot be made, read or written.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A package cannot be unpacked.
    #[error("cannot unpack {}", package.display())]
    Unpack {
        /// Its file.
        package: PathBuf,
    },
    /// The packages hold no kernel.
    #[error("Debian's packages hold no kernel")]
    NoKernel,
    /// The kernel lacks a module that the lab loads.
    #[error("Debian's kernel has no module {module}")]
    NoModule {
        /// Its name.
        module: String,
    },
    /// A program cannot run with the host's libraries.
    #[error(
        "{} cannot run on the lab's host, which is Debian 12 with glibc 2.36: build it on such a system ({reason})",
        program.display()
    )]
    Libraries {
        /// Which.
        program: PathBuf,
        /// As the dynamic linker put it.
        reason: String,
    },
    /// No scenario has that name.
    #[error("there is no scenario {name}; `cargo xtask lab list` names them")]
    NoScenario {
        /// What was asked for.
        name: String,
    },
}

impl LabError {
    fn file(path: &Path) -> impl FnOnce(io::Error) -> LabError {
        let path = path.to_owned();
        move |source| LabError::File { path, source }
    }
}
