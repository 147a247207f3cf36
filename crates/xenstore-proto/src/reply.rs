//! Replies, typed, to and from their payloads.

use crate::domid::decimal;
use crate::errno::Errno;
use crate::header::{MessageType, RequestId, TxId};
use crate::message::{Message, PayloadTooLong, encode_message};
use crate::path::{Name, Path, PathOrSpecial};
use crate::payload::{Fields, PayloadError, put};
use crate::perms::{Perms, PermsError};
use crate::quota::{Features, QuotaName};
use crate::token::Token;

/// What a server answers. Which of these an operation can get is in the table of [`Reply::decode`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `OK|`
    Ok,
    /// READ: the value, without a NUL.
    Value(Vec<u8>),
    /// DIRECTORY: `(name|)*`, in an order that is the server's own.
    Names(Vec<Name>),
    /// GET_PERMS: `(permission|)+`
    Perms(Perms),
    /// TRANSACTION_START: `number|`
    Transaction(TxId),
    /// GET_DOMAIN_PATH: `path|`
    DomainPath(Path),
    /// IS_DOMAIN_INTRODUCED: `T|` or `F|`
    Introduced(bool),
    /// DIRECTORY_PART: `generation|(name|)*`, and one NUL more in the last part.
    Part(DirectoryPart),
    /// GET_FEATURE: `bits|`
    Features(Features),
    /// GET_QUOTA without a name: names separated by blanks.
    QuotaNames(Vec<QuotaName>),
    /// GET_QUOTA with a name: `value|`
    QuotaValue(u32),
    /// CONTROL: text that is the server's own, without the closing NUL.
    Text(Vec<u8>),
    /// ERROR: `name|`
    Error(Errno),
    /// The answer to an operation without a meaning here, or permissions for a number that no domain can have, kept as
    /// they came.
    Unknown(Vec<u8>),
}

/// A part of a directory's list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryPart {
    /// Changes when the directory does: parts with different numbers do not belong together.
    pub generation: u64,
    /// The names of this part.
    pub names: Vec<Name>,
    /// Whether the list ends here.
    pub last: bool,
}

impl DirectoryPart {
    /// How many octets of the list the names take: what the next part's offset grows by.
    pub fn octets(&self) -> usize {
        self.names.iter().map(|name| name.as_str().len() + 1).sum()
    }
}

impl Reply {
    /// Appends the reply to a request of type `ty` as it stands on the wire.
    ///
    /// # Errors
    ///
    /// If the payload is longer than `payload_max`: a server answers E2BIG instead. Nothing is appended then.
    pub fn encode(
        &self,
        ty: MessageType,
        request_id: RequestId,
        tx_id: TxId,
        payload_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), PayloadTooLong> {
        let ty = if matches!(self, Self::Error(_)) { MessageType::ERROR } else { ty };
        encode_message(ty, request_id, tx_id, payload_max, out, |out| self.encode_payload(out))
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ok => put(out, "OK"),
            Self::Value(octets) | Self::Unknown(octets) => out.extend_from_slice(octets),
            Self::Names(names) => names.iter().for_each(|name| put(out, name.as_str())),
            Self::Perms(perms) => {
                perms.entries().iter().for_each(|perm| put(out, perm.to_string()))
            }
            Self::Transaction(tx) => put(out, tx.to_string()),
            Self::DomainPath(path) => put(out, path.as_str()),
            Self::Introduced(yes) => put(out, if *yes { "T" } else { "F" }),
            Self::Part(part) => {
                put(out, part.generation.to_string());
                part.names.iter().for_each(|name| put(out, name.as_str()));
                if part.last {
                    out.push(0);
                }
            }
            Self::Features(features) => put(out, features.0.to_string()),
            Self::QuotaNames(names) => {
                let names: Vec<&str> = names.iter().map(QuotaName::as_str).collect();
                put(out, names.join(" "));
            }
            Self::QuotaValue(value) => put(out, value.to_string()),
            Self::Text(text) => put(out, text),
            Self::Error(errno) => put(out, errno.name()),
        }
    }

    /// Reads the reply to a request of type `asked` out of a message.
    ///
    /// # Errors
    ///
    /// If the message is no reply to such a request, or its payload does not have the shape that one has: the server is
    /// broken, or the stream is.
    pub fn decode(asked: MessageType, message: &Message) -> Result<Self, ReplyError> {
        let wrong = |source| ReplyError::Payload { ty: message.ty, source };
        if message.ty == MessageType::ERROR {
            let mut fields = Fields::new(&message.payload);
            let name = fields.string().map_err(wrong)?;
            fields.end().map_err(wrong)?;
            return Errno::from_octets(name).map(Self::Error).ok_or(ReplyError::ErrorName);
        }
        if message.ty != asked {
            return Err(ReplyError::OtherType { asked, got: message.ty });
        }
        Self::decode_payload(asked, &message.payload).map_err(wrong)
    }

    fn decode_payload(asked: MessageType, payload: &[u8]) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(payload);
        let reply = match asked {
            MessageType::READ => Self::Value(fields.rest().to_vec()),
            MessageType::DIRECTORY => Self::Names(names(&mut fields)?),
            MessageType::GET_PERMS => match fields.perms() {
                Ok(perms) => Self::Perms(perms),
                // oxenstored lets any guest name such numbers, and a guest must not look like a broken server.
                Err(PayloadError::Perms(PermsError::DomId)) => {
                    return Ok(Self::Unknown(payload.to_vec()));
                }
                Err(error) => return Err(error),
            },
            MessageType::TRANSACTION_START => {
                Self::Transaction(TxId(fields.number32("transaction id")?))
            }
            MessageType::GET_DOMAIN_PATH => Self::DomainPath(fields.path()?),
            MessageType::IS_DOMAIN_INTRODUCED => match fields.string()? {
                b"T" => Self::Introduced(true),
                b"F" => Self::Introduced(false),
                _ => return Err(PayloadError::Word { what: "answer", allowed: "T, F" }),
            },
            MessageType::DIRECTORY_PART => Self::Part(part(&mut fields)?),
            MessageType::GET_FEATURE => Self::Features(Features(fields.number32("feature bits")?)),
            MessageType::GET_QUOTA => quota(fields.string()?)?,
            MessageType::CONTROL => {
                let text = fields.rest();
                Self::Text(text.strip_suffix(&[0]).unwrap_or(text).to_vec())
            }
            ty if ty.name().is_some() => match fields.string()? {
                b"OK" => Self::Ok,
                _ => return Err(PayloadError::Word { what: "answer", allowed: "OK" }),
            },
            _ => Self::Unknown(fields.rest().to_vec()),
        };
        fields.end()?;
        Ok(reply)
    }
}

