//! Requests, typed, to and from their payloads.

use crate::domid::DomId;
use crate::header::{MessageType, RequestId, TxId};
use crate::message::{Message, PayloadTooLong, encode_message};
use crate::path::{Path, PathOrSpecial};
use crate::payload::{Fields, PayloadError, put};
use crate::perms::Perms;
use crate::quota::{Features, QuotaName};
use crate::token::Token;

/// Every operation of the protocol, with its arguments.
///
/// [`Request::decode`] and [`Request::encode`] are inverse. The payload of each is drawn in its variant: `|` is a NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// `command|(argument|)*`: a command to the daemon itself.
    Control(Vec<Vec<u8>>),
    /// `path|`: the names of the children.
    Directory(Path),
    /// `path|`: the value.
    Read(Path),
    /// `path|`: the permissions.
    GetPerms(PathOrSpecial),
    /// `path|token|` and, with a depth, `depth|`: events of the path and what lies below it.
    Watch {
        /// What to watch.
        path: PathOrSpecial,
        /// What comes back in events.
        token: Token,
        /// How many levels below the path are watched; `None` for all. Servers before Xen 4.22 refuse a number.
        depth: Option<u32>,
    },
    /// `path|token|`
    Unwatch {
        /// The path of the watch.
        path: PathOrSpecial,
        /// The token of the watch.
        token: Token,
    },
    /// `|`
    TransactionStart,
    /// `T|` or `F|`: commit, or drop.
    TransactionEnd {
        /// Whether to commit.
        commit: bool,
    },
    /// `domid|gfn|port|`
    Introduce {
        /// The domain.
        domid: DomId,
        /// The frame of its ring.
        gfn: u64,
        /// The event channel of its ring.
        event_channel: u32,
    },
    /// `domid|`
    Release(DomId),
    /// `domid|`
    GetDomainPath(DomId),
    /// `path|value`, the value without a NUL at its end.
    Write {
        /// The node.
        path: Path,
        /// Its new value.
        value: Vec<u8>,
    },
    /// `path|`
    Mkdir(Path),
    /// `path|`
    Rm(Path),
    /// `path|(permission|)+`
    SetPerms {
        /// The node.
        path: PathOrSpecial,
        /// Its new permissions.
        perms: Perms,
    },
    /// `domid|`
    IsDomainIntroduced(DomId),
    /// `domid|`
    Resume(DomId),
    /// `domid|target|`
    SetTarget {
        /// The domain that gets more permissions.
        domid: DomId,
        /// The domain whose permissions it gets.
        target: DomId,
    },
    /// `|`
    ResetWatches,
    /// `path|offset|`
    DirectoryPart {
        /// The directory.
        path: Path,
        /// From which octet of the list on.
        offset: u32,
    },
    /// Nothing, or `domid|`. oxenstored 4.17 does not notice an empty payload until more octets arrive.
    GetFeature(Option<DomId>),
    /// `domid|bits|`
    SetFeature {
        /// The domain.
        domid: DomId,
        /// What to offer it.
        features: Features,
    },
    /// Nothing, `quota|`, or `domid|quota|`.
    GetQuota(QuotaQuery),
    /// `quota|value|` or `domid|quota|value|`
    SetQuota {
        /// The domain; `None` for the default of new domains.
        domid: Option<DomId>,
        /// Which quota.
        quota: QuotaName,
        /// Its new value; 0 for no limit.
        value: u32,
    },
    /// A number without a meaning (or one that only servers send), kept as it came.
    Unknown {
        /// The number.
        ty: MessageType,
        /// The octets.
        payload: Vec<u8>,
    },
}

/// What GET_QUOTA asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuotaQuery {
    /// The names of all quotas.
    Names,
    /// The default of new domains.
    Default(QuotaName),
    /// What one domain has.
    Domain(DomId, QuotaName),
}

