//! Restore requests in JSON.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::descriptors::{Collected, Given, SourceWire, TargetWire, path_text};
use super::policy::PolicyWire;
use super::save::DomainWire;
use super::{RequestError, once, parse, print};
use crate::Snapshot;
use crate::disk::image::ImageFormat;
use crate::restore::{
    Depth, DiskRestore, GenerationId, NewIdentity, NicChange, RestoreDeadlines, RestoreMode,
    RestoreRequest, Start,
};
use crate::save::Durability;

impl RestoreRequest {
    /// Reads a request; `fds` are the descriptors that it has the indexes of.
    ///
    /// # Errors
    ///
    /// Where in the JSON what is wrong, and what to do.
    pub fn from_json(text: &str, fds: &[Arc<OwnedFd>]) -> Result<Self, RequestError> {
        parse::<RestoreWire>(text)?.into_request(Given(fds))
    }

    /// The request as JSON, and the descriptors that it has the indexes of.
    ///
    /// # Errors
    ///
    /// If a path or name is not UTF-8.
    pub fn to_json(&self) -> Result<(String, Vec<Arc<OwnedFd>>), RequestError> {
        let mut fds = Collected::default();
        let text = print(&RestoreWire::of(self, &mut fds)?)?;
        Ok((text, fds.0))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestoreWire {
    /// The manifest as a string, so that its digest holds.
    snapshot: String,
    #[serde(default)]
    memory: Option<SourceWire>,
    #[serde(default)]
    xenstore: Option<SourceWire>,
    #[serde(default)]
    mode: ModeWire,
    #[serde(default)]
    identity: NewIdentity,
    #[serde(default, deserialize_with = "once::deserialize")]
    nics: BTreeMap<u32, NicWire>,
    #[serde(default, deserialize_with = "once::deserialize")]
    disks: BTreeMap<String, DiskWire>,
    /// Absent, it is the cooperative one; `null` is none.
    #[serde(default = "cooperative")]
    policy: Option<PolicyWire>,
    #[serde(default)]
    generation_id: GenerationId,
    #[serde(default)]
    start: Start,
    #[serde(default)]
    verify: Depth,
    #[serde(default)]
    durability: Durability,
    #[serde(default)]
    deadlines: RestoreDeadlines,
    #[serde(default)]
    journal: Option<TargetWire>,
}

#[expect(clippy::unnecessary_wraps, reason = "it is the default of an optional field")]
fn cooperative() -> Option<PolicyWire> {
    Some(PolicyWire::Cooperative)
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ModeWire {
    #[default]
    New,
    Replace {
        domain: DomainWire,
        #[serde(default)]
        free_first: bool,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NicWire {
    mac: Option<Mac>,
    bridge: Option<String>,
}

/// `00:16:3e:12:34:56`.
#[derive(Clone, Copy, Debug)]
struct Mac([u8; 6]);

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let octets = self.0.map(|octet| format!("{octet:02x}"));
        octets.join(":").serialize(to)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let octet = |digits: &str| {
            let plain = digits.len() == 2 && digits.bytes().all(|it| it.is_ascii_hexdigit());
            plain.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        let octets: Option<Vec<u8>> = text.split(':').map(octet).collect();
        octets.and_then(|octets| octets.try_into().ok()).map(Self).ok_or_else(|| {
            de::Error::custom(format_args!("{text:?} is no address as 00:16:3e:12:34:56"))
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum DiskWire {
    FrozenReadOnly,
    NewOverlay {
        overlay: TargetWire,
    },
    AdoptActive,
    Image {
        path: String,
        format: ImageFormat,
        #[serde(default)]
        verify: bool,
    },
    AsConfigured,
}

impl RestoreWire {
    fn into_request(self, fds: Given<'_>) -> Result<RestoreRequest, RequestError> {
        let Self {
            snapshot,
            memory,
            xenstore,
            mode,
            identity,
            nics,
            disks,
            policy,
            generation_id,
            start,
            verify,
            durability,
            deadlines,
            journal,
        } = self;
        let nics = nics.into_iter().map(|(devid, NicWire { mac, bridge })| {
            (devid, NicChange { mac: mac.map(|mac| mac.0), bridge })
        });
        let disks = disks.into_iter().map(|(vdev, disk)| {
            let disk = disk.into_request(fds, &format!("disks.{vdev}"))?;
            Ok((vdev, disk))
        });
        Ok(RestoreRequest {
            snapshot: Snapshot::from_json(&snapshot)
                .map_err(|source| RequestError::Manifest { source })?,
            memory: memory.map(|source| fds.source(source, "memory")).transpose()?,
            xenstore: xenstore.map(|source| fds.source(source, "xenstore")).transpose()?,
            mode: match mode {
                ModeWire::New => RestoreMode::New,
                ModeWire::Replace { domain, free_first } => {
                    RestoreMode::Replace { domain: domain.into(), free_first }
                }
            },
            identity,
            nics: nics.collect(),
            disks: disks.collect::<Result<_, RequestError>>()?,
            policy: policy.map(Into::into),
            generation_id,
            start,
            verify,
            durability,
            deadlines,
            journal: journal.map(|target| fds.target(target, "journal")).transpose()?,
        })
    }

    fn of(request: &RestoreRequest, fds: &mut Collected) -> Result<Self, RequestError> {
        let RestoreRequest {
            snapshot,
            memory,
            xenstore,
            mode,
            identity,
            nics,
            disks,
            policy,
            generation_id,
            start,
            verify,
            durability,
            deadlines,
            journal,
        } = request;
        let mut source = |source: &Option<_>, at| {
            source.as_ref().map(|source| fds.source(source, at)).transpose()
        };
        let (memory, xenstore) = (source(memory, "memory")?, source(xenstore, "xenstore")?);
        let nics = nics.iter().map(|(devid, NicChange { mac, bridge })| {
            (*devid, NicWire { mac: mac.map(Mac), bridge: bridge.clone() })
        });
        let nics = nics.collect();
        let disks = disks.iter().map(|(vdev, disk)| {
            Ok((vdev.clone(), DiskWire::of(disk, fds, &format!("disks.{vdev}"))?))
        });
        let disks = disks.collect::<Result<_, RequestError>>()?;
        Ok(Self {
            snapshot: snapshot.to_json().map_err(|source| RequestError::Manifest { source })?,
            memory,
            xenstore,
            mode: match *mode {
                RestoreMode::New => ModeWire::New,
                RestoreMode::Replace { domain, free_first } => {
                    ModeWire::Replace { domain: domain.into(), free_first }
                }
            },
            identity: identity.clone(),
            nics,
            disks,
            policy: policy.as_ref().map(Into::into),
            generation_id: *generation_id,
            start: *start,
            verify: *verify,
            durability: *durability,
            deadlines: *deadlines,
            journal: journal.as_ref().map(|it| fds.target(it, "journal")).transpose()?,
        })
    }
}

impl DiskWire {
    fn into_request(self, fds: Given<'_>, at: &str) -> Result<DiskRestore, RequestError> {
        Ok(match self {
            Self::FrozenReadOnly => DiskRestore::FrozenReadOnly,
            Self::NewOverlay { overlay } => {
                let overlay = fds.target(overlay, &format!("{at}.new-overlay.overlay"))?;
                DiskRestore::NewOverlay { overlay }
            }
            Self::AdoptActive => DiskRestore::AdoptActive,
            Self::Image { path, format, verify } => {
                DiskRestore::Image { path: path.into(), format, verify }
            }
            Self::AsConfigured => DiskRestore::AsConfigured,
        })
    }

    fn of(disk: &DiskRestore, fds: &mut Collected, at: &str) -> Result<Self, RequestError> {
        Ok(match disk {
            DiskRestore::FrozenReadOnly => Self::FrozenReadOnly,
            DiskRestore::NewOverlay { overlay } => {
                let overlay = fds.target(overlay, &format!("{at}.new-overlay.overlay"))?;
                Self::NewOverlay { overlay }
            }
            DiskRestore::AdoptActive => Self::AdoptActive,
            DiskRestore::Image { path, format, verify } => Self::Image {
                path: path_text(path, &format!("{at}.image.path"))?,
                format: *format,
                verify: *verify,
            },
            DiskRestore::AsConfigured => Self::AsConfigured,
        })
    }
}
