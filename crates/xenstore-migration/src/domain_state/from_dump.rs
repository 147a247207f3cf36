//! One domain's state out of the dump of a whole server.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use xenstore_proto::{DomId, Path, PathOrSpecial};

use super::DomainState;
use super::collect::{Collected, Collector, RecordFault, StalePerm};
use super::vm::{NoVmTree, vm_tree};
use crate::order::Violation;
use crate::reader::{Place, Placed, ReadError, StreamReader};
use crate::record::{ConnectionSpec, NodeData, NodeScope, Record};

/// What the dump of a whole server held of one domain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DumpContents {
    /// The domain's state.
    pub state: DomainState,
    /// Records of types that are not known, and so may have been of this domain.
    pub unknown: Vec<Place>,
    /// Permissions that are not in the state, since whom they name is gone.
    pub stale: Vec<StalePerm>,
    /// Why there is no tree below `/vm`, if the domain has a node `vm`.
    pub no_vm_tree: Option<NoVmTree>,
}

impl DomainState {
    /// Reads a live-update dump to its end and takes the state of one domain: its tree, `/vm/UUID` as its node `vm` names it,
    /// the trees at `extra_roots`, its ring connection with watches and transactions, its quotas and features.
    ///
    /// A root that the dump does not hold is among the state's roots all the same: a dump is complete, so there is no such
    /// tree. If the domain's node `vm` is missing, or is not to be believed ([`super::vm_tree`]), there is no second root.
    ///
    /// Strict where the domain is concerned; what else the dump holds is skipped, and is for [`crate::OrderChecker`] to judge.
    /// Memory grows with what belongs to the domain and, until its node `vm` has been read, with the trees below `/vm`.
    ///
    /// # Errors
    ///
    /// If the dump cannot be read, a record of the domain does not make sense, or there is nothing of the domain in it. The
    /// reader is of no use any more.
    pub fn from_dump<R: Read>(
        reader: &mut StreamReader<R>,
        domid: DomId,
        extra_roots: impl IntoIterator<Item = Path>,
    ) -> Result<DumpContents, FromDumpError> {
        let mut roots: BTreeSet<Path> = extra_roots.into_iter().collect();
        if let Some(path) = roots.iter().find(|root| !root.is_absolute()) {
            return Err(FromDumpError::RelativeRoot { path: path.clone() });
        }
        let own = Path::of_domain(domid);
        roots.insert(own.clone());
        let mut dump = Dump { domid, own, roots, ..Dump::default() };
        while let Some(Placed { place, record }) =
            reader.next_record().map_err(|source| FromDumpError::Read { source })?
        {
            dump.take(place, &record).map_err(|fault| FromDumpError::Record { place, fault })?;
        }
        dump.finish()
    }
}

/// What has been read so far.
#[derive(Debug)]
struct Dump {
    domid: DomId,
    own: Path,
    /// Trees that are wanted for certain.
    roots: BTreeSet<Path>,
    collector: Collector,
    vm: Vm,
    /// Trees below `/vm`, while it is not known which one is the domain's.
    vm_trees: Collector,
    no_vm_tree: Option<NoVmTree>,
    unknown: Vec<Place>,
}

/// Whether it is known which tree below `/vm` is the domain's.
#[derive(Debug, PartialEq, Eq)]
enum Vm {
    NotYet,
    Known,
}

impl Default for Dump {
    fn default() -> Self {
        Self {
            domid: DomId::INVALID,
            own: Path::root(),
            roots: BTreeSet::new(),
            collector: Collector::default(),
            vm: Vm::NotYet,
            vm_trees: Collector::default(),
            no_vm_tree: None,
            unknown: Vec::new(),
        }
    }
}

