//! The unpacked packages, and the command line tools in them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::{Unavailable, fetch};

/// Debian's Xen 4.17 packages, unpacked, and the stand-in hypervisor, built.
#[derive(Clone, Debug)]
pub struct Packages {
    pub(crate) root: PathBuf,
    pub(crate) libraries: PathBuf,
    pub(crate) stand_in: PathBuf,
    pub(crate) version: String,
}

/// The programs that [`Packages::fetch`] runs.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Downloads packages.
    pub apt_get: PathBuf,
    /// Unpacks packages.
    pub dpkg_deb: PathBuf,
    /// Compiles the stand-in hypervisor.
    pub cc: PathBuf,
}

/// A stock command line tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Client {
    /// `xenstore-chmod`
    Chmod,
    /// `xenstore-control`
    Control,
    /// `xenstore-exists`
    Exists,
    /// `xenstore-list`
    List,
    /// `xenstore-ls`
    Ls,
    /// `xenstore-read`
    Read,
    /// `xenstore-rm`
    Rm,
    /// `test-xenstore`, the upstream test and micro-benchmark.
    Test,
    /// `xenstore-watch`
    Watch,
    /// `xenstore-write`
    Write,
}

impl Packages {
    /// The packages in the cache `directory`, which is filled first if it must be: that needs apt-get, dpkg-deb, a C
    /// compiler and a network, and takes seconds. Callers in any number of processes may ask at once.
    pub fn fetch(directory: &Path) -> Result<Packages, Unavailable> {
        Packages::fetch_with(directory, &Tools::default())
    }

    /// As [`Packages::fetch`], with other programs than those in `PATH`.
    pub fn fetch_with(directory: &Path, tools: &Tools) -> Result<Packages, Unavailable> {
        fetch::fetch(directory, tools)
    }

    /// The packages in `stock-xenstore` below this workspace's target directory (`CARGO_TARGET_DIR`, or `target`), as
    /// [`Packages::fetch`] has them, once per process.
    pub fn of_workspace() -> Result<&'static Packages, &'static Unavailable> {
        static PACKAGES: OnceLock<Result<Packages, Unavailable>> = OnceLock::new();
        let fetch = || {
            let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
            Packages::fetch(&workspace().join(target).join("stock-xenstore"))
        };
        PACKAGES.get_or_init(fetch).as_ref()
    }

    /// The version of the package xen-utils, such as `4.17.7+13-g2445b30a44-0+deb12u1`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The directory that the packages are unpacked in, laid out like `/`.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directory of the packages' shared libraries.
    pub fn libraries(&self) -> &Path {
        &self.libraries
    }

    /// The stand-in hypervisor, for `LD_PRELOAD`.
    pub fn stand_in(&self) -> &Path {
        &self.stand_in
    }

    /// The tool's file.
    pub fn client_program(&self, client: Client) -> PathBuf {
        self.root.join(client.file())
    }

    /// The tool, ready to talk to the Xenstore at `socket`, stock or not.
    pub fn client(&self, client: Client, socket: &Path) -> Command {
        let mut command = self.command(client.file());
        command.env("XENSTORED_PATH", socket);
        command
    }

    /// A program of the packages, given below their root.
    pub(crate) fn command(&self, file: &'static str) -> Command {
        let mut command = Command::new(self.root.join(file));
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }
}

impl Default for Tools {
    fn default() -> Tools {
        Tools { apt_get: "apt-get".into(), dpkg_deb: "dpkg-deb".into(), cc: "cc".into() }
    }
}

impl Client {
    /// Below the packages' root.
    fn file(self) -> &'static str {
        match self {
            Client::Chmod => "usr/bin/xenstore-chmod",
            // The one in usr/bin is a script that looks for a running hypervisor.
            Client::Control => "usr/lib/xen-4.17/bin/xenstore-control",
            Client::Exists => "usr/bin/xenstore-exists",
            Client::List => "usr/bin/xenstore-list",
            Client::Ls => "usr/bin/xenstore-ls",
            Client::Read => "usr/bin/xenstore-read",
            Client::Rm => "usr/bin/xenstore-rm",
            Client::Test => "usr/lib/xen-4.17/bin/test-xenstore",
            Client::Watch => "usr/bin/xenstore-watch",
            Client::Write => "usr/bin/xenstore-write",
        }
    }
}

fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).unwrap_or(manifest)
}
