//! Save requests in JSON.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xsclient::DomId;

use super::descriptors::{Collected, Given, TargetWire, path_text};
use super::{RequestError, parse, print};
use crate::control::DomainIdentity;
use crate::disk::{BackingName, CopyMethod};
use crate::image::packed::{Codec, WORKERS_DEFAULT, ZSTD_LEVEL_DEFAULT};
use crate::save::{
    After, ConfigUpdate, Consistency, DiskRequest, DiskRequestAction, Durability, Hold,
    MemoryFormat, MemoryRequest, QuiesceRequest, SaveDeadlines, SaveRequest,
};

impl SaveRequest {
    /// Reads a request; `fds` are the descriptors that it has the indexes of.
    ///
    /// # Errors
    ///
    /// Where in the JSON what is wrong, and what to do.
    pub fn from_json(text: &str, fds: &[Arc<OwnedFd>]) -> Result<Self, RequestError> {
        parse::<SaveWire>(text)?.into_request(Given(fds))
    }

    /// The request as JSON, and the descriptors that it has the indexes of.
    ///
    /// # Errors
    ///
    /// If a path or name is not UTF-8.
    pub fn to_json(&self) -> Result<(String, Vec<Arc<OwnedFd>>), RequestError> {
        let mut fds = Collected::default();
        let text = print(&SaveWire::of(self, &mut fds)?)?;
        Ok((text, fds.0))
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SaveWire {
    domain: DomainWire,
    #[serde(default)]
    disks: Vec<DiskWire>,
    #[serde(default)]
    qmp: Option<String>,
    #[serde(default)]
    memory: Option<MemoryWire>,
    #[serde(default)]
    xenstore: Option<TargetWire>,
    #[serde(default)]
    quiesce: Option<QuiesceRequest>,
    #[serde(default)]
    hold: Hold,
    #[serde(default)]
    after: After,
    #[serde(default = "least")]
    min_consistency: Consistency,
    #[serde(default)]
    durability: Durability,
    #[serde(default)]
    deadlines: SaveDeadlines,
    #[serde(default = "yes")]
    space_check: bool,
    #[serde(default)]
    config: ConfigUpdate,
    #[serde(default)]
    journal: Option<TargetWire>,
}

fn least() -> Consistency {
    Consistency::PerDisk
}

fn yes() -> bool {
    true
}

/// A domain, of which nothing else can be said.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DomainWire {
    domid: u16,
    uuid: Uuid,
}

impl From<DomainWire> for DomainIdentity {
    fn from(DomainWire { domid, uuid }: DomainWire) -> Self {
        Self { domid: DomId::new(domid), uuid }
    }
}

impl From<DomainIdentity> for DomainWire {
    fn from(DomainIdentity { domid, uuid }: DomainIdentity) -> Self {
        Self { domid: domid.get(), uuid }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DiskWire {
    vdev: String,
    action: ActionWire,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum ActionWire {
    Skip {
        reason: String,
    },
    #[serde(rename = "external-qcow2")]
    ExternalQcow2 {
        overlay: TargetWire,
        #[serde(default)]
        node: Option<String>,
        #[serde(default)]
        overlay_node: Option<String>,
        #[serde(default)]
        backing: BackingWire,
        #[serde(default)]
        digest: bool,
    },
    #[serde(rename = "internal-qcow2")]
    InternalQcow2 {
        tag: String,
        #[serde(default)]
        node: Option<String>,
    },
    Copy {
        destination: TargetWire,
        method: CopyMethod,
        #[serde(default)]
        digest: bool,
    },
    Hook {
        name: String,
    },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum BackingWire {
    #[default]
    Absolute,
    As(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryWire {
    target: TargetWire,
    format: FormatWire,
    #[serde(default)]
    live: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum FormatWire {
    Stream {
        #[serde(default)]
        side_digest: Option<TargetWire>,
    },
    Mapped,
    Packed {
        #[serde(default)]
        codec: CodecWire,
        #[serde(default = "workers")]
        workers: usize,
    },
}

fn workers() -> usize {
    WORKERS_DEFAULT
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum CodecWire {
    Zstd { level: i32 },
    Lz4,
}

impl Default for CodecWire {
    fn default() -> Self {
        Self::Zstd { level: ZSTD_LEVEL_DEFAULT }
    }
}

impl SaveWire {
    fn into_request(self, fds: Given<'_>) -> Result<SaveRequest, RequestError> {
        let Self {
            domain,
            disks,
            qmp,
            memory,
            xenstore,
            quiesce,
            hold,
            after,
            min_consistency,
            durability,
            deadlines,
            space_check,
            config,
            journal,
        } = self;
        let disks = disks.into_iter().enumerate().map(|(index, DiskWire { vdev, action })| {
            let at = format!("disks[{index}].action");
            Ok(DiskRequest { vdev, action: action.into_request(fds, &at)? })
        });
        Ok(SaveRequest {
            domain: domain.into(),
            disks: disks.collect::<Result<_, RequestError>>()?,
            qmp: qmp.map(PathBuf::from),
            memory: memory.map(|memory| memory.into_request(fds)).transpose()?,
            xenstore: xenstore.map(|target| fds.target(target, "xenstore")).transpose()?,
            quiesce,
            hold,
            after,
            min_consistency,
            durability,
            deadlines,
            space_check,
            config,
            journal: journal.map(|target| fds.target(target, "journal")).transpose()?,
        })
    }

    fn of(request: &SaveRequest, fds: &mut Collected) -> Result<Self, RequestError> {
        let SaveRequest {
            domain,
            disks,
            qmp,
            memory,
            xenstore,
            quiesce,
            hold,
            after,
            min_consistency,
            durability,
            deadlines,
            space_check,
            config,
            journal,
        } = request;
        let disks = disks.iter().enumerate().map(|(index, DiskRequest { vdev, action })| {
            let action = ActionWire::of(action, fds, &format!("disks[{index}].action"))?;
            Ok(DiskWire { vdev: vdev.clone(), action })
        });
        let disks = disks.collect::<Result<_, RequestError>>()?;
        let memory = memory.as_ref().map(|memory| MemoryWire::of(memory, fds)).transpose()?;
        let mut target = |target: &Option<_>, at| {
            target.as_ref().map(|target| fds.target(target, at)).transpose()
        };
        Ok(Self {
            domain: (*domain).into(),
            disks,
            qmp: qmp.as_ref().map(|path| path_text(path, "qmp")).transpose()?,
            memory,
            xenstore: target(xenstore, "xenstore")?,
            quiesce: quiesce.clone(),
            hold: *hold,
            after: *after,
            min_consistency: *min_consistency,
            durability: *durability,
            deadlines: *deadlines,
            space_check: *space_check,
            config: *config,
            journal: target(journal, "journal")?,
        })
    }
}

impl ActionWire {
    fn into_request(self, fds: Given<'_>, at: &str) -> Result<DiskRequestAction, RequestError> {
        Ok(match self {
            Self::Skip { reason } => DiskRequestAction::Skip { reason },
            Self::ExternalQcow2 { overlay, node, overlay_node, backing, digest } => {
                DiskRequestAction::ExternalQcow2 {
                    overlay: fds.target(overlay, &format!("{at}.external-qcow2.overlay"))?,
                    node,
                    overlay_node,
                    backing: match backing {
                        BackingWire::Absolute => BackingName::Absolute,
                        BackingWire::As(path) => BackingName::As(path.into()),
                    },
                    digest,
                }
            }
            Self::InternalQcow2 { tag, node } => DiskRequestAction::InternalQcow2 { tag, node },
            Self::Copy { destination, method, digest } => {
                let destination = fds.target(destination, &format!("{at}.copy.destination"))?;
                DiskRequestAction::Copy { destination, method, digest }
            }
            Self::Hook { name } => DiskRequestAction::Hook { name },
        })
    }

    fn of(action: &DiskRequestAction, fds: &mut Collected, at: &str) -> Result<Self, RequestError> {
        Ok(match action {
            DiskRequestAction::Skip { reason } => Self::Skip { reason: reason.clone() },
            DiskRequestAction::ExternalQcow2 { overlay, node, overlay_node, backing, digest } => {
                Self::ExternalQcow2 {
                    overlay: fds.target(overlay, &format!("{at}.external-qcow2.overlay"))?,
                    node: node.clone(),
                    overlay_node: overlay_node.clone(),
                    backing: match backing {
                        BackingName::Absolute => BackingWire::Absolute,
                        BackingName::As(path) => {
                            let at = format!("{at}.external-qcow2.backing");
                            BackingWire::As(path_text(path, &at)?)
                        }
                    },
                    digest: *digest,
                }
            }
            DiskRequestAction::InternalQcow2 { tag, node } => {
                Self::InternalQcow2 { tag: tag.clone(), node: node.clone() }
            }
            DiskRequestAction::Copy { destination, method, digest } => Self::Copy {
                destination: fds.target(destination, &format!("{at}.copy.destination"))?,
                method: *method,
                digest: *digest,
            },
            DiskRequestAction::Hook { name } => Self::Hook { name: name.clone() },
        })
    }
}

impl MemoryWire {
    fn into_request(self, fds: Given<'_>) -> Result<MemoryRequest, RequestError> {
        let Self { target, format, live } = self;
        let format = match format {
            FormatWire::Stream { side_digest } => {
                let at = "memory.format.stream.side_digest";
                let side_digest = side_digest.map(|side| fds.target(side, at)).transpose()?;
                MemoryFormat::Stream { side_digest }
            }
            FormatWire::Mapped => MemoryFormat::Mapped,
            FormatWire::Packed { codec, workers } => MemoryFormat::Packed {
                codec: match codec {
                    CodecWire::Zstd { level } => Codec::Zstd { level },
                    CodecWire::Lz4 => Codec::Lz4,
                },
                workers,
            },
        };
        Ok(MemoryRequest { target: fds.target(target, "memory.target")?, format, live })
    }

    fn of(memory: &MemoryRequest, fds: &mut Collected) -> Result<Self, RequestError> {
        let MemoryRequest { target, format, live } = memory;
        let target = fds.target(target, "memory.target")?;
        let format = match format {
            MemoryFormat::Stream { side_digest } => {
                let at = "memory.format.stream.side_digest";
                let side = side_digest.as_ref().map(|side| fds.target(side, at)).transpose()?;
                FormatWire::Stream { side_digest: side }
            }
            MemoryFormat::Mapped => FormatWire::Mapped,
            MemoryFormat::Packed { codec, workers } => FormatWire::Packed {
                codec: match codec {
                    Codec::Zstd { level } => CodecWire::Zstd { level: *level },
                    Codec::Lz4 => CodecWire::Lz4,
                },
                workers: *workers,
            },
        };
        Ok(Self { target, format, live: *live })
    }
}
