//! A server out of a stream.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;

use xenstore_migration::{
    ConnectionData, ConnectionId as StreamId, ConnectionSpec, DomainData, GlobalData,
    GlobalQuotaData, NodeData, NodeScope, OpenError, Place, QuotasError, ReadError, ReadOptions,
    Record, RecordType, ServerQuotas, StreamReader, WatchDepth,
};
use xenstore_proto::{DomId, Features, PathOrSpecial, Perms, QuotaName, SpecialName, Token, TxId};

use super::capture::{LinkPlace, LinkState, NO_RING, POLICY_MEMORY};
use super::pending::{PendingNode, PendingTransaction};
use super::tree_builder::{TreeBuilder, path_of, perms_of};
use crate::charges::Charges;
use crate::quota::Quota;
use crate::server::{ConnectionId, Server};

/// A server that goes on where another was, and the links that its carriers have to take over.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) server: Server,
    pub(crate) links: Vec<LinkState>,
    /// The descriptors of the server itself.
    pub(crate) global: GlobalData,
}

/// Why a stream is no state of a server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is no stream.
    #[error("not a state of a Xenstore server")]
    Open(#[from] OpenError),
    /// It cannot be read to its end.
    #[error("the state cannot be read")]
    Read(#[from] ReadError),
    /// A record cannot be understood.
    #[error("{place}: {what}")]
    Record {
        /// Which.
        place: Place,
        /// What is wrong.
        what: String,
    },
    /// There is no root.
    #[error("the state has no root node")]
    NoRoot,
    /// The store cannot be kept.
    #[error("the store cannot be kept")]
    NotKept,
}

/// Why a node is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NodeError {
    #[error("not a path")]
    NoPath,
    #[error("there is no node above it")]
    NothingAbove,
    #[error("the node comes twice")]
    Repeated,
    #[error("a value of {len} octets")]
    ValueTooLong { len: usize },
    #[error("no permissions")]
    NoPerms,
}

/// What is read before anything is made of it.
struct Picture {
    tree: TreeBuilder,
    global: GlobalData,
    quotas: ServerQuotas,
    connections: Vec<Connection>,
    known: HashMap<StreamId, usize>,
    transactions: Vec<PendingTransaction>,
    domains: Vec<Domain>,
    special: Vec<(SpecialName, Perms)>,
    policy_memory: String,
}

struct Domain {
    domid: DomId,
    features: Option<Features>,
    quotas: BTreeMap<QuotaName, u32>,
}

struct Connection {
    domid: DomId,
    target: Option<DomId>,
    place: LinkPlace,
    input: Vec<u8>,
    output: Vec<u8>,
    output_rest: usize,
    watches: Vec<(PathOrSpecial, Token, Option<u32>)>,
}

impl Restored {
    /// Reads the state of a predecessor into `server`, which is new: its policy, its backend and the quotas that the stream
    /// does not tell are its own. Changes are counted from `stamp`, which is to be beyond what the predecessor
    /// has counted to: clients know some of these numbers.
    pub(crate) fn read(input: impl Read, server: Server, stamp: u64) -> Result<Self, RestoreError> {
        let mut reader = StreamReader::open(input, ReadOptions::default())?;
        let mut picture = Picture::new(stamp);
        while let Some(placed) = reader.next_record()? {
            let place = placed.place;
            let failed = |what: String| RestoreError::Record { place, what };
            picture.take(&placed.record).map_err(failed)?;
        }
        picture.into_server(server)
    }
}

impl Picture {
    fn new(stamp: u64) -> Self {
        Self {
            tree: TreeBuilder::new(stamp),
            global: GlobalData { socket_fd: None, event_channel_fd: None },
            quotas: ServerQuotas::default(),
            connections: Vec::new(),
            known: HashMap::new(),
            transactions: Vec::new(),
            domains: Vec::new(),
            special: Vec::new(),
            policy_memory: String::new(),
        }
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), String> {
        match record {
            Record::Global(global) => self.global = *global,
            Record::GlobalQuota(quota) => self.take_quotas(quota).map_err(|e| e.to_string())?,
            Record::Connection(connection) => self.take_connection(connection)?,
            Record::Watch(watch) => {
                self.take_watch(watch.connection, watch.path, watch.token, None)?;
            }
            Record::WatchExtended(watch) => {
                let depth = match watch.depth {
                    WatchDepth::Levels(levels) => Some(u32::from(levels)),
                    WatchDepth::Unlimited => Some(u32::MAX),
                    WatchDepth::Untold => None,
                };
                self.take_watch(watch.connection, watch.path, watch.token, depth)?;
            }
            Record::Transaction(transaction) => {
                let (connection, tx) = (transaction.connection, transaction.transaction);
                self.connection(connection)?;
                if tx == TxId::NONE {
                    return Err("a transaction without a number".to_owned());
                }
                self.transactions.push(PendingTransaction { connection, tx, nodes: Vec::new() });
            }
            Record::Node(node) => self
                .take_node(node)
                .map_err(|error| format!("{}: {error}", node.path.escape_ascii()))?,
            Record::Domain(domain) => self.take_domain(domain).map_err(|e| e.to_string())?,
            Record::Unknown(unknown) if unknown.record_type == POLICY_MEMORY => {
                let lines = str::from_utf8(unknown.body).map_err(|error| error.to_string())?;
                self.policy_memory.push_str(lines);
                self.policy_memory.push('\n');
            }
            Record::Unknown(unknown) => {
                let RecordType(number) = unknown.record_type;
                tracing::warn!(record_type = number, "record passed over: it is not known");
            }
        }
        Ok(())
    }

    fn take_quotas(&mut self, quota: &GlobalQuotaData<'_>) -> Result<(), QuotasError> {
        self.quotas.take_over(&ServerQuotas::from_record(quota)?);
        Ok(())
    }

