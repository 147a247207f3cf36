//! Streams as JSON and back: for callers in other languages, for `jq`, and to be written by hand.
//!
//! [`decode()`] makes a document of a stream, [`encode()`] a stream of a document:
//!
//! ```json
//! {"version":2,"byte_order":"little","records":[
//! {"index":0,"offset":16,"type":"NODE_DATA","path":"/tool","perms":"n0,r3","value_hex":"ff00"}
//! ],"peer":"specification","deviations":[]}
//! ```
//!
//! `encode` takes lines as well, as `domkeep stream inspect --json` prints them: `{ "version", "byte_order" }`, a line a record, and
//! a last line with `records` and `peer`. Without that line it takes them for cut.
//!
//! # Fields
//!
//! | field | what it is |
//! |---|---|
//! | `version` | 1 or 2 |
//! | `byte_order` | `little` or `big` |
//! | `peer` | [`Peer::name`](crate::Peer::name): the form of the stream; `null` if no known server writes so. Not there: `specification` |
//! | `deviations` | what is not as specified; ignored by `encode` |
//! | `records` | the records in their order, without END |
//!
//! Every record has a `type`, which is [`RecordType`](crate::RecordType) as it prints itself. Its `index` and `offset` are what the
//! stream had; `encode` ignores them, so that records can be added and taken away.
//!
//! | type | fields |
//! |---|---|
//! | `GLOBAL_DATA` | `socket_fd`, `event_channel_fd`: numbers, or `null` for none |
//! | `CONNECTION_DATA` | `connection`; `kind`: `ring` with `domid`, `target` (or `null`) and `port`, `socket` with `fd`, or the number of another kind with `spec`, 8 octets in hexadecimal; `unique_id` (or `null`), `output_rest`, `input`, `output` |
//! | `WATCH_DATA` | `connection`, `path`, `token` |
//! | `WATCH_DATA_EXTENDED` | the same, and `depth`: levels up to 65534, `unlimited`, or `null` if untold |
//! | `TRANSACTION_DATA` | `connection`, `transaction` |
//! | `NODE_DATA` | `path`, `perms` ([`perms_to_text`]), `value`; what a transaction did has also `connection`, `transaction` and `access` ([`access_to_text`]) |
//! | `GLOBAL_QUOTA_DATA` | `per_domain`, `global`: arrays of `{ "name", "value" }` |
//! | `DOMAIN_DATA` | `domid`, `features` (`null` in version 1, and only there), `quotas` |
//! | `type 0x21` and so on | `body` |
//!
//! `path`, `token`, `value`, `input`, `output`, `body` and a quota's `name` are octets: text if they are UTF-8, and otherwise
//! hexadecimal under the name with `_hex` behind it. `encode` takes either. It refuses a field that does not belong to the type,
//! one that is missing, and one that is there twice.
//!
//! # What comes back
//!
//! A stream of a document of a stream is that stream, octet for octet. These are the exceptions:
//!
//! - Padding that is not zero, and other fields that say nothing where they stand, become zero
//!   ([`Deviation::PaddingNotZero`](crate::Deviation::PaddingNotZero), which is among the `deviations`).
//! - A stream whose form no known server writes has `null` for its `peer`, and `encode` asks for one.
//! - Octets behind END are not of the stream.
//! - Records that do not go together ([`OrderChecker`](crate::OrderChecker)) come back only with [`EncodeOptions::unchecked`]. The
//!   order is that of what the stream looks like; [`EncodeOptions::of_kind`] says so instead. Records of unknown types and the
//!   form of a `peer` are not held against a stream.
//! - A stream whose document is longer than [`DOCUMENT_MAX`](crate::limits::DOCUMENT_MAX) has none.

mod decode;
mod document;
mod encode;
mod failure;
mod given;
mod told;
mod words;

pub use decode::{Head, decode};
pub use encode::{EncodeOptions, Encoded, Order, encode, encode_to};
pub use failure::{DecodeError, DocumentError, FieldError};
pub use words::{access_to_text, perms_to_text};
