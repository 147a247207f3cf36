//! Says what the configuration of a Xen domain is now, and reads, keeps and writes configurations as libxl does.
//!
//! libxl stores for each domain the configuration it was created from, as JSON; what became of it since is in Xenstore.
//!
//! | what | where |
//! |---|---|
//! | both put together, with a report of every disagreement | [`retrieve`] |
//! | the whole of libxl's schema as Rust types | [`DomainConfig`], [`model`] |
//! | what is odd about a text, with path and position | [`Finding`] |
//! | devices plugged and unplugged, in both at once | [`hotplug`] |
//! | a disk moved to another image, in both at once | [`replace_image`] |
//! | where templates are kept: in memory, in sled, in libxl's own directory | [`template`] |
//! | documents that keep what the text said | [`json`] |
//!
//! It does not apply libxl's defaults, does not read `xl.cfg` files, does not create domains, and has no way to store a
//! configuration but by the life of its domain. Of Xenstore it knows what [`xsclient`] gives it, whatever server that is.
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
mod domain;
mod finding;
#[doc(hidden)]
pub mod fuzzing;
pub mod hotplug;
pub mod json;
pub mod model;
mod read;
mod read_error;
pub mod replace_image;
pub mod retrieve;
mod sink;
mod stability;
pub mod template;
mod write;

pub use diff::{Change, diff};
pub use domain::DomainError;
pub use finding::{Finding, FindingKind, Position, Severity};
pub use json::{JsonPath, Layout};
pub use model::DomainConfig;
pub use read::{MAX_STRUCTS, Mode, ReadConfig};
pub use read_error::{ReadError, SyntaxProblem};
#[doc(hidden)]
pub use stability::{Unstable, check_stability};
