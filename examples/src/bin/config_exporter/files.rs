//! The directory of configurations.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use libxl_config::DomainConfig;
use tempfile::NamedTempFile;
use uuid::Uuid;
use xsclient::DomId;

/// Where files go whose domain is gone.
const GONE: &str = "gone";

/// What a file may be called behind its stem.
const ENDINGS: [&str; 4] = [".json", ".report.json", ".partial.json", ".partial.report.json"];

/// NAME-UUID: what the files of a domain are called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stem {
    text: String,
    is_certain: bool,
}

impl Stem {
    /// A name may hold what no name of a file does; the uuid tells names apart that look alike then.
    pub(crate) fn of(domid: DomId, config: &DomainConfig) -> Self {
        let name = config.c_info.name.clone().unwrap_or_else(|| format!("domain-{domid}"));
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let name: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        // Shorter than what a file system takes, whatever the name.
        let name = &name[..name.len().min(128)];
        let uuid = config.c_info.uuid;
        // Domain 0 has that uuid; with another one nobody knows whose files it would be.
        let is_certain = !uuid.is_nil() || domid == DomId::DOM0;
        Self { text: format!("{}-{uuid}", name.trim_start_matches('.')), is_certain }
    }

    /// Whether it is known who this is.
    pub(crate) fn is_certain(&self) -> bool {
        self.is_certain
    }
}

impl fmt::Display for Stem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Files that are complete or not there.
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let place = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", directory.display()))
        };
        let gone = directory.join(GONE);
        // Not the directory itself: if a disk is not mounted, nothing is written where it would be.
        if !gone.is_dir() {
            fs::create_dir(&gone).map_err(place)?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// Keeps a configuration and its report; `true` if it is another than before.
    ///
    /// What is not the whole truth has a name of its own, so that it takes the place of nothing that is.
    pub(crate) fn keep(
        &self,
        stem: &Stem,
        is_whole: bool,
        configuration: &[u8],
        report: &[u8],
    ) -> io::Result<bool> {
        let part = if is_whole { "" } else { ".partial" };
        // The report first: a configuration without one would be taken for better than it is.
        self.write(&format!("{stem}{part}.report.json"), report)?;
        let is_new = self.write(&format!("{stem}{part}.json"), configuration)?;
        if is_whole {
            for ending in &ENDINGS[2..] {
                match fs::remove_file(self.directory.join(format!("{stem}{ending}"))) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(is_new)
    }

    fn write(&self, name: &str, octets: &[u8]) -> io::Result<bool> {
        let path = self.directory.join(name);
        if fs::read(&path).is_ok_and(|there| there == octets) {
            return Ok(false);
        }
        // Readable by its owner only: a configuration may hold a VNC password.
        let mut file = NamedTempFile::new_in(&self.directory)?;
        file.write_all(octets)?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }

    /// Moves what belongs to none of these domains out of the way, and gives the names. A later file of the same name replaces an
    /// earlier one there: the last that was known of the domain.
    pub(crate) fn move_gone(&self, stems: &BTreeSet<Stem>) -> io::Result<Vec<String>> {
        let mut moved = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let Some(stem) = stem_of(&name) else { continue };
            if !stems.iter().any(|known| known.text == stem) {
                fs::rename(self.directory.join(&name), self.directory.join(GONE).join(&name))?;
                moved.push(name);
            }
        }
        moved.sort();
        Ok(moved)
    }
}

/// The stem of a file that this program has written; other files are left alone.
fn stem_of(name: &str) -> Option<&str> {
    let stem = ENDINGS.into_iter().rev().find_map(|ending| name.strip_suffix(ending))?;
    let uuid = stem.get(stem.len().checked_sub(37)?..)?.strip_prefix('-')?;
    uuid.parse::<Uuid>().ok().map(|_| stem)
}
