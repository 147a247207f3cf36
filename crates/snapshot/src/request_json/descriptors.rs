//! Paths and descriptors in JSON.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::RequestError;
use crate::Target;
use crate::restore::Source;

/// Where something new is to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Place", into = "Place")]
pub(super) enum TargetWire {
    Path(String),
    InDirectory { directory_fd: usize, name: String },
    Fd(usize),
}

/// Where something is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "Place", into = "Place")]
pub(super) enum SourceWire {
    Path(String),
    Fd(usize),
}

/// The fields of either.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Place {
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    directory_fd: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<usize>,
}

impl TryFrom<Place> for TargetWire {
    type Error = &'static str;

    fn try_from(place: Place) -> Result<Self, Self::Error> {
        match place {
            Place { path: Some(path), directory_fd: None, name: None, fd: None } => {
                Ok(Self::Path(path))
            }
            Place { path: None, directory_fd: Some(directory_fd), name: Some(name), fd: None } => {
                Ok(Self::InDirectory { directory_fd, name })
            }
            Place { path: None, directory_fd: None, name: None, fd: Some(fd) } => Ok(Self::Fd(fd)),
            _ => Err("say one of `path`, `directory_fd` with `name`, and `fd`"),
        }
    }
}

impl TryFrom<Place> for SourceWire {
    type Error = &'static str;

    fn try_from(place: Place) -> Result<Self, Self::Error> {
        match place {
            Place { path: Some(path), directory_fd: None, name: None, fd: None } => {
                Ok(Self::Path(path))
            }
            Place { path: None, directory_fd: None, name: None, fd: Some(fd) } => Ok(Self::Fd(fd)),
            _ => Err("say one of `path` and `fd`"),
        }
    }
}

impl From<TargetWire> for Place {
    fn from(target: TargetWire) -> Self {
        match target {
            TargetWire::Path(path) => Self { path: Some(path), ..Self::default() },
            TargetWire::InDirectory { directory_fd, name } => {
                Self { directory_fd: Some(directory_fd), name: Some(name), ..Self::default() }
            }
            TargetWire::Fd(fd) => Self { fd: Some(fd), ..Self::default() },
        }
    }
}

impl From<SourceWire> for Place {
    fn from(source: SourceWire) -> Self {
        match source {
            SourceWire::Path(path) => Self { path: Some(path), ..Self::default() },
            SourceWire::Fd(fd) => Self { fd: Some(fd), ..Self::default() },
        }
    }
}

/// The descriptors that were passed beside a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a>(pub(super) &'a [Arc<OwnedFd>]);

impl Given<'_> {
    pub(super) fn target(&self, wire: TargetWire, at: &str) -> Result<Target, RequestError> {
        Ok(match wire {
            TargetWire::Path(path) => Target::Path(path.into()),
            TargetWire::InDirectory { directory_fd, name } => Target::InDirectory {
                directory: self.descriptor(directory_fd, &format!("{at}.directory_fd"))?,
                name: name.into(),
            },
            TargetWire::Fd(fd) => Target::Descriptor(self.descriptor(fd, &format!("{at}.fd"))?),
        })
    }

    pub(super) fn source(&self, wire: SourceWire, at: &str) -> Result<Source, RequestError> {
        Ok(match wire {
            SourceWire::Path(path) => Source::Path(path.into()),
            SourceWire::Fd(fd) => Source::Descriptor(self.descriptor(fd, &format!("{at}.fd"))?),
        })
    }

    fn descriptor(&self, index: usize, at: &str) -> Result<Arc<OwnedFd>, RequestError> {
        let given = self.0.len();
        let found = self.0.get(index).cloned();
        found.ok_or_else(|| RequestError::NoDescriptor { at: at.to_owned(), index, given })
    }
}

/// The descriptors of a request that is being written, each once.
#[derive(Debug, Default)]
pub(super) struct Collected(pub(super) Vec<Arc<OwnedFd>>);

impl Collected {
    pub(super) fn target(&mut self, target: &Target, at: &str) -> Result<TargetWire, RequestError> {
        Ok(match target {
            Target::Path(path) => TargetWire::Path(path_text(path, at)?),
            Target::InDirectory { directory, name } => TargetWire::InDirectory {
                directory_fd: self.index(directory),
                name: text(name, &format!("{at}.name"))?,
            },
            Target::Descriptor(descriptor) => TargetWire::Fd(self.index(descriptor)),
        })
    }

    pub(super) fn source(&mut self, source: &Source, at: &str) -> Result<SourceWire, RequestError> {
        Ok(match source {
            Source::Path(path) => SourceWire::Path(path_text(path, at)?),
            Source::Descriptor(descriptor) => SourceWire::Fd(self.index(descriptor)),
        })
    }

    fn index(&mut self, descriptor: &Arc<OwnedFd>) -> usize {
        let known = self.0.iter().position(|known| Arc::ptr_eq(known, descriptor));
        known.unwrap_or_else(|| {
            self.0.push(Arc::clone(descriptor));
            self.0.len() - 1
        })
    }
}

pub(super) fn path_text(path: &Path, at: &str) -> Result<String, RequestError> {
    text(path.as_os_str(), at)
}

fn text(name: &OsStr, at: &str) -> Result<String, RequestError> {
    let not_text = || RequestError::NotText { at: at.to_owned(), path: PathBuf::from(name) };
    name.to_str().map(str::to_owned).ok_or_else(not_text)
}
