//! Where new files are to be.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{MemoryFormat, PlannedFile, SaveRefusal, SaveRequest, SpaceNeed};
use crate::{Located, Target, free_space};

/// All targets but those of disks.
#[derive(Debug, Default)]
pub(super) struct Targets {
    pub(super) memory: Option<Place>,
    pub(super) side: Option<Place>,
    pub(super) xenstore: Option<Place>,
    pub(super) journal: Option<PathBuf>,
}

/// Where something goes.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Name(PathBuf),
    Descriptor(Arc<OwnedFd>),
}

impl Place {
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Name(path) => Some(path),
            Self::Descriptor(_) => None,
        }
    }
}

/// Finds out where everything is to be, and what speaks against it.
#[derive(Default)]
pub(super) struct Locator {
    taken: BTreeSet<PathBuf>,
    pub(super) refusals: Vec<SaveRefusal>,
}

impl Locator {
    pub(super) fn locate_all(&mut self, request: &SaveRequest) -> Targets {
        let mut targets = Targets::default();
        if let Some(memory) = &request.memory {
            targets.memory = self.locate("memory", &memory.target, true);
            match (&memory.format, &targets.memory) {
                (
                    MemoryFormat::Mapped | MemoryFormat::Packed { .. },
                    Some(Place::Descriptor(_)),
                ) => {
                    self.refusals.push(SaveRefusal::NeedsName { what: "memory".into() });
                }
                (MemoryFormat::Stream { side_digest: Some(side) }, _) => {
                    targets.side = self.locate("side digest", side, true);
                }
                _ => {}
            }
        }
        if let Some(xenstore) = &request.xenstore {
            targets.xenstore = self.locate("xenstore", xenstore, true);
        }
        if let Some(journal) = &request.journal {
            targets.journal = match self.locate("journal", journal, true) {
                Some(Place::Name(path)) => Some(path),
                Some(Place::Descriptor(_)) => {
                    self.refusals.push(SaveRefusal::NeedsName { what: "journal".into() });
                    None
                }
                None => None,
            };
        }
        targets
    }

    /// `look` says whether it is looked here for what is there already; disks are looked at by who creates their files.
    pub(super) fn locate(&mut self, what: &str, target: &Target, look: bool) -> Option<Place> {
        let what = what.to_owned();
        match target.locate() {
            Ok(Located::Descriptor(descriptor)) => Some(Place::Descriptor(descriptor)),
            Ok(Located::Name(path)) if path.to_str().is_none() => {
                self.refusals.push(SaveRefusal::NotUtf8 { what, path });
                None
            }
            Ok(Located::Name(path)) => {
                if look {
                    self.refusals.extend(refusal(&what, &path));
                }
                if !self.taken.insert(known(&path)) {
                    self.refusals.push(SaveRefusal::TargetTwice { what, path: path.clone() });
                }
                Some(Place::Name(path))
            }
            Err(source) => {
                self.refusals.push(SaveRefusal::Target { what, source });
                None
            }
        }
    }
}

/// What speaks against creating a file there.
fn refusal(what: &str, path: &Path) -> Option<SaveRefusal> {
    let (what, path) = (what.to_owned(), path.to_owned());
    match path.symlink_metadata() {
        Ok(_) => Some(SaveRefusal::TargetExists { what, path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let source = match path.parent().map(Path::metadata) {
                Some(Ok(directory)) if directory.is_dir() => return None,
                Some(Err(source)) => source,
                _ => io::ErrorKind::NotADirectory.into(),
            };
            Some(SaveRefusal::TargetDirectory { what, path, source })
        }
        Err(source) => Some(SaveRefusal::TargetDirectory { what, path, source }),
    }
}

/// The same for two names of one place.
fn known(path: &Path) -> PathBuf {
    match (path.parent().map(Path::canonicalize), path.file_name()) {
        (Some(Ok(directory)), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

/// What the files need of each file system. What cannot be looked at is not in it: creating the file will tell.
pub(super) fn space(files: &[PlannedFile]) -> Vec<SpaceNeed> {
    let mut needs: BTreeMap<u64, SpaceNeed> = BTreeMap::new();
    for file in files {
        let Ok(free) = free_space(&file.path) else { continue };
        let path = file.path.clone();
        let need =
            needs.entry(free.dev).or_insert(SpaceNeed { path, needed: 0, free: free.octets });
        need.needed = need.needed.saturating_add(file.octets_needed);
    }
    needs.into_values().collect()
}
