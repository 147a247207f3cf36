//! JSON objects as records.

use std::fmt;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, Unexpected, Visitor};
use xenstore_proto::{DomId, Features, TxId};

use super::failure::FieldError;
use super::told::{BODY, INPUT, NAME, Names, OUTPUT, PATH, RING, SOCKET, TOKEN, UNLIMITED, VALUE};
use super::words;
use crate::preamble::Version;
use crate::record::{
    ConnectionId, ConnectionSpec, GlobalData, NodePerm, NodeScope, OwnedRecord, QuotaTable,
    RecordType, TransactionData, WatchDepth,
};

/// A field of a record and what is wrong with it. Without a name it is the record as a whole.
pub(super) type Wrong = (String, FieldError);

/// All fields that records have, as they stand in the JSON; which of them belong together says the type.
macro_rules! fields {
    ($($name:ident: $type:ty,)*) => {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(super) struct Fields {
            #[serde(rename = "type")]
            record_type: String,
            #[serde(default, rename = "index")]
            _index: IgnoredAny,
            #[serde(default, rename = "offset")]
            _offset: IgnoredAny,
            $(#[serde(default, deserialize_with = "some")] $name: Option<$type>,)*
        }

        impl Fields {
            /// A field that has not been taken.
            fn left(&self) -> Option<&'static str> {
                $(if self.$name.is_some() {
                    return Some(stringify!($name));
                })*
                None
            }
        }
    };
}

fields! {
    socket_fd: Option<i32>,
    event_channel_fd: Option<i32>,
    connection: u32,
    kind: Choice,
    domid: u16,
    target: Option<u16>,
    port: u32,
    fd: i32,
    spec: String,
    unique_id: Option<u64>,
    output_rest: u16,
    input: String,
    input_hex: String,
    output: String,
    output_hex: String,
    depth: Option<Choice>,
    path: String,
    path_hex: String,
    token: String,
    token_hex: String,
    transaction: u32,
    access: String,
    perms: String,
    value: String,
    value_hex: String,
    per_domain: Vec<Quota>,
    global: Vec<Quota>,
    features: Option<u32>,
    quotas: Vec<Quota>,
    body: String,
    body_hex: String,
}

/// A field that is there, be it `null`, which serde takes for none otherwise.
fn some<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

/// A number or a name. Its own visitor, since serde's untagged enums hold whatever else stands there before they refuse it.
#[derive(Debug)]
enum Choice {
    Number(u16),
    Word(String),
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Choice;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number up to 65535 or a name")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Choice, E> {
                let refused = || E::invalid_value(Unexpected::Unsigned(number), &self);
                u16::try_from(number).map(Choice::Number).map_err(|_| refused())
            }

            fn visit_str<E: Error>(self, word: &str) -> Result<Choice, E> {
                Ok(Choice::Word(word.to_owned()))
            }
        }

        from.deserialize_any(Either)
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Quota {
    #[serde(default, deserialize_with = "some")]
    name: Option<String>,
    #[serde(default, deserialize_with = "some")]
    name_hex: Option<String>,
    value: u32,
}

impl Fields {
    /// The record that these are the fields of, in a stream of that version. None is missing, and none too much.
    pub(super) fn build(mut self, version: Version) -> Result<OwnedRecord, Wrong> {
        let record_type = words::record_type(&self.record_type)
            .filter(|record_type| *record_type != RecordType::END)
            .ok_or_else(|| ("type".to_owned(), FieldError::Type))?;
        let given = match record_type {
            RecordType::GLOBAL_DATA => OwnedRecord::Global(GlobalData {
                socket_fd: descriptor(taken(&mut self.socket_fd, "socket_fd")?, "socket_fd")?,
                event_channel_fd: descriptor(
                    taken(&mut self.event_channel_fd, "event_channel_fd")?,
                    "event_channel_fd",
                )?,
            }),
            RecordType::CONNECTION_DATA => self.connection_data()?,
            RecordType::WATCH_DATA => {
                OwnedRecord::Watch(self.connection()?, self.path()?, self.token()?)
            }
            RecordType::WATCH_DATA_EXTENDED => {
                let depth = self.depth()?;
                OwnedRecord::WatchExtended(self.connection()?, depth, self.path()?, self.token()?)
            }
            RecordType::TRANSACTION_DATA => OwnedRecord::Transaction(TransactionData {
                connection: self.connection()?,
                transaction: self.transaction()?,
            }),
            RecordType::NODE_DATA => {
                let (scope, perms) = (self.scope()?, self.perms()?);
                let value = octets(&mut self.value, &mut self.value_hex, VALUE)?;
                OwnedRecord::Node(scope, perms, self.path()?, value)
            }
            RecordType::GLOBAL_QUOTA_DATA => OwnedRecord::GlobalQuota(
                table(taken(&mut self.per_domain, "per_domain")?, "per_domain")?,
                table(taken(&mut self.global, "global")?, "global")?,
            ),
            RecordType::DOMAIN_DATA => {
                let domid = DomId::new(taken(&mut self.domid, "domid")?);
                let features = self.features(version)?;
                OwnedRecord::Domain(
                    domid,
                    features,
                    table(taken(&mut self.quotas, "quotas")?, "quotas")?,
                )
            }
            _ => {
                let body = octets(&mut self.body, &mut self.body_hex, BODY)?;
                OwnedRecord::Unknown(record_type, body)
            }
        };
        match self.left() {
            Some(field) => Err((field.to_owned(), FieldError::NotOfType { record_type })),
            None => Ok(given),
        }
    }

