//! Message headers and the numbers in them.

use std::fmt;

use crate::domid::decimal;
use crate::limits::HEADER_LEN;

/// The number that says what a message is. Unknown numbers are kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageType(pub u32);

macro_rules! message_types {
    ($($name:ident = $number:literal, $doc:literal;)*) => {
        impl MessageType {
            $(#[doc = $doc] pub const $name: Self = Self($number);)*

            /// The name of the operation; `None` for an unknown number.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

message_types! {
    CONTROL = 0, "Commands to the daemon itself; once called DEBUG.";
    DIRECTORY = 1, "The names of a node's children.";
    READ = 2, "The value of a node.";
    GET_PERMS = 3, "The permissions of a node.";
    WATCH = 4, "Events of a path from now on.";
    UNWATCH = 5, "No more events of a watch.";
    TRANSACTION_START = 6, "A new transaction.";
    TRANSACTION_END = 7, "Commit or drop a transaction.";
    INTRODUCE = 8, "Connect a domain.";
    RELEASE = 9, "Disconnect a domain.";
    GET_DOMAIN_PATH = 10, "The base path of a domain.";
    WRITE = 11, "Set the value of a node, creating it.";
    MKDIR = 12, "Create a node.";
    RM = 13, "Remove a node and everything below.";
    SET_PERMS = 14, "Set the permissions of a node.";
    WATCH_EVENT = 15, "An event; from the server, answering nothing.";
    ERROR = 16, "An error reply.";
    IS_DOMAIN_INTRODUCED = 17, "Whether a domain is connected.";
    RESUME = 18, "Report the domain's next shutdown again.";
    SET_TARGET = 19, "Give a domain the permissions of another.";
    RESTRICT = 20, "No longer an operation.";
    RESET_WATCHES = 21, "Drop the caller's watches and transactions.";
    DIRECTORY_PART = 22, "A part of a directory too long for one reply.";
    GET_FEATURE = 23, "Feature bits of the server, or granted to a domain.";
    SET_FEATURE = 24, "Restrict the feature bits of a domain.";
    GET_QUOTA = 25, "Names of quotas, or one's value.";
    SET_QUOTA = 26, "Set a quota.";
}

impl fmt::Display for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "operation {}", self.0),
        }
    }
}

impl fmt::Debug for MessageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number that a client gives a request and finds in its reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// The number of an open transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxId(pub u32);

impl TxId {
    /// Outside any transaction.
    pub const NONE: Self = Self(0);

    /// Reads the decimal text of a TRANSACTION_START reply.
    pub fn from_octets(text: &[u8]) -> Option<Self> {
        decimal(text).and_then(|n| u32::try_from(n).ok()).map(Self)
    }
}

impl fmt::Display for TxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The header of every message, both ways.
///
/// ```text
/// octet  0         4           8          12
///        type u32  request u32 tx u32     payload length u32
/// ```
///
/// In the byte order of the machine, since the two ends share it: this is the one place in the project where that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the message is.
    pub ty: MessageType,
    /// Which request it is or answers; 0 in events.
    pub request_id: RequestId,
    /// In which transaction; 0 in none and in events.
    pub tx_id: TxId,
    /// Octets of payload that follow.
    pub len: u32,
}

impl Header {
    /// The header as it stands on the wire.
    pub fn to_octets(self) -> [u8; HEADER_LEN] {
        let words = [self.ty.0, self.request_id.0, self.tx_id.0, self.len];
        let mut octets = [0; HEADER_LEN];
        for (four, word) in octets.chunks_exact_mut(4).zip(words) {
            four.copy_from_slice(&word.to_ne_bytes());
        }
        octets
    }

    /// Reads a header. Every 16 octets are one; whether it makes sense is for the decoder.
    pub fn from_octets(octets: &[u8; HEADER_LEN]) -> Self {
        let word = |at: usize| {
            u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
        };
        Self {
            ty: MessageType(word(0)),
            request_id: RequestId(word(4)),
            tx_id: TxId(word(8)),
            len: word(12),
        }
    }
}