impl Request {
    /// The number of the operation.
    pub fn message_type(&self) -> MessageType {
        match self {
            Self::Control(_) => MessageType::CONTROL,
            Self::Directory(_) => MessageType::DIRECTORY,
            Self::Read(_) => MessageType::READ,
            Self::GetPerms(_) => MessageType::GET_PERMS,
            Self::Watch { .. } => MessageType::WATCH,
            Self::Unwatch { .. } => MessageType::UNWATCH,
            Self::TransactionStart => MessageType::TRANSACTION_START,
            Self::TransactionEnd { .. } => MessageType::TRANSACTION_END,
            Self::Introduce { .. } => MessageType::INTRODUCE,
            Self::Release(_) => MessageType::RELEASE,
            Self::GetDomainPath(_) => MessageType::GET_DOMAIN_PATH,
            Self::Write { .. } => MessageType::WRITE,
            Self::Mkdir(_) => MessageType::MKDIR,
            Self::Rm(_) => MessageType::RM,
            Self::SetPerms { .. } => MessageType::SET_PERMS,
            Self::IsDomainIntroduced(_) => MessageType::IS_DOMAIN_INTRODUCED,
            Self::Resume(_) => MessageType::RESUME,
            Self::SetTarget { .. } => MessageType::SET_TARGET,
            Self::ResetWatches => MessageType::RESET_WATCHES,
            Self::DirectoryPart { .. } => MessageType::DIRECTORY_PART,
            Self::GetFeature(_) => MessageType::GET_FEATURE,
            Self::SetFeature { .. } => MessageType::SET_FEATURE,
            Self::GetQuota(_) => MessageType::GET_QUOTA,
            Self::SetQuota { .. } => MessageType::SET_QUOTA,
            Self::Unknown { ty, .. } => *ty,
        }
    }

