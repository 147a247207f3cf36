//! The file that says between which companies a Chinese wall stands.

use std::fs;
use std::io;
use std::path::{Path as FilePath, PathBuf};

use serde::Deserialize;
use xenstored::{ChineseWall, Company, ConflictClass, WallError};
use xsclient::{DomId, Path, PathError};

/// Why there is no wall.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WallFileError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// It is not a list of classes.
    #[error("{} is no list of classes of companies", path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
    /// The companies are in each other's way.
    #[error("{} describes no wall", path.display())]
    Wall { path: PathBuf, source: WallError },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassEntry {
    name: String,
    companies: Vec<CompanyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CompanyEntry {
    name: String,
    #[serde(default)]
    paths: Vec<PathEntry>,
    #[serde(default)]
    domains: Vec<u16>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct PathEntry(Path);

impl TryFrom<String> for PathEntry {
    type Error = PathError;

    fn try_from(text: String) -> Result<Self, PathError> {
        text.parse().map(Self)
    }
}

impl From<ClassEntry> for ConflictClass {
    fn from(class: ClassEntry) -> Self {
        let company = |company: CompanyEntry| Company {
            name: company.name,
            paths: company.paths.into_iter().map(|PathEntry(path)| path).collect(),
            domains: company.domains.into_iter().map(DomId::new).collect(),
        };
        Self { name: class.name, companies: class.companies.into_iter().map(company).collect() }
    }
}

/// The wall on top of the standard model that a file describes.
pub(crate) fn read(file: &FilePath) -> Result<ChineseWall, WallFileError> {
    let path = || file.to_owned();
    let text = fs::read(file).map_err(|source| WallFileError::Read { path: path(), source })?;
    let classes: Vec<ClassEntry> = serde_json::from_slice(&text)
        .map_err(|source| WallFileError::Malformed { path: path(), source })?;
    let classes: Vec<_> = classes.into_iter().map(ConflictClass::from).collect();
    ChineseWall::new(&classes).map_err(|source| WallFileError::Wall { path: path(), source })
}
