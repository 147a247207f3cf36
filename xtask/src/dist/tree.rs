//! The tree of files that a package installs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::programs::gzip;
use super::{emptied, failed};
use crate::command::Failure;

/// A directory that becomes the package.
pub(super) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty one in this directory, whatever was there.
    pub(super) fn new(directory: &Path) -> Result<Self, Failure> {
        let root = emptied(directory.to_owned())?;
        mode(&root, 0o755)?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of the package is on this machine.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A file that anybody may read.
    pub(super) fn file(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        let path = self.made(name)?;
        fs::write(&path, octets).map_err(failed("write", &path))?;
        mode(&path, 0o644)
    }

    /// The same, compressed; the name gets its `.gz` here.
    pub(super) fn compressed(&self, name: &str, octets: &[u8]) -> Result<(), Failure> {
        self.file(&format!("{name}.gz"), &gzip(octets)?)
    }

    /// A copy of a file, which anybody may read.
    pub(super) fn copy(&self, name: &str, from: &Path) -> Result<(), Failure> {
        let path = self.made(name)?;
        fs::copy(from, &path).map_err(failed("copy", from))?;
        mode(&path, 0o644)
    }

    /// A copy of a program, which anybody may run.
    pub(super) fn program(&self, name: &str, from: &Path) -> Result<(), Failure> {
        self.copy(name, from)?;
        mode(&self.path(name), 0o755)
    }

    pub(super) fn link(&self, name: &str, target: &str) -> Result<(), Failure> {
        let path = self.made(name)?;
        symlink(target, &path).map_err(failed("link", &path))
    }

    /// The names of all files, sorted; neither directories nor links.
    pub(super) fn files(&self) -> Result<Vec<String>, Failure> {
        let mut files = Vec::new();
        let mut left = vec![self.root.clone()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).map_err(failed("read", &directory))? {
                let entry = entry.map_err(failed("read", &directory))?;
                let kind = entry.file_type().map_err(failed("look at", &entry.path()))?;
                if kind.is_dir() {
                    left.push(entry.path());
                } else if kind.is_file() {
                    let path = entry.path();
                    let name = path.strip_prefix(&self.root).unwrap_or(&path);
                    files.push(name.to_string_lossy().into_owned());
                }
            }
        }
        files.sort();
        Ok(files)
    }

    /// The path, with the directories above it made.
    fn made(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.root.join(name);
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.retain(|directory| directory.starts_with(&self.root));
        for directory in above.into_iter().rev() {
            if !directory.is_dir() {
                fs::create_dir(directory).map_err(failed("make", directory))?;
                mode(directory, 0o755)?;
            }
        }
        Ok(path)
    }
}

/// Whatever the umask is here.
fn mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed("chmod", path))
}
