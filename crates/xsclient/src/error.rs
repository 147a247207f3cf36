//! What can go wrong with an operation, and with the connection under it.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use xenstore_proto::{Errno, MessageType, PayloadTooLong, QuotaQuery, Request};

use crate::connection::ProtocolError;

/// An operation that failed: which one, on what, and why.
///
/// ```text
/// READ of /local/domain/7/name: refused with ENOENT
/// ```
#[derive(Clone, Debug)]
pub struct OperationError {
    operation: MessageType,
    subject: Option<Box<str>>,
    failure: Failure,
}

impl OperationError {
    pub(crate) fn new(request: &Request, failure: Failure) -> Self {
        Self { operation: request.message_type(), subject: subject(request), failure }
    }

    pub(crate) fn of_watch(path: &str, failure: Failure) -> Self {
        Self { operation: MessageType::WATCH, subject: Some(path.into()), failure }
    }

    /// The operation.
    pub fn operation(&self) -> MessageType {
        self.operation
    }

    /// What it acted on: a path, `domain 7`, the name of a quota or of a control command.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// Why it failed.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// The server's word, if it was the server who refused.
    pub fn errno(&self) -> Option<&Errno> {
        match &self.failure {
            Failure::Refused(errno) => Some(errno),
            _ => None,
        }
    }

    /// Whether there is no such node, domain or watch (ENOENT).
    pub fn is_not_found(&self) -> bool {
        self.errno() == Some(&Errno::ENOENT)
    }

    /// Whether a transaction met another change (EAGAIN, or all tries used up).
    pub fn is_conflict(&self) -> bool {
        self.errno() == Some(&Errno::EAGAIN) || matches!(self.failure, Failure::Conflict { .. })
    }

    /// Whether the server does not know the command, so that asking again is of no use.
    pub fn is_unknown_command(&self) -> bool {
        matches!(self.failure, Failure::UnknownCommand)
    }

    /// Whether the deadline passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self.failure, Failure::Timeout { .. })
    }

    /// Whether the connection is gone, so that only [`crate::Client::reconnect`] helps.
    pub fn is_lost(&self) -> bool {
        matches!(self.failure, Failure::Lost(_))
    }
}

impl fmt::Display for OperationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.operation.fmt(f)?;
        if let Some(subject) = &self.subject {
            write!(f, " of {subject}")?;
        }
        write!(f, ": {}", self.failure)
    }
}

impl Error for OperationError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // The failure's own words are in the message already.
        self.failure.source()
    }
}

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The server said no.
    #[error("refused with {0}")]
    Refused(Errno),
    /// The deadline passed. The connection stays in use: a late reply is discarded, and what it opened is closed again.
    #[error("{}", if *sent {
        "no reply before the deadline; the server may still act on it"
    } else {
        "not sent before the deadline; it has no effect"
    })]
    Timeout {
        /// Whether any of the request was sent. If not, it never will be.
        sent: bool,
    },
    /// The request does not fit a message of this transport; nothing was sent.
    #[error(transparent)]
    TooLong(PayloadTooLong),
    /// The connection is gone, now or since an earlier call.
    #[error(transparent)]
    Lost(ConnectionLost),
    /// A value that is not UTF-8 where text was asked for.
    #[error("the value is not text")]
    NotText {
        /// Where it stops being text.
        source: std::str::Utf8Error,
    },
    /// A directory too big for one reply, on a server without DIRECTORY_PART.
    #[error("the directory does not fit one reply, and the server does not know DIRECTORY_PART")]
    NoParts,
    /// A directory that changed each time while it was read in parts.
    #[error("the directory changed in each of {attempts} attempts to read it in parts")]
    DirectoryChanging {
        /// Attempts made.
        attempts: u32,
    },
    /// A directory longer than the client keeps.
    #[error("the directory's names take more than {max} octets")]
    DirectoryTooLong {
        /// Octets allowed.
        max: usize,
    },
    /// A reply that is well formed but answers something else: the server lies. The connection is still in step.
    #[error("the reply is not {wanted}")]
    UnexpectedReply {
        /// What the reply should have been.
        wanted: &'static str,
    },
    /// Every try of a transaction met another change.
    #[error("another change got in between in each of {attempts} attempts")]
    Conflict {
        /// Attempts made.
        attempts: u32,
    },
    /// A command of CONTROL that the server does not know: it refuses it with EINVAL, or, as oxenstored, says OK and does nothing.
    #[error("the server does not know the command")]
    UnknownCommand,
    /// A domain's state that changed each time while it was read in pages.
    #[error("the domain's state changed in each of {attempts} attempts to read it in pages")]
    StateChanging {
        /// Attempts made.
        attempts: u32,
    },
    /// A domain's state longer than is kept, or sent.
    #[error("the domain's state takes more than {max} octets")]
    StateTooLong {
        /// Octets allowed.
        max: usize,
    },
    /// A watch or transaction of a connection that is no more, of another client, or already ended.
    #[error("the watch or transaction is not of this connection, or has ended")]
    StaleHandle,
    /// A token that another watch of this client has.
    #[error("another watch of this client has the same token")]
    TokenInUse,
    /// A depth on a transport that does not carry it to the server.
    #[error("the transport does not carry the depth of a watch to the server")]
    DepthNotCarried,
    /// A fence on a transport that does not keep events in order with replies.
    #[error("the transport does not keep events in order with replies, so a fence proves nothing")]
    UnorderedEvents,
    /// A slot of another batch, or one whose reply was taken already.
    #[error("the slot is of another batch, or its reply was taken already")]
    NoSuchSlot,
}

/// Why there is no connection any more. Each later call says it again.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionLost {
    /// The server closed the connection between messages.
    #[error("the server closed the connection")]
    Closed,
    /// The server closed the connection inside a message.
    #[error("the server closed the connection {octets} octets into a message")]
    ClosedInside {
        /// Octets of the message that did arrive.
        octets: usize,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol")]
    Protocol(#[source] ProtocolError),
    /// The transport failed.
    #[error("the transport failed")]
    Transport(#[source] Arc<io::Error>),
    /// The runtime whose task carried an asynchronous client's connection has ended.
    #[error("the runtime that carried the connection has ended")]
    RuntimeEnded,
}

impl From<ProtocolError> for ConnectionLost {
    fn from(error: ProtocolError) -> Self {
        Self::Protocol(error)
    }
}

impl From<io::Error> for ConnectionLost {
    fn from(error: io::Error) -> Self {
        Self::Transport(Arc::new(error))
    }
}

fn subject(request: &Request) -> Option<Box<str>> {
    if let Some(path) = request.subject() {
        return Some(path.into());
    }
    match request {
        Request::Introduce { domid, .. }
        | Request::Release(domid)
        | Request::GetDomainPath(domid)
        | Request::IsDomainIntroduced(domid)
        | Request::Resume(domid)
        | Request::SetTarget { domid, .. }
        | Request::GetFeature(Some(domid))
        | Request::SetFeature { domid, .. } => Some(format!("domain {domid}").into()),
        Request::GetQuota(QuotaQuery::Default(quota))
        | Request::SetQuota { domid: None, quota, .. } => Some(quota.as_str().into()),
        Request::GetQuota(QuotaQuery::Domain(domid, quota))
        | Request::SetQuota { domid: Some(domid), quota, .. } => {
            Some(format!("{quota} of domain {domid}").into())
        }
        Request::Control(words) => words.first().map(|word| word.escape_ascii().to_string().into()),
        _ => None,
    }
}