impl Dump {
    fn take(&mut self, place: Place, record: &Record<'_>) -> Result<(), RecordFault> {
        match record {
            Record::Connection(data) => match data.spec {
                ConnectionSpec::Ring { domid, target, .. } if domid == self.domid => {
                    self.collector.connection(data, domid, target)
                }
                _ if self.collector.is_connection(data.id) => {
                    Err(Violation::RepeatedConnection { connection: data.id }.into())
                }
                _ => Ok(()),
            },
            Record::Watch(watch) if self.collector.is_connection(watch.connection) => {
                self.collector.watch(watch.connection, watch.path, watch.token, None)
            }
            Record::WatchExtended(watch) if self.collector.is_connection(watch.connection) => {
                let depth = Some(watch.depth);
                self.collector.watch(watch.connection, watch.path, watch.token, depth)
            }
            Record::Transaction(data) if self.collector.is_connection(data.connection) => {
                self.collector.transaction(data.connection, data.transaction)
            }
            Record::Node(node) => match node.scope {
                NodeScope::Committed => self.committed(node),
                NodeScope::Pending { connection, transaction, access }
                    if self.collector.is_connection(connection) =>
                {
                    self.collector.pending(connection, transaction, access, node)
                }
                NodeScope::Pending { .. } => Ok(()),
            },
            Record::Domain(domain) if domain.domid == self.domid => self.collector.domain(domain),
            Record::Unknown(_) => {
                self.unknown.push(place);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn committed(&mut self, node: &NodeData<'_>) -> Result<(), RecordFault> {
        let path = match PathOrSpecial::from_octets(node.path) {
            Ok(PathOrSpecial::Node(path)) if path.is_absolute() => path,
            Ok(PathOrSpecial::Node(_)) => {
                return Err(Violation::RelativeNode { path: node.path.into() }.into());
            }
            Ok(PathOrSpecial::Special(_)) => return Ok(()),
            Err(reason) => return Err(Violation::Path { path: node.path.into(), reason }.into()),
        };
        let root = self.roots.iter().find(|root| path.is_at_or_below(root));
        let (collector, is_root) = match root {
            Some(root) => (&mut self.collector, path == *root || self.roots.contains(&path)),
            None if self.vm == Vm::NotYet && path.below(&vm_directory()).is_some() => {
                (&mut self.vm_trees, path.components().count() <= 2)
            }
            None => return Ok(()),
        };
        let has_parent = path.parent().is_some_and(|above| collector.nodes.contains_key(&above));
        if !is_root && !has_parent {
            return Err(Violation::NoParent { path: node.path.into() }.into());
        }
        collector.node(&path, node)?;
        if path.below(&self.own) == Some("vm") {
            self.learn_vm(&path);
        }
        Ok(())
    }

    /// From here on it is known which tree below `/vm` is the domain's.
    fn learn_vm(&mut self, pointer: &Path) {
        self.vm = Vm::Known;
        let trees = std::mem::take(&mut self.vm_trees);
        let named = self.collector.nodes.get(pointer).map(|node| vm_tree(self.domid, node));
        let root = match named {
            Some(Ok(root)) => root,
            Some(Err(reason)) => {
                self.no_vm_tree = Some(reason);
                return;
            }
            None => return,
        };
        let belongs = |path: &Path| path.is_at_or_below(&root);
        let nodes: BTreeMap<_, _> =
            trees.nodes.into_iter().filter(|(path, _)| belongs(path)).collect();
        self.collector.nodes.extend(nodes);
        self.collector.stale.extend(trees.stale.into_iter().filter(|perm| belongs(&perm.path)));
        self.roots.insert(root);
    }

    fn finish(self) -> Result<DumpContents, FromDumpError> {
        if !self.collector.knows_domain() && !self.collector.nodes.contains_key(&self.own) {
            return Err(FromDumpError::NoDomain { domid: self.domid });
        }
        let Collected { nodes, stale, connection, quotas, features } = self.collector.finish();
        let (domid, roots) = (self.domid, self.roots);
        let state = DomainState { domid, roots, nodes, connection, quotas, features };
        Ok(DumpContents { state, unknown: self.unknown, stale, no_vm_tree: self.no_vm_tree })
    }
}

/// `/vm`, below which every domain has its tree.
fn vm_directory() -> Path {
    Path::from_octets(b"/vm").expect("it is a path")
}

/// Why the state of a domain was not taken from a dump.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FromDumpError {
    /// It cannot be read.
    #[error("the dump cannot be read to its end")]
    Read {
        /// Why not, and where.
        source: ReadError,
    },
    /// A record that may be of the domain does not make sense, itself or where it stands.
    #[error("{place}")]
    Record {
        /// Which record.
        place: Place,
        /// What is wrong.
        #[source]
        fault: RecordFault,
    },
    /// There is neither a tree nor a connection nor DOMAIN_DATA of the domain.
    #[error("the dump knows nothing of domain {domid}")]
    NoDomain {
        /// Which domain.
        domid: DomId,
    },
    /// A root that is no absolute path. Nothing was read.
    #[error("root {path} is not an absolute path")]
    RelativeRoot {
        /// The root.
        path: Path,
    },
}