fn names(fields: &mut Fields<'_>) -> Result<Vec<Name>, PayloadError> {
    let mut names = Vec::new();
    while !fields.is_empty() {
        names.push(Name::from_octets(fields.string()?)?);
    }
    Ok(names)
}

fn part(fields: &mut Fields<'_>) -> Result<DirectoryPart, PayloadError> {
    let generation = fields.number("generation")?;
    let mut part = DirectoryPart { generation, names: Vec::new(), last: false };
    while !fields.is_empty() {
        match fields.string()? {
            [] => {
                part.last = true;
                break;
            }
            name => part.names.push(Name::from_octets(name)?),
        }
    }
    Ok(part)
}

fn quota(text: &[u8]) -> Result<Reply, PayloadError> {
    if let Some(value) = decimal(text) {
        let value = value.try_into().map_err(|_| PayloadError::Number { what: "quota" })?;
        return Ok(Reply::QuotaValue(value));
    }
    let words = text.split(|&c| c == b' ').filter(|word| !word.is_empty());
    Ok(Reply::QuotaNames(words.map(QuotaName::from_octets).collect::<Result<_, _>>()?))
}

/// Why a message is no reply to what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// The reply is to another operation.
    #[error("asked {asked}, got a reply to {got}")]
    OtherType {
        /// What was asked.
        asked: MessageType,
        /// What the reply names.
        got: MessageType,
    },
    /// The payload does not have the shape of this reply.
    #[error("malformed reply to {ty}")]
    Payload {
        /// What the reply names.
        ty: MessageType,
        /// What is wrong with it.
        source: PayloadError,
    },
    /// An error reply that holds no name of an error.
    #[error("error reply without the name of an error")]
    ErrorName,
}

/// An event of a watch: `path|token|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed; relative if the watch was set on a relative path.
    pub path: PathOrSpecial,
    /// The token of the watch.
    pub token: Token,
}

impl WatchEvent {
    /// Appends the event as it stands on the wire.
    ///
    /// # Errors
    ///
    /// If path and token together are longer than `payload_max`: a server drops the event.
    pub fn encode(&self, payload_max: usize, out: &mut Vec<u8>) -> Result<(), PayloadTooLong> {
        encode_message(
            MessageType::WATCH_EVENT,
            RequestId(0),
            TxId::NONE,
            payload_max,
            out,
            |out| {
                put(out, self.path.as_str());
                put(out, self.token.as_octets());
            },
        )
    }

    /// Reads the event out of a message of type [`MessageType::WATCH_EVENT`].
    ///
    /// # Errors
    ///
    /// If the payload is no event.
    pub fn decode(message: &Message) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(&message.payload);
        let event = Self { path: fields.path_or_special()?, token: fields.token()? };
        fields.end()?;
        Ok(event)
    }
}
