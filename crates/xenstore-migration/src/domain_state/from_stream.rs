//! A stream of one domain to its state.

use std::collections::BTreeSet;
use std::io::Read;

use xenstore_proto::{DomId, Path};

use super::DomainState;
use super::collect::{Collected, Collector, RecordFault, StalePerm, absolute, not_of_a_domain};
use super::ownership::{can_be_owned, domain_of_root};
use crate::order::Violation;
use crate::reader::{Place, Placed, ReadError, StreamReader};
use crate::record::{ConnectionSpec, NodeData, NodeScope, Record, UnknownData};

/// What a stream of one domain held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamContents {
    /// The domain's state.
    pub state: DomainState,
    /// Records of types that are not known; empty if [`crate::ReadOptions::unknown`] refuses them.
    pub unknown: Vec<UnknownRecord>,
    /// Permissions that are not in the state, since whom they name is gone.
    pub stale: Vec<StalePerm>,
}

/// A record of a type that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRecord {
    /// Where it stands, and its type.
    pub place: Place,
    /// What its length covers.
    pub body: Vec<u8>,
}

impl DomainState {
    /// Reads a stream of one domain to its end.
    ///
    /// Strict: a ring connection at most, nothing of the server's own, dependencies before what depends on them, nothing
    /// twice, and no nodes that one domain cannot own. The domain is the connection's, or that of DOMAIN_DATA, or that of
    /// the node `/local/domain/DOMID`. Roots are the nodes whose parent is not in the stream.
    ///
    /// Not kept are the port and the unique id of the connection, which are the old host's own, and permissions of
    /// domains that are gone ([`StreamContents::stale`]). Memory grows with what the stream holds, and with nothing that it
    /// only claims.
    ///
    /// # Errors
    ///
    /// If the stream cannot be read, is not one of one domain, or does not say which. The reader is of no use any more.
    pub fn from_stream<R: Read>(
        reader: &mut StreamReader<R>,
    ) -> Result<StreamContents, FromStreamError> {
        let mut stream = DomainStream::default();
        while let Some(Placed { place, record }) =
            reader.next_record().map_err(|source| FromStreamError::Read { source })?
        {
            stream
                .take(place, &record)
                .map_err(|fault| FromStreamError::Record { place, fault })?;
        }
        stream.finish()
    }
}

/// What has been read so far.
#[derive(Debug, Default)]
struct DomainStream {
    collector: Collector,
    domid: Option<DomId>,
    roots: BTreeSet<Path>,
    /// Parents of the roots, of which none may come later.
    parents_missed: BTreeSet<Path>,
    unknown: Vec<UnknownRecord>,
}

impl DomainStream {
    fn take(&mut self, place: Place, record: &Record<'_>) -> Result<(), RecordFault> {
        match record {
            Record::Connection(data) => {
                let ConnectionSpec::Ring { domid, target, .. } = data.spec else {
                    return Err(not_of_a_domain(record.record_type()));
                };
                if self.collector.connection_is_known() {
                    return Err(not_of_a_domain(record.record_type()));
                }
                self.belongs_to(domid)?;
                self.collector.connection(data, domid, target)
            }
            Record::Watch(watch) => {
                self.collector.watch(watch.connection, watch.path, watch.token, None)
            }
            Record::WatchExtended(watch) => {
                let depth = Some(watch.depth);
                self.collector.watch(watch.connection, watch.path, watch.token, depth)
            }
            Record::Transaction(data) => {
                self.collector.transaction(data.connection, data.transaction)
            }
            Record::Node(node) => match node.scope {
                NodeScope::Committed => self.committed(node),
                NodeScope::Pending { connection, transaction, access } => {
                    self.collector.pending(connection, transaction, access, node)
                }
            },
            Record::Domain(domain) => {
                self.belongs_to(domain.domid)?;
                self.collector.domain(domain)
            }
            Record::Unknown(UnknownData { body, .. }) => {
                self.unknown.push(UnknownRecord { place, body: body.to_vec() });
                Ok(())
            }
            Record::Global(_) | Record::GlobalQuota(_) => {
                Err(not_of_a_domain(record.record_type()))
            }
        }
    }

    fn committed(&mut self, node: &NodeData<'_>) -> Result<(), RecordFault> {
        let path = absolute(node.path)?;
        if self.domid.is_none() {
            self.domid = domain_of_root(&path);
        }
        // A node that no domain can own is found so whatever the domain will turn out to be.
        if !can_be_owned(&path, self.domid.unwrap_or(DomId::INVALID)) {
            return Err(RecordFault::NotOwned { path: path.into() });
        }
        if self.parents_missed.contains(&path) {
            return Err(Violation::ParentLater { path: node.path.into() }.into());
        }
        self.collector.node(&path, node)?;
        if let Some(parent) = path.parent()
            && !self.collector.nodes.contains_key(&parent)
        {
            self.parents_missed.insert(parent);
            self.roots.insert(path);
        }
        Ok(())
    }

    /// Notes whose stream this is.
    fn belongs_to(&mut self, domid: DomId) -> Result<(), RecordFault> {
        match self.domid {
            Some(known) if known != domid => Err(Violation::OtherDomain { domid }.into()),
            _ => {
                self.domid = Some(domid);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<StreamContents, FromStreamError> {
        let domid = self.domid.ok_or(FromStreamError::NoDomain)?;
        let Collected { nodes, stale, connection, quotas, features } = self.collector.finish();
        let state = DomainState { domid, roots: self.roots, nodes, connection, quotas, features };
        Ok(StreamContents { state, unknown: self.unknown, stale })
    }
}

/// Why a stream is not that of one domain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FromStreamError {
    /// It cannot be read.
    #[error("the stream cannot be read to its end")]
    Read {
        /// Why not, and where.
        source: ReadError,
    },
    /// A record does not belong, itself or where it stands.
    #[error("{place}")]
    Record {
        /// Which record.
        place: Place,
        /// What is wrong.
        #[source]
        fault: RecordFault,
    },
    /// Nothing in it says whose it is.
    #[error(
        "the stream says of no domain that it is its own: it has no connection, no DOMAIN_DATA and no node /local/domain/DOMID"
    )]
    NoDomain,
}
