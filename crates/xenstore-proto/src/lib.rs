//! The Xenstore protocol: its vocabulary, its messages, and what a transport has to offer.
//!
//! This crate does no I/O, reads no clock and holds no store. Client ([`xsclient`]) and server ([`xenstored`]) are built on
//! it; it knows neither.
//!
//! ```
//! use xenstore_proto::{Decoded, Decoder, Path, Reply, Request, RequestId, TxId, limits};
//!
//! // A client asks ...
//! let request = Request::Read("/local/domain/0/name".parse()?);
//! let mut wire = Vec::new();
//! request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire)?;
//!
//! // ... and a server finds the request, whatever pieces the octets arrive in.
//! let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
//! decoder.push(&wire[..10]);
//! assert_eq!(decoder.decode()?, Decoded::Need(6));
//! decoder.push(&wire[10..]);
//! let Decoded::Message(message) = decoder.decode()? else { unreachable!() };
//! assert_eq!(Request::decode(&message)?, request);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | newtypes built only by checking | [`DomId`], [`Path`], [`Name`], [`SpecialName`], [`Perms`], [`Token`], [`QuotaName`] |
//! | messages | [`Header`], [`Message`], [`Request`], [`Reply`], [`WatchEvent`] |
//! | octets to messages | [`Decoder`] |
//! | names of errors | [`Errno`] |
//! | what carries the octets | [`Transport`] |
//! | sizes | [`limits`] |
//!
//! Specified in Xen's `docs/misc/xenstore.txt` and its public headers `io/xs_wire.h` and `xen.h`. Numbers and names that
//! are unknown here survive being read and written again.
//!
//! [`xsclient`]: https://docs.rs/xsclient
//! [`xenstored`]: https://docs.rs/xenstored

#![forbid(unsafe_code)]

pub mod limits;

#[doc(hidden)]
pub mod fuzzing;

mod domid;
mod errno;
mod error_text;
mod header;
mod message;
mod path;
mod payload;
mod perms;
mod quota;
mod reply;
mod request;
mod token;
mod transport;

pub use domid::{DomId, DomIdError};
pub use errno::Errno;
pub use error_text::on_one_line;
pub use header::{Header, MessageType, RequestId, TxId};
pub use message::{Broken, Decoded, Decoder, Message, PayloadTooLong};
pub use path::{Name, Path, PathError, PathOrSpecial, SpecialName};
pub use payload::PayloadError;
pub use perms::{Access, Perm, Perms, PermsError};
pub use quota::{Features, QuotaName};
pub use reply::{DirectoryPart, Reply, ReplyError, WatchEvent};
pub use request::{QuotaQuery, Request};
pub use token::{Token, TokenError};
pub use transport::{EventOrder, Framing, Interest, Manner, Readiness, Transport};
