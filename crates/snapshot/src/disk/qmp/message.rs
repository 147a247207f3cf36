//! What is said on a QMP socket. Members that are not used are passed over, whatever QEMU tells.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An event, as QEMU sends them at any time.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct QmpEvent {
    /// Its name.
    #[serde(rename = "event")]
    pub name: String,
    /// What belongs to it.
    #[serde(default)]
    pub data: Value,
}

/// The version that QEMU greets with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct QmpVersion {
    /// As 10 in 10.0.2.
    pub major: u32,
    /// As 0.
    pub minor: u32,
    /// As 2.
    pub micro: u32,
}

/// A node of QEMU's block graph, as `query-named-block-nodes` tells.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct QmpNode {
    /// Its name.
    #[serde(rename = "node-name")]
    pub name: String,
    /// The driver: a format, a protocol or a filter.
    #[serde(rename = "drv")]
    pub driver: String,
    /// It cannot be written.
    #[serde(rename = "ro")]
    pub read_only: bool,
    /// How writes are cached.
    pub cache: CacheMode,
    /// What it shows.
    pub image: NodeImage,
}

/// How a node caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CacheMode {
    /// The page cache is passed by.
    pub direct: bool,
    /// Flushes are ignored.
    #[serde(rename = "no-flush")]
    pub no_flush: bool,
}

/// The image of a node, with what it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct NodeImage {
    /// The path, or a description beginning with `json:` where no path can tell.
    pub filename: String,
    /// The format it is opened as.
    pub format: String,
    /// Octets that the guest sees.
    #[serde(rename = "virtual-size")]
    pub virtual_size: u64,
    /// Internal snapshots.
    #[serde(default)]
    pub snapshots: Vec<NodeSnapshot>,
    /// What it really rests on, whatever is recorded in it.
    #[serde(rename = "backing-image")]
    pub backing: Option<Box<NodeImage>>,
}

/// An internal snapshot of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct NodeSnapshot {
    /// Given by QEMU.
    pub id: String,
    /// Given by who made it.
    pub name: String,
}

/// A block job that runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct BlockJob {
    /// Its id, or the device it was started for.
    pub device: String,
    /// As `mirror`, `stream`, `commit` or `backup`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// A part of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionAction {
    /// Puts a node that is there over another, for all who use that.
    Snapshot {
        /// The node below.
        node: String,
        /// The node on top.
        overlay: String,
    },
    /// Makes an internal snapshot.
    InternalSnapshot {
        /// The node.
        node: String,
        /// The snapshot's name.
        tag: String,
    },
}

impl TransactionAction {
    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Snapshot { node, overlay } => {
                json!({ "type": "blockdev-snapshot", "data": { "node": node, "overlay": overlay } })
            }
            Self::InternalSnapshot { node, tag } => json!({
                "type": "blockdev-snapshot-internal-sync",
                "data": { "device": node, "name": tag },
            }),
        }
    }
}

#[derive(Debug, Deserialize)]
pub(in crate::disk) struct Greeting {
    #[serde(rename = "QMP")]
    pub(in crate::disk) qmp: GreetingContent,
}

#[derive(Debug, Deserialize)]
pub(in crate::disk) struct GreetingContent {
    pub(in crate::disk) version: GreetingVersion,
}

#[derive(Debug, Deserialize)]
pub(in crate::disk) struct GreetingVersion {
    pub(in crate::disk) qemu: QmpVersion,
}

/// What comes after the greeting: one of the three.
#[derive(Debug)]
pub(in crate::disk) enum Message {
    Event(QmpEvent),
    Return { id: Value, value: Value },
    Error { id: Value, error: ErrorContent },
}

#[derive(Debug, Deserialize)]
pub(in crate::disk) struct ErrorContent {
    pub(in crate::disk) class: String,
    pub(in crate::disk) desc: String,
}

impl Message {
    pub(in crate::disk) fn parse(line: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Any {
            #[serde(rename = "return")]
            value: Option<Value>,
            error: Option<ErrorContent>,
            #[serde(default)]
            id: Value,
            event: Option<String>,
            #[serde(default)]
            data: Value,
        }
        match serde_json::from_slice(line)? {
            Any { value: Some(value), error: None, event: None, id, .. } => {
                Ok(Self::Return { id, value })
            }
            Any { error: Some(error), value: None, event: None, id, .. } => {
                Ok(Self::Error { id, error })
            }
            Any { event: Some(name), value: None, error: None, data, .. } => {
                Ok(Self::Event(QmpEvent { name, data }))
            }
            _ => Err(serde::de::Error::custom("it is no return, no error and no event")),
        }
    }
}
