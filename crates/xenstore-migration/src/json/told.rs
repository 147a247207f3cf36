//! Records as JSON objects.

use data_encoding::HEXLOWER;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use xenstore_proto::DomId;

use super::words::{access_to_text, perms_to_text};
use crate::deviation::Deviations;
use crate::reader::{Place, Placed};
use crate::record::{ConnectionData, ConnectionSpec, NodeScope, Quotas, Record, WatchDepth};

/// The name of a field for octets that are text, and the name for others.
pub(super) type Names = (&'static str, &'static str);

pub(super) const PATH: Names = ("path", "path_hex");
pub(super) const TOKEN: Names = ("token", "token_hex");
pub(super) const VALUE: Names = ("value", "value_hex");
pub(super) const INPUT: Names = ("input", "input_hex");
pub(super) const OUTPUT: Names = ("output", "output_hex");
pub(super) const BODY: Names = ("body", "body_hex");
pub(super) const NAME: Names = ("name", "name_hex");

/// `{ "index", "offset", "type", ... }`: the place and the fields of the record, as in [`crate::json`].
impl Serialize for Placed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self { place, record } = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("index", &place.index)?;
        map.serialize_entry("offset", &place.offset)?;
        record_into(&mut map, record)?;
        map.end()
    }
}

/// `{ "type", ... }`: the fields of the record, as in [`crate::json`].
impl Serialize for Record<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        record_into(&mut map, self)?;
        map.end()
    }
}

/// `{ "index", "offset", "type" }`; the type is `null` if it was cut off.
impl Serialize for Place {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("index", &self.index)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("type", &self.record_type.map(|it| it.to_string()))?;
        map.end()
    }
}

/// `[{ "message", "count", "first" }]`.
impl Serialize for Deviations {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Deviating {
            message: String,
            count: u64,
            first: Place,
        }
        let mut sequence = to.serialize_seq(None)?;
        for (deviation, count, first) in self.iter() {
            let message = deviation.to_string();
            sequence.serialize_element(&Deviating { message, count, first })?;
        }
        sequence.end()
    }
}

/// Destructured throughout, so that a new field does not compile until it is told.
fn record_into<M: SerializeMap>(map: &mut M, record: &Record<'_>) -> Result<(), M::Error> {
    map.serialize_entry("type", &record.record_type().to_string())?;
    match *record {
        Record::Global(crate::GlobalData { socket_fd, event_channel_fd }) => {
            map.serialize_entry("socket_fd", &socket_fd)?;
            map.serialize_entry("event_channel_fd", &event_channel_fd)
        }
        Record::Connection(connection) => connection_into(map, &connection),
        Record::Watch(crate::WatchData { connection, path, token }) => {
            map.serialize_entry("connection", &connection.get())?;
            octets_into(map, PATH, path)?;
            octets_into(map, TOKEN, token)
        }
        Record::WatchExtended(crate::WatchExtendedData { connection, depth, path, token }) => {
            map.serialize_entry("connection", &connection.get())?;
            match depth {
                WatchDepth::Levels(levels) => map.serialize_entry("depth", &levels)?,
                WatchDepth::Unlimited => map.serialize_entry("depth", UNLIMITED)?,
                WatchDepth::Untold => map.serialize_entry("depth", &())?,
            }
            octets_into(map, PATH, path)?;
            octets_into(map, TOKEN, token)
        }
        Record::Transaction(crate::TransactionData { connection, transaction }) => {
            map.serialize_entry("connection", &connection.get())?;
            map.serialize_entry("transaction", &transaction.0)
        }
        Record::Node(crate::NodeData { scope, perms, path, value }) => {
            match scope {
                NodeScope::Committed => {}
                NodeScope::Pending { connection, transaction, access } => {
                    map.serialize_entry("connection", &connection.get())?;
                    map.serialize_entry("transaction", &transaction.0)?;
                    map.serialize_entry("access", &access_to_text(access))?;
                }
            }
            octets_into(map, PATH, path)?;
            map.serialize_entry("perms", &perms_to_text(perms))?;
            octets_into(map, VALUE, value)
        }
        Record::GlobalQuota(crate::GlobalQuotaData { per_domain, global }) => {
            map.serialize_entry("per_domain", &Told(per_domain))?;
            map.serialize_entry("global", &Told(global))
        }
        Record::Domain(crate::DomainData { domid, features, quotas }) => {
            map.serialize_entry("domid", &domid.get())?;
            map.serialize_entry("features", &features.map(|features| features.0))?;
            map.serialize_entry("quotas", &Told(quotas))
        }
        Record::Unknown(crate::UnknownData { record_type: _, body }) => {
            octets_into(map, BODY, body)
        }
    }
}

/// The depth of a watch that has none.
pub(super) const UNLIMITED: &str = "unlimited";

fn connection_into<M: SerializeMap>(
    map: &mut M,
    connection: &ConnectionData<'_>,
) -> Result<(), M::Error> {
    let ConnectionData { id, spec, input, output_rest, output, unique_id } = *connection;
    map.serialize_entry("connection", &id.get())?;
    match spec {
        ConnectionSpec::Ring { domid, target, port } => {
            map.serialize_entry("kind", RING)?;
            map.serialize_entry("domid", &domid.get())?;
            map.serialize_entry("target", &target.map(DomId::get))?;
            map.serialize_entry("port", &port)?;
        }
        ConnectionSpec::Socket { fd } => {
            map.serialize_entry("kind", SOCKET)?;
            map.serialize_entry("fd", &fd)?;
        }
        ConnectionSpec::Unknown { kind, octets } => {
            map.serialize_entry("kind", &kind)?;
            map.serialize_entry("spec", &HEXLOWER.encode(&octets))?;
        }
    }
    map.serialize_entry("unique_id", &unique_id)?;
    map.serialize_entry("output_rest", &output_rest)?;
    octets_into(map, INPUT, input)?;
    octets_into(map, OUTPUT, output)
}

pub(super) const RING: &str = "ring";
pub(super) const SOCKET: &str = "socket";

/// Octets that are no text are under a name of their own.
fn octets_into<M: SerializeMap>(map: &mut M, names: Names, octets: &[u8]) -> Result<(), M::Error> {
    match str::from_utf8(octets) {
        Ok(text) => map.serialize_entry(names.0, text),
        Err(_) => map.serialize_entry(names.1, &HEXLOWER.encode(octets)),
    }
}

/// Quotas in their order, doubles among them.
struct Told<'a>(Quotas<'a>);

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut sequence = to.serialize_seq(Some(self.0.len()))?;
        for (name, value) in self.0.iter() {
            sequence.serialize_element(&Quota { name, value })?;
        }
        sequence.end()
    }
}

struct Quota<'a> {
    name: &'a [u8],
    value: u32,
}

impl Serialize for Quota<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(2))?;
        octets_into(&mut map, NAME, self.name)?;
        map.serialize_entry("value", &self.value)?;
        map.end()
    }
}
