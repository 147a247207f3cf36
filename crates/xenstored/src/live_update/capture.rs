//! A server's state as a stream.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId as StreamId, ConnectionSpec, Converter, CreateError,
    DomainData, GlobalData, GlobalQuotaData, NodeData, NodePerm, NodeScope, Peer, Preamble,
    QuotaTable, Record, RecordType, StreamWriter, UnknownData, Version, WatchData, WatchDepth,
    WatchExtendedData, WriteError,
};
use xenstore_proto::{DomId, Perms, SpecialName};

use super::pending;
use crate::server::{ConnectionId, Server};
use crate::tree::Node;
use crate::watches::Watch;

/// What an access policy has learnt, in lines of UTF-8. The specification has no such record, and no such number; who does not know
/// it passes it over.
pub(super) const POLICY_MEMORY: RecordType = RecordType(0x444b_0001);

/// Lines of it in one record.
const POLICY_LINES: usize = 256;

/// Who goes on from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Successor {
    /// This server, or one that follows the specification: nothing is lost.
    Own,
    /// C xenstored of this version of the stream. It has no open transactions; in version 1 (Xen 4.17) no quotas,
    /// features and depths of watches.
    Stock(Version),
}

impl Successor {
    fn preamble(self) -> Preamble {
        let version = match self {
            Self::Own => Version::V2,
            Self::Stock(version) => version,
        };
        Preamble::new(version, ByteOrder::NATIVE)
    }

    pub(super) fn peer(self) -> Peer {
        match self {
            Self::Own => Peer::Specification,
            Self::Stock(Version::V1) => Peer::C417,
            Self::Stock(_) => Peer::C2026,
        }
    }
}

/// What the carrier of a connection knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LinkState {
    pub(crate) connection: ConnectionId,
    pub(crate) place: LinkPlace,
    /// Received and not handled.
    pub(crate) input: Vec<u8>,
    /// To be sent before what the server has for the connection.
    pub(crate) output: Vec<u8>,
    /// How much at the start of that belongs to a message whose beginning has been sent.
    pub(crate) output_rest: usize,
}

/// Where a connection goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkPlace {
    /// A descriptor of this process.
    Socket(i32),
    /// The domain's ring; this process's port of its event channel.
    Ring(u32),
}

/// The place of a domain that is introduced and that nobody serves: no port has this number.
pub(super) const NO_RING: LinkPlace = LinkPlace::Ring(0);

/// Why a state cannot be handed over. The server goes on as before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// C xenstored does not start on such a stream.
    #[error(
        "{path} is owned by domain {owner}, which is not introduced, and the stock daemon would not start: introduce the \
         domain, or force the update to give the node to domain 0"
    )]
    Owner {
        /// The node.
        path: String,
        /// Whose it is.
        owner: DomId,
    },
    /// The stream cannot be begun.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// A record cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// More connections than the stream can tell apart.
    #[error("too many connections")]
    Connections,
}

/// A server and its links, to be written.
pub(crate) struct Capture<'s> {
    pub(crate) server: &'s Server,
    pub(crate) links: &'s [LinkState],
    pub(crate) global: GlobalData,
    pub(crate) successor: Successor,
    /// Whether a node whose owner a stock daemon would not accept is given to domain 0.
    pub(crate) forced: bool,
    /// What a connection will be sent besides, once the successor serves it.
    pub(crate) farewell: Option<(ConnectionId, &'s [u8])>,
}

