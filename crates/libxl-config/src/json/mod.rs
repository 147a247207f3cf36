//! JSON as libxl's two writers and two readers know it: a document that keeps what the text said.
//!
//! No JSON crate keeps key order, duplicate keys, number lexemes, positions and json-c's extensions at once, and a
//! configuration that is read, changed and written must not lose any of them; that is why this module exists.
//!
//! [`parse()`] reads text into a [`Value`] and names each deviation from plain JSON as a [`Finding`](crate::Finding);
//! [`Value::to_text`] writes it in the layout of [yajl or json-c](Layout), octet for octet.

mod bridge;
mod emit;
mod number;
mod parse;
mod path;
mod strings;
mod value;

pub use emit::Layout;
pub use number::Number;
pub(crate) use parse::parse_into;
pub use parse::{Parsed, parse};
pub use path::{JsonPath, Step};
pub use value::{Member, Object, Text, Value};

pub(crate) use path::{Place, shorten};

/// How deeply arrays and objects may be nested. libxl has no limit of its own; its schema nests eight levels deep, and
/// the parser recurses, so a limit keeps the stack bounded on any input.
pub const MAX_DEPTH: usize = 64;

/// How many octets a document may have. libxl has no limit of its own; a hard and a soft affinity list for 512 vCPUs,
/// the largest honest content, takes about 10 MiB in yajl's layout.
pub const MAX_SIZE: usize = 16 << 20;

/// How many findings one read collects. A hostile file can hold millions; after this many one last finding says so.
pub const MAX_FINDINGS: usize = 4096;
