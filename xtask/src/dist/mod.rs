//! `cargo xtask dist`: a Debian package of everything that is installed.
//!
//! It is put together here and handed to `dpkg-deb`, which every Debian has: it sorts, clamps times to `SOURCE_DATE_EPOCH` and
//! makes the archive; `dpkg-shlibdeps` says what the binaries need. The other ways were looked at. `cargo deb` is a program to
//! install first, writes the archive by code of its own, and knows neither a C library with its links nor a second build to
//! compare with. debhelper is there for source packages: it would build by `debian/rules` what cargo builds, and needs some fifty
//! packages on the machine that does it.

mod build;
mod copyright;
mod install;
mod package;
mod programs;
mod release;
mod reproduce;
mod root;
mod tree;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::{Failure, root};
use build::Build;
use programs::{Program, answer, need};
use release::Release;

/// What is done beside making the package.
#[derive(Args)]
pub(crate) struct Options {
    /// Build it once more, from a copy of the sources at another path, and compare the two octet for octet.
    #[arg(long)]
    check_reproducible: bool,
    /// Install it in a clean Debian 12 root, run what is in it there, remove it, and see what lintian says; needs root.
    #[arg(long)]
    install_check: bool,
    /// Take the package that is there already.
    #[arg(long, requires = "install_check", conflicts_with = "check_reproducible")]
    no_build: bool,
}

/// What making a package takes, beside cargo.
const PACKING: [Program; 5] = [
    Program { name: "dpkg-deb", package: "dpkg" },
    Program { name: "dpkg-shlibdeps", package: "dpkg-dev" },
    Program { name: "strip", package: "binutils" },
    Program { name: "gzip", package: "gzip" },
    Program { name: "sha256sum", package: "coreutils" },
];

/// Tells the date of the last commit, and which files are sources.
const GIT: Program = Program { name: "git", package: "git" };

/// Makes the package, and checks it as asked for.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    need(&PACKING)?;
    if options.check_reproducible || std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
        need(&[GIT])?;
    }
    if options.install_check {
        install::need_programs()?;
    }
    let release = Release::of_sources(&root())?;
    let place = Places::in_target(&root());
    let package = place.packages.join(release.file_name());
    if !options.no_build {
        let build = Build { source: root(), target: place.first.clone() };
        package::make(&build, &release, &place.packages.join("tree"), &package)?;
    }
    println!("{}", told(&package)?);
    if options.check_reproducible {
        reproduce::check(&release, &place, &package)?;
    }
    if options.install_check {
        install::check(&release, &place, &package)?;
    }
    Ok(())
}

/// Where all of this is made.
struct Places {
    /// The target directory of the package that is handed out.
    first: PathBuf,
    /// That of the second build.
    second: PathBuf,
    /// The copy of the sources that is built there.
    copy: PathBuf,
    /// Packages, the trees that they are made from, and roots to install them in.
    packages: PathBuf,
}

impl Places {
    fn in_target(root: &Path) -> Self {
        let target = root.join("target");
        Self {
            first: target.join("dist-a"),
            second: target.join("dist-b"),
            copy: target.join("dist-b-sources"),
            packages: target.join("debian"),
        }
    }
}

/// The digest, size and path of a package.
fn told(package: &Path) -> Result<String, Failure> {
    let size = std::fs::metadata(package)
        .map_err(|error| format!("cannot find {}: {error}", package.display()))?
        .len();
    Ok(format!("sha256 {}  {size} octets  {}", sha256(package)?, package.display()))
}

fn sha256(file: &Path) -> Result<String, Failure> {
    let line = answer(programs::command("sha256sum", &[file.as_os_str()]))?;
    Ok(line.split_whitespace().next().unwrap_or_default().to_owned())
}

/// A failure of the file system, with the path.
fn failed<'p>(
    action: &'static str,
    path: &'p Path,
) -> impl FnOnce(std::io::Error) -> Failure + use<'p> {
    move |error| format!("cannot {action} {}: {error}", path.display())
}

/// An empty directory, whatever was there.
fn emptied(directory: PathBuf) -> Result<PathBuf, Failure> {
    match std::fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(failed("remove", &directory)(error));
        }
        _ => {}
    }
    std::fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    Ok(directory)
}