    /// The path that the request is about, as text, for messages to people.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Directory(path) | Self::Read(path) | Self::Mkdir(path) | Self::Rm(path) => {
                Some(path.as_str())
            }
            Self::Write { path, .. } | Self::DirectoryPart { path, .. } => Some(path.as_str()),
            Self::GetPerms(path) => Some(path.as_str()),
            Self::Watch { path, .. } | Self::Unwatch { path, .. } | Self::SetPerms { path, .. } => {
                Some(path.as_str())
            }
            _ => None,
        }
    }

    /// Appends the request as it stands on the wire.
    ///
    /// # Errors
    ///
    /// If the payload is longer than `payload_max` ([`crate::limits::PAYLOAD_MAX`], or what the transport says); nothing
    /// is appended then.
    pub fn encode(
        &self,
        request_id: RequestId,
        tx_id: TxId,
        payload_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), PayloadTooLong> {
        encode_message(self.message_type(), request_id, tx_id, payload_max, out, |out| {
            self.encode_payload(out)
        })
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Control(words) => words.iter().for_each(|word| put(out, word)),
            Self::Directory(path) | Self::Read(path) | Self::Mkdir(path) | Self::Rm(path) => {
                put(out, path.as_str())
            }
            Self::GetPerms(path) => put(out, path.as_str()),
            Self::Watch { path, token, depth } => {
                put(out, path.as_str());
                put(out, token.as_octets());
                if let Some(depth) = depth {
                    put(out, depth.to_string());
                }
            }
            Self::Unwatch { path, token } => {
                put(out, path.as_str());
                put(out, token.as_octets());
            }
            Self::TransactionStart | Self::ResetWatches => put(out, ""),
            Self::TransactionEnd { commit } => put(out, if *commit { "T" } else { "F" }),
            Self::Introduce { domid, gfn, event_channel } => {
                put(out, domid.to_string());
                put(out, gfn.to_string());
                put(out, event_channel.to_string());
            }
            Self::Release(domid)
            | Self::GetDomainPath(domid)
            | Self::IsDomainIntroduced(domid)
            | Self::Resume(domid)
            | Self::GetFeature(Some(domid)) => put(out, domid.to_string()),
            Self::Write { path, value } => {
                put(out, path.as_str());
                out.extend_from_slice(value);
            }
            Self::SetPerms { path, perms } => {
                put(out, path.as_str());
                perms.entries().iter().for_each(|perm| put(out, perm.to_string()));
            }
            Self::SetTarget { domid, target } => {
                put(out, domid.to_string());
                put(out, target.to_string());
            }
            Self::DirectoryPart { path, offset } => {
                put(out, path.as_str());
                put(out, offset.to_string());
            }
            Self::GetFeature(None) | Self::GetQuota(QuotaQuery::Names) => {}
            Self::SetFeature { domid, features } => {
                put(out, domid.to_string());
                put(out, features.0.to_string());
            }
            Self::GetQuota(QuotaQuery::Default(quota)) => put(out, quota.as_str()),
            Self::GetQuota(QuotaQuery::Domain(domid, quota)) => {
                put(out, domid.to_string());
                put(out, quota.as_str());
            }
            Self::SetQuota { domid, quota, value } => {
                if let Some(domid) = domid {
                    put(out, domid.to_string());
                }
                put(out, quota.as_str());
                put(out, value.to_string());
            }
            Self::Unknown { payload, .. } => out.extend_from_slice(payload),
        }
    }

    /// Reads a request out of a message. A number without a meaning gives [`Request::Unknown`], never an error.
    ///
    /// # Errors
    ///
    /// If the payload does not have the shape of its operation; a server answers EINVAL.
    pub fn decode(message: &Message) -> Result<Self, PayloadError> {
        let mut fields = Fields::new(&message.payload);
        let request = match message.ty {
            MessageType::CONTROL => {
                let mut words = vec![fields.string()?.to_vec()];
                while !fields.is_empty() {
                    words.push(fields.string()?.to_vec());
                }
                Self::Control(words)
            }
            MessageType::DIRECTORY => Self::Directory(fields.path()?),
            MessageType::READ => Self::Read(fields.path()?),
            MessageType::GET_PERMS => Self::GetPerms(fields.path_or_special()?),
            MessageType::WATCH => Self::Watch {
                path: fields.path_or_special()?,
                token: fields.token()?,
                depth: {
                    fields.reserved();
                    if fields.is_empty() { None } else { Some(fields.number32("depth")?) }
                },
            },
            MessageType::UNWATCH => {
                Self::Unwatch { path: fields.path_or_special()?, token: fields.token()? }
            }
            // The content of these two is reserved: servers ignore it.
            MessageType::TRANSACTION_START => {
                fields.rest();
                Self::TransactionStart
            }
            MessageType::RESET_WATCHES => {
                fields.rest();
                Self::ResetWatches
            }
            MessageType::TRANSACTION_END => match fields.string()? {
                b"T" => Self::TransactionEnd { commit: true },
                b"F" => Self::TransactionEnd { commit: false },
                _ => {
                    return Err(PayloadError::Word {
                        what: "end of the transaction",
                        allowed: "T, F",
                    });
                }
            },
            MessageType::INTRODUCE => {
                let domid = fields.domid()?;
                let gfn = fields.number("frame number")?;
                let event_channel = fields.number32("event channel")?;
                // What follows is reserved.
                fields.rest();
                Self::Introduce { domid, gfn, event_channel }
            }
            MessageType::RELEASE => Self::Release(fields.domid()?),
            MessageType::GET_DOMAIN_PATH => Self::GetDomainPath(fields.domid()?),
            MessageType::WRITE => {
                Self::Write { path: fields.path()?, value: fields.rest().to_vec() }
            }
            MessageType::MKDIR => Self::Mkdir(fields.path()?),
            MessageType::RM => Self::Rm(fields.path()?),
            MessageType::SET_PERMS => {
                Self::SetPerms { path: fields.path_or_special()?, perms: fields.perms()? }
            }
            MessageType::IS_DOMAIN_INTRODUCED => Self::IsDomainIntroduced(fields.domid()?),
            MessageType::RESUME => Self::Resume(fields.domid()?),
            MessageType::SET_TARGET => {
                Self::SetTarget { domid: fields.domid()?, target: fields.domid()? }
            }
            MessageType::DIRECTORY_PART => {
                Self::DirectoryPart { path: fields.path()?, offset: fields.number32("offset")? }
            }
            MessageType::GET_FEATURE if fields.is_empty() => Self::GetFeature(None),
            MessageType::GET_FEATURE => Self::GetFeature(Some(fields.domid()?)),
            MessageType::SET_FEATURE => Self::SetFeature {
                domid: fields.domid()?,
                features: Features(fields.number32("feature bits")?),
            },
            MessageType::GET_QUOTA => Self::GetQuota(decode_quota_query(&mut fields)?),
            MessageType::SET_QUOTA => decode_set_quota(&mut fields)?,
            ty => Self::Unknown { ty, payload: fields.rest().to_vec() },
        };
        if matches!(message.ty, MessageType::SET_PERMS | MessageType::WATCH | MessageType::UNWATCH)
        {
            fields.reserved();
        }
        fields.end()?;
        Ok(request)
    }
}

fn decode_quota_query(fields: &mut Fields<'_>) -> Result<QuotaQuery, PayloadError> {
    if fields.is_empty() {
        return Ok(QuotaQuery::Names);
    }
    let first = fields.string()?;
    if fields.is_empty() {
        return Ok(QuotaQuery::Default(QuotaName::from_octets(first)?));
    }
    let domid = Fields::new(&[first, &[0]].concat()).domid()?;
    Ok(QuotaQuery::Domain(domid, QuotaName::from_octets(fields.string()?)?))
}

fn decode_set_quota(fields: &mut Fields<'_>) -> Result<Request, PayloadError> {
    let (first, second) = (fields.string()?, fields.string()?);
    let as_number = |text: &[u8]| Fields::new(&[text, &[0]].concat()).number32("quota");
    if fields.is_empty() {
        let (quota, value) = (QuotaName::from_octets(first)?, as_number(second)?);
        return Ok(Request::SetQuota { domid: None, quota, value });
    }
    let domid = Some(Fields::new(&[first, &[0]].concat()).domid()?);
    Ok(Request::SetQuota {
        domid,
        quota: QuotaName::from_octets(second)?,
        value: fields.number32("quota")?,
    })
}