    fn connection_data(&mut self) -> Result<OwnedRecord, Wrong> {
        let id = self.connection()?;
        let spec = match taken(&mut self.kind, "kind")? {
            Choice::Word(word) if word == RING => ConnectionSpec::Ring {
                domid: DomId::new(taken(&mut self.domid, "domid")?),
                target: target(taken(&mut self.target, "target")?)?,
                port: taken(&mut self.port, "port")?,
            },
            Choice::Word(word) if word == SOCKET => {
                ConnectionSpec::Socket { fd: taken(&mut self.fd, "fd")? }
            }
            Choice::Number(kind @ 2..) => {
                let octets = hexadecimal(&taken(&mut self.spec, "spec")?, "spec")?;
                let octets = octets.try_into().map_err(|_| wrong("spec", FieldError::Spec))?;
                ConnectionSpec::Unknown { kind, octets }
            }
            Choice::Word(_) | Choice::Number(_) => return Err(wrong("kind", FieldError::Kind)),
        };
        Ok(OwnedRecord::Connection {
            id,
            spec,
            unique_id: taken(&mut self.unique_id, "unique_id")?,
            output_rest: taken(&mut self.output_rest, "output_rest")?,
            input: octets(&mut self.input, &mut self.input_hex, INPUT)?,
            output: octets(&mut self.output, &mut self.output_hex, OUTPUT)?,
        })
    }

    fn connection(&mut self) -> Result<ConnectionId, Wrong> {
        let number = taken(&mut self.connection, "connection")?;
        ConnectionId::new(number).ok_or_else(|| wrong("connection", FieldError::ConnectionZero))
    }

    fn transaction(&mut self) -> Result<TxId, Wrong> {
        taken(&mut self.transaction, "transaction").map(TxId)
    }

    fn path(&mut self) -> Result<Vec<u8>, Wrong> {
        octets(&mut self.path, &mut self.path_hex, PATH)
    }

    fn token(&mut self) -> Result<Vec<u8>, Wrong> {
        octets(&mut self.token, &mut self.token_hex, TOKEN)
    }

    fn depth(&mut self) -> Result<WatchDepth, Wrong> {
        match taken(&mut self.depth, "depth")? {
            None => Ok(WatchDepth::Untold),
            Some(Choice::Word(word)) if word == UNLIMITED => Ok(WatchDepth::Unlimited),
            Some(Choice::Number(levels)) if levels < u16::MAX => Ok(WatchDepth::Levels(levels)),
            Some(Choice::Word(_) | Choice::Number(_)) => Err(wrong("depth", FieldError::Depth)),
        }
    }

    /// Of everybody, unless one of the three fields is there that a transaction's node has.
    fn scope(&mut self) -> Result<NodeScope, Wrong> {
        if self.connection.is_none() && self.transaction.is_none() && self.access.is_none() {
            return Ok(NodeScope::Committed);
        }
        let (connection, transaction) = (self.connection()?, self.transaction()?);
        let access = words::access(&taken(&mut self.access, "access")?)
            .ok_or_else(|| wrong("access", FieldError::Access))?;
        Ok(NodeScope::Pending { connection, transaction, access })
    }

    fn perms(&mut self) -> Result<Vec<NodePerm>, Wrong> {
        words::perms(&taken(&mut self.perms, "perms")?)
            .map_err(|number| (format!("perms[{number}]"), FieldError::Perm))
    }

    /// Told in version 2, and only there: neither may become something else on the way.
    fn features(&mut self, version: Version) -> Result<Option<Features>, Wrong> {
        let features = taken(&mut self.features, "features")?;
        if features.is_some() != (version >= Version::V2) {
            return Err(wrong("features", FieldError::Features { version }));
        }
        Ok(features.map(Features))
    }
}

fn wrong(field: &str, error: FieldError) -> Wrong {
    (field.to_owned(), error)
}

fn taken<T>(field: &mut Option<T>, name: &'static str) -> Result<T, Wrong> {
    field.take().ok_or_else(|| wrong(name, FieldError::Missing))
}

fn octets(
    text: &mut Option<String>,
    hex: &mut Option<String>,
    names: Names,
) -> Result<Vec<u8>, Wrong> {
    match (text.take(), hex.take()) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(hex)) => hexadecimal(&hex, names.1),
        (Some(_), Some(_)) => Err(wrong(names.1, FieldError::Twice { text: names.0 })),
        (None, None) => Err(wrong(names.0, FieldError::Missing)),
    }
}

fn hexadecimal(digits: &str, name: &'static str) -> Result<Vec<u8>, Wrong> {
    HEXLOWER_PERMISSIVE.decode(digits.as_bytes()).map_err(|_| wrong(name, FieldError::Hexadecimal))
}

fn descriptor(fd: Option<i32>, name: &'static str) -> Result<Option<i32>, Wrong> {
    if fd == Some(-1) { Err(wrong(name, FieldError::NoDescriptor)) } else { Ok(fd) }
}

fn target(domid: Option<u16>) -> Result<Option<DomId>, Wrong> {
    let target = domid.map(DomId::new);
    if target == Some(DomId::INVALID) {
        return Err(wrong("target", FieldError::NoTarget));
    }
    Ok(target)
}

fn table(quotas: Vec<Quota>, field: &'static str) -> Result<QuotaTable, Wrong> {
    let mut table = QuotaTable::new();
    for (number, mut quota) in quotas.into_iter().enumerate() {
        let inside = |(name, error)| (format!("{field}[{number}].{name}"), error);
        let name = octets(&mut quota.name, &mut quota.name_hex, NAME).map_err(inside)?;
        table.push(&name, quota.value).map_err(|_| inside(wrong(NAME.0, FieldError::QuotaName)))?;
    }
    Ok(table)
}
