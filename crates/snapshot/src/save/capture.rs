//! Configuration and Xenstore state of a domain that stands still.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use libxl_config::retrieve::Retriever;
use serde_json::Value;
use xenstore_migration::{ByteOrder, Peer, Preamble, StreamWriter, Version};
use xsclient::DomId;

use super::{Fingerprint, SaveCause};
use crate::disk::image::Digest;
use crate::xenstore_state::{Consistency, ExtractRequest, extract};
use crate::{CompleteFile, HostAccess};

/// How often a Xenstore is asked that fails, each time on a new connection: a daemon may have been started anew.
const ATTEMPTS: usize = 3;
/// How long one attempt may take.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// What was read of a domain.
pub(super) struct Captured {
    pub(super) configuration: Value,
    pub(super) xenstore: Option<Xenstore>,
    pub(super) warnings: Vec<String>,
    /// The disks that it has, and their images.
    pub(super) disks: Vec<(String, PathBuf)>,
}

impl Captured {
    /// A disk that was plugged or moved after the plan was looked at again has no snapshot.
    pub(super) fn has_the_disks_of(&self, planned: &Fingerprint) -> Result<(), SaveCause> {
        let planned = planned.disks.iter().map(|disk| (&disk.vdev, &disk.path));
        if planned.eq(self.disks.iter().map(|(vdev, path)| (vdev, path))) {
            Ok(())
        } else {
            Err(SaveCause::StalePlan { what: "which disks there are, or their images," })
        }
    }
}

/// A domain's Xenstore state as a stream.
pub(super) struct Xenstore {
    pub(super) stream: Vec<u8>,
    pub(super) nodes: u64,
    pub(super) missing: Vec<String>,
}

impl Xenstore {
    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.stream)
    }
}

/// Where a domain's Xenstore state goes.
#[derive(Debug)]
pub(super) enum XenstoreSink {
    New(CompleteFile),
    Callers(std::fs::File),
}

impl XenstoreSink {
    pub(super) fn write(&mut self, stream: &[u8]) -> Result<(), SaveCause> {
        let written = match self {
            Self::New(file) => file.write_all(stream),
            Self::Callers(file) => file.write_all(stream),
        };
        written.map_err(|source| SaveCause::Io { step: "write the Xenstore state", source })
    }
}

/// Reads configuration and, if asked for, Xenstore state.
pub(super) fn capture(
    access: &HostAccess<'_>,
    domid: DomId,
    with_xenstore: bool,
    deadline: Instant,
) -> Result<Captured, SaveCause> {
    let mut attempt = 1;
    loop {
        let until = deadline.min(Instant::now() + ATTEMPT_LIMIT);
        match once(access, domid, with_xenstore, until) {
            Err(cause) if attempt < ATTEMPTS && Instant::now() < deadline => {
                tracing::debug!(%cause, attempt, "what the domain is made of is read once more");
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

fn once(
    access: &HostAccess<'_>,
    domid: DomId,
    with_xenstore: bool,
    deadline: Instant,
) -> Result<Captured, SaveCause> {
    let mut client = (access.xenstore)(deadline)?;
    let left = deadline.saturating_duration_since(Instant::now());
    let mut retriever = Retriever::new(&mut client, access.templates).timeout(left);
    if let Some(hypervisor) = access.hypervisor {
        retriever = retriever.hypervisor(hypervisor);
    }
    let config = retriever.retrieve(domid)?.config;
    let disks = config.disks.iter().map(|disk| {
        let path = disk.pdev_path.clone().unwrap_or_default();
        (disk.vdev.clone().unwrap_or_default(), PathBuf::from(path))
    });
    let mut captured = Captured {
        configuration: value(&config)?,
        xenstore: None,
        warnings: Vec::new(),
        disks: disks.collect(),
    };
    if with_xenstore {
        let extracted = extract(&mut client, &ExtractRequest::new(domid, deadline))?;
        if let Consistency::Changing { attempts, .. } = extracted.consistency {
            captured.warnings.push(format!(
                "the Xenstore state kept changing while it was read {attempts} times"
            ));
        }
        let preamble = Preamble::new(Version::V2, ByteOrder::Little);
        let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification)?;
        let lost = extracted.state.to_stream(&mut writer)?;
        let mut missing: Vec<_> = extracted.missing.iter().map(ToString::to_string).collect();
        missing.extend(lost.iter().map(|loss| format!("{loss:?}")));
        let nodes = extracted.state.nodes.len() as u64;
        captured.xenstore = Some(Xenstore { stream: writer.finish()?, nodes, missing });
    }
    Ok(captured)
}

fn value(config: &DomainConfig) -> Result<Value, SaveCause> {
    serde_json::from_str(&config.to_json(libxl_config::Layout::Yajl))
        .map_err(|source| SaveCause::Io { step: "keep the configuration", source: source.into() })
}
