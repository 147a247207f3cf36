//! Reads, keeps and writes the configurations of Xen domains as libxl does.
//!
//! libxl stores for each domain the configuration it was created from, as JSON, and every toolstack that wants to know
//! what a domain is made of ends up reading and rewriting that text. This crate has the whole of libxl's schema as Rust
//! types ([`DomainConfig`] and [`model`]), reads what both of libxl's JSON libraries write, says with path and position
//! what is odd about a text ([`Finding`]), and writes a changed configuration without losing what it did not
//! understand.
//!
//! It does not apply libxl's defaults, does not read `xl.cfg` files, and does not create domains.
//!
//! ```
//! use libxl_config::{DomainConfig, Layout, Mode};
//!
//! let text = br#"{
//!     "c_info": { "type": "pv", "name": "web" },
//!     "b_info": { "max_vcpus": 2, "type.pv": {} },
//!     "disks": [{ "pdev_path": "/srv/web.img", "vdev": "xvda", "readwrite": 1, "tier": "fast" }]
//! }"#;
//!
//! let mut read = DomainConfig::read(text, Mode::Lenient)?;
//! assert_eq!(read.findings[0].path.to_string(), "$.disks[0].tier");
//!
//! read.config.disks[0].pdev_path = Some("/srv/new.img".into());
//! let written = read.config.to_json(Layout::Yajl);
//! assert!(written.contains("\"pdev_path\": \"/srv/new.img\""));
//! assert!(written.contains("\"tier\": \"fast\"")); // unknown, and kept
//! # Ok::<(), libxl_config::ReadError>(())
//! ```
//!
//! What libxl's reader and writers do at the edges, and what this crate does instead, is in `docs/libxl-json.md`.
//! Upstream, the schema is `tools/libs/light/libxl_types.idl` and its JSON is generated from that
//! (<https://xenbits.xen.org/gitweb/?p=xen.git;a=tree;f=tools/libs/light>).

#![forbid(unsafe_code)]

mod diff;
mod finding;
#[doc(hidden)]
pub mod fuzzing;
pub mod json;
pub mod model;
mod read;
mod read_error;
pub mod retrieve;
mod sink;
mod stability;
pub mod template;
mod write;

pub use diff::{Change, diff};
pub use finding::{Finding, FindingKind, Position, Severity};
pub use json::{JsonPath, Layout};
pub use model::DomainConfig;
pub use read::{MAX_STRUCTS, Mode, ReadConfig};
pub use read_error::{ReadError, SyntaxProblem};
#[doc(hidden)]
pub use stability::{Unstable, check_stability};