impl Capture<'_> {
    /// Writes all of it. Nothing of the server is changed or taken.
    pub(crate) fn write<W: Write>(&self, output: W) -> Result<W, CaptureError> {
        let (preamble, peer) = (self.successor.preamble(), self.successor.peer());
        let from = Preamble::new(Version::V2, ByteOrder::NATIVE);
        let converter = (peer != Peer::Specification).then(|| Converter::new(from, preamble, peer));
        let mut stream =
            Stream { writer: StreamWriter::create(output, preamble, peer)?, converter };
        stream.put(&Record::Global(self.global))?;
        self.write_quotas(&mut stream)?;
        let numbers = self.write_connections(&mut stream)?;
        self.write_nodes(&mut stream)?;
        if self.successor == Successor::Own {
            for (connection, number) in &numbers {
                pending::write(self.server, *connection, *number, &mut |record| {
                    stream.put(record)
                })?;
            }
        }
        self.write_domains(&mut stream)?;
        self.write_policy(&mut stream)?;
        Ok(stream.writer.finish()?)
    }

    fn write_quotas<W: Write>(&self, stream: &mut Stream<W>) -> Result<(), CaptureError> {
        if self.successor == Successor::Stock(Version::V1) {
            return Ok(());
        }
        let mut quotas = self.server.handed_on.clone();
        quotas.per_domain.extend(self.server.accounts.defaults.by_name());
        let (per_domain, global) = quotas.to_tables();
        let (per_domain, global) = (per_domain.quotas(), global.quotas());
        stream.put(&Record::GlobalQuota(GlobalQuotaData { per_domain, global }))
    }

    /// Writes each connection with its watches, and those of introduced domains that have none here. Says how the stream
    /// calls them.
    fn write_connections<W: Write>(
        &self,
        stream: &mut Stream<W>,
    ) -> Result<Vec<(ConnectionId, StreamId)>, CaptureError> {
        let server = self.server;
        let mut numbers = Vec::new();
        let mut last = 0_u32;
        let mut next = || {
            last = last.checked_add(1).ok_or(CaptureError::Connections)?;
            StreamId::new(last).ok_or(CaptureError::Connections)
        };
        let links: BTreeMap<_, _> = self.links.iter().map(|link| (link.connection, link)).collect();
        let mut ringless: Vec<_> = server.domains.introduced().collect();
        for (connection, link) in links {
            let Some(state) = server.connections.get(&connection) else { continue };
            let (domid, id) = (state.domid, next()?);
            let target = server.domains.subject(domid).target;
            let spec = match link.place {
                LinkPlace::Socket(fd) => ConnectionSpec::Socket { fd },
                LinkPlace::Ring(port) => ConnectionSpec::Ring { domid, target, port },
            };
            if let LinkPlace::Ring(_) = link.place {
                ringless.retain(|other| *other != domid);
            }
            let mut output = link.output.clone();
            output.extend_from_slice(state.output.waiting());
            if let Some((_, message)) = self.farewell.filter(|(to, _)| *to == connection) {
                output.extend_from_slice(message);
            }
            let output_rest = u16::try_from(link.output_rest).unwrap_or(u16::MAX);
            let (input, output, unique_id) = (&link.input[..], &output[..], None);
            let data = ConnectionData { id, spec, input, output_rest, output, unique_id };
            stream.put(&Record::Connection(data))?;
            write_watches(server, connection, id, &mut |record| stream.put(record))?;
            numbers.push((connection, id));
        }
        // Known, and served by nobody: without a record they would not be introduced any more.
        for domid in ringless.into_iter().filter(|domid| *domid != DomId::DOM0) {
            let target = server.domains.subject(domid).target;
            let LinkPlace::Ring(port) = NO_RING else { continue };
            let spec = ConnectionSpec::Ring { domid, target, port };
            let (id, input, output, unique_id) = (next()?, &[][..], &[][..], None);
            let data = ConnectionData { id, spec, input, output_rest: 0, output, unique_id };
            stream.put(&Record::Connection(data))?;
        }
        Ok(numbers)
    }

    fn write_nodes<W: Write>(&self, stream: &mut Stream<W>) -> Result<(), CaptureError> {
        let mut nodes = NodeWriter { capture: self, perms: HashMap::new() };
        let mut path = String::new();
        let mut pending: Vec<(usize, &Node)> = vec![(0, &self.server.store.root)];
        while let Some((above, node)) = pending.pop() {
            path.truncate(above);
            if above > 0 || !node.name().is_empty() {
                path.push('/');
                path.push_str(node.name());
            }
            let full = if path.is_empty() { "/" } else { &path };
            nodes.write(stream, full, node.value(), node.perms())?;
            let len = path.len();
            pending.extend(node.children().into_iter().rev().map(|child| (len, child)));
        }
        for name in [SpecialName::RELEASE_DOMAIN, SpecialName::INTRODUCE_DOMAIN] {
            if let Some(perms) = self.server.domains.perms_of_special(name) {
                nodes.write(stream, name, b"", perms)?;
            }
        }
        Ok(())
    }

    fn write_domains<W: Write>(&self, stream: &mut Stream<W>) -> Result<(), CaptureError> {
        if self.successor == Successor::Stock(Version::V1) {
            return Ok(());
        }
        let server = self.server;
        let mut known = server.domains.known();
        known.extend(server.accounts.iter().map(|(domid, _)| domid));
        for domid in known {
            if self.successor != Successor::Own && !server.domains.is_introduced(domid) {
                continue;
            }
            let mut quotas = BTreeMap::new();
            if let Some(account) = server.accounts.get(domid) {
                quotas = account.quotas.by_name();
                server.handed_on.complete(&mut quotas);
            }
            let table = QuotaTable::of_domain(&quotas);
            let features = Some(server.domains.features(domid));
            let data = DomainData { domid, features, quotas: table.quotas() };
            stream.put(&Record::Domain(data))?;
        }
        Ok(())
    }

    fn write_policy<W: Write>(&self, stream: &mut Stream<W>) -> Result<(), CaptureError> {
        let memory = self.server.policy.memory();
        if memory.is_empty() {
            return Ok(());
        }
        if self.successor != Successor::Own {
            tracing::warn!("what the access policy has learnt is lost: the successor has none");
            return Ok(());
        }
        // A record holds a few mebioctets, so many lines at a time.
        for lines in memory.lines().collect::<Vec<_>>().chunks(POLICY_LINES) {
            let body = lines.join("\n");
            let (record_type, body) = (POLICY_MEMORY, body.as_bytes());
            stream.put(&Record::Unknown(UnknownData { record_type, body }))?;
        }
        Ok(())
    }

    /// The owner as the successor takes it.
    fn owner(&self, path: &str, owner: DomId) -> Result<DomId, CaptureError> {
        let accepted = self.successor == Successor::Own || self.server.domains.is_introduced(owner);
        if accepted {
            return Ok(owner);
        }
        if !self.forced {
            return Err(CaptureError::Owner { path: path.to_owned(), owner });
        }
        tracing::warn!(path, %owner, "node given to domain 0: its owner is not introduced");
        Ok(DomId::DOM0)
    }
}