    fn take_connection(&mut self, connection: &ConnectionData<'_>) -> Result<(), String> {
        let (domid, target, place) = match connection.spec {
            ConnectionSpec::Ring { domid, target, port } => (domid, target, LinkPlace::Ring(port)),
            ConnectionSpec::Socket { fd } => (DomId::DOM0, None, LinkPlace::Socket(fd)),
            ConnectionSpec::Unknown { kind, .. } => {
                return Err(format!("a connection of the unknown kind {kind}"));
            }
        };
        if !domid.is_real() {
            return Err(format!("no domain has the number {domid}"));
        }
        if self.known.insert(connection.id, self.connections.len()).is_some() {
            return Err(format!("connection {} comes twice", connection.id));
        }
        self.connections.push(Connection {
            domid,
            target,
            place,
            input: connection.input.to_vec(),
            output: connection.output.to_vec(),
            output_rest: usize::from(connection.output_rest),
            watches: Vec::new(),
        });
        Ok(())
    }

    fn take_watch(
        &mut self,
        connection: StreamId,
        path: &[u8],
        token: &[u8],
        depth: Option<u32>,
    ) -> Result<(), String> {
        let connection = self.connection(connection)?;
        // C xenstored lets a guest watch names that no path and no event ever has: they are no reason not to start.
        match (PathOrSpecial::from_octets(path), Token::from_octets(token)) {
            (Ok(path), Ok(token)) => connection.watches.push((path, token, depth)),
            _ => {
                tracing::warn!(path = %path.escape_ascii(), domid = %connection.domid, "watch passed over: it can tell of nothing")
            }
        }
        Ok(())
    }

    fn connection(&mut self, id: StreamId) -> Result<&mut Connection, String> {
        let at = self.known.get(&id).ok_or_else(|| format!("there is no connection {id}"))?;
        Ok(&mut self.connections[*at])
    }

    fn take_node(&mut self, node: &NodeData<'_>) -> Result<(), NodeError> {
        let (connection, transaction, access) = match node.scope {
            NodeScope::Committed => {
                if node.path.first() == Some(&b'@') {
                    let name = SpecialName::from_octets(node.path);
                    let name = name.map_err(|_| NodeError::NoPath)?;
                    self.special.push((name, perms_of(node.perms)?));
                    return Ok(());
                }
                return self.tree.add(node.path, node.perms, node.value);
            }
            NodeScope::Pending { connection, transaction, access } => {
                (connection, transaction, access)
            }
        };
        let open = |open: &&mut PendingTransaction| {
            open.connection == connection && open.tx == transaction
        };
        let Some(open) = self.transactions.iter_mut().rev().find(open) else {
            tracing::warn!(%connection, tx = transaction.0, "node of an unknown transaction");
            return Ok(());
        };
        let perms = if node.perms.is_empty() { None } else { Some(perms_of(node.perms)?) };
        let (path, value) = (path_of(node.path)?, node.value.to_vec());
        open.nodes.push(PendingNode { path, access, perms, value });
        Ok(())
    }

    fn take_domain(&mut self, domain: &DomainData<'_>) -> Result<(), QuotasError> {
        let (domid, features) = (domain.domid, domain.features);
        self.domains.push(Domain { domid, features, quotas: domain.quotas_by_name()? });
        Ok(())
    }

    fn into_server(self, mut server: Server) -> Result<Restored, RestoreError> {
        for line in server.policy.remember(&self.policy_memory) {
            tracing::error!(
                line,
                "the access policy does not understand what its predecessor has learnt"
            );
        }
        let (store, interner) = self.tree.finish().ok_or(RestoreError::NoRoot)?;
        server.replace_store(store).map_err(|_| RestoreError::NotKept)?;
        server.interner = interner;
        for (name, value) in self.quotas.per_domain {
            match Quota::named(&name) {
                Some(quota) => server.set_quota(None, quota, value),
                None => drop(server.handed_on.per_domain.insert(name, value)),
            }
        }
        server.handed_on.global = self.quotas.global;
        // Owners, too, have what the predecessor gave to new domains.
        server.accounts.start_over(&Charges::of_store(&server.store));
        for connection in &self.connections {
            if let LinkPlace::Ring(_) = connection.place {
                server.domains.introduce(connection.domid);
            }
        }
        for Domain { domid, features, quotas } in self.domains {
            if let Some(features) = features {
                server.domains.restrict(domid, features);
            }
            for (name, value) in quotas {
                if let Some(quota) = Quota::named(&name) {
                    server.set_quota(Some(domid), quota, value);
                }
            }
        }
        for (name, perms) in self.special {
            if let Some(known) = server.domains.special_perms(&name) {
                *known = perms.into();
            }
        }
        let mut links = Vec::with_capacity(self.connections.len());
        let mut numbers: Vec<ConnectionId> = Vec::with_capacity(self.connections.len());
        for connection in self.connections {
            let Connection { domid, target, place, input, output, output_rest, watches } =
                connection;
            if let Some(target) = target {
                server.domains.set_target(domid, target);
            }
            if place == NO_RING {
                numbers.push(ConnectionId::NONE);
                continue;
            }
            let number = server.connect(domid);
            for (path, token, depth) in watches {
                server.watch_again(number, &path, token, depth);
            }
            numbers.push(number);
            links.push(LinkState { connection: number, place, input, output, output_rest });
        }
        for transaction in self.transactions {
            let number = self.known.get(&transaction.connection).map(|at| numbers[*at]);
            if let Some(number) = number {
                transaction.open(&mut server, number);
            }
        }
        Ok(Restored { server, links, global: self.global })
    }
}