/// Writes the watches of a connection.
pub(crate) fn write_watches<E>(
    server: &Server,
    connection: ConnectionId,
    id: StreamId,
    put: &mut impl FnMut(&Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for (key, Watch { token, depth, left_out, .. }) in server.watches.all_of(connection) {
        let (path, token) = (&key.as_bytes()[*left_out..], token.as_octets());
        let plain = Record::Watch(WatchData { connection: id, path, token });
        // What the field cannot tell from no limit is no limit to any path there can be.
        let levels = depth.and_then(|depth| u16::try_from(depth).ok());
        let record = match levels.filter(|levels| *levels != u16::MAX) {
            Some(levels) => {
                let depth = WatchDepth::Levels(levels);
                Record::WatchExtended(WatchExtendedData { connection: id, depth, path, token })
            }
            None if depth.is_some() => {
                let depth = WatchDepth::Unlimited;
                Record::WatchExtended(WatchExtendedData { connection: id, depth, path, token })
            }
            None => plain,
        };
        put(&record)?;
    }
    Ok(())
}

struct Stream<W> {
    writer: StreamWriter<W>,
    /// What records become for a peer that deviates.
    converter: Option<Converter>,
}

impl<W: Write> Stream<W> {
    fn put(&mut self, record: &Record<'_>) -> Result<(), CaptureError> {
        let Some(converter) = &self.converter else { return Ok(self.writer.write(record)?) };
        let converted = converter.convert(*record);
        if let Some(loss) = converted.loss {
            tracing::warn!(?loss, "the successor does not get all");
        }
        Ok(converted.record.map_or(Ok(()), |record| self.writer.write(&record))?)
    }
}

/// Nodes share permissions, which are known by where they are.
struct NodeWriter<'c, 's> {
    capture: &'c Capture<'s>,
    perms: HashMap<*const Perms, Vec<NodePerm>>,
}

impl NodeWriter<'_, '_> {
    fn write<W: Write>(
        &mut self,
        stream: &mut Stream<W>,
        path: &str,
        value: &[u8],
        perms: &Perms,
    ) -> Result<(), CaptureError> {
        let known = self.perms.entry(std::ptr::from_ref(perms)).or_insert_with(|| entries(perms));
        let owner = self.capture.owner(path, perms.owner())?;
        if owner != perms.owner() {
            // Not shared: other nodes with these permissions are to be told of as well.
            let mut changed = known.clone();
            changed[0].domid = owner;
            let scope = NodeScope::Committed;
            let data = NodeData { scope, perms: &changed, path: path.as_bytes(), value };
            return stream.put(&Record::Node(data));
        }
        let scope = NodeScope::Committed;
        stream.put(&Record::Node(NodeData { scope, perms: known, path: path.as_bytes(), value }))
    }
}

/// Permissions as records have them.
pub(crate) fn entries(perms: &Perms) -> Vec<NodePerm> {
    perms.entries().iter().map(|entry| NodePerm::new(entry.access, entry.domid)).collect()
}

impl crate::quota::Quotas {
    /// The limits by name.
    pub(crate) fn by_name(&self) -> BTreeMap<xenstore_proto::QuotaName, u32> {
        let all = crate::quota::Quota::ALL.into_iter();
        all.filter_map(|quota| Some((quota.name().parse().ok()?, self.get(quota)))).collect()
    }
}
