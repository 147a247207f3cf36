//! Template stores: where the configuration a domain was created with is kept.
//!
//! A *template* is the JSON text of a domain's configuration as it was at creation, updated by hotplug. It is kept as the
//! exact octets of that text; parsing is done above this module. A [`TemplateStore`] keeps one template for each
//! [`TemplateKey`] and changes it only by compare-and-swap, or under a lock that excludes every other writer.
//!
//! Three stores are built in:
//!
//! - [`MemoryStore`]: for tests and for embedding; lives as long as the value.
//! - [`SledStore`]: the embedded default; a database directory owned by one process.
//! - [`UserdataDir`]: libxl's own directory (`/var/lib/xen` on a host), files and locks; safe beside a running `xl`.
//!
//! Anybody may read a template. Nobody outside this crate can write one: every writing method asks for a
//! [`WritePermit`], and only [`create`], [`create_many`], [`forget`], [`hotplug`](crate::hotplug) and
//! [`replace_image`](crate::replace_image) make one.
//!
//! ```
//! use std::time::{Duration, Instant};
//!
//! use libxl_config::template::{DomId, MemoryStore, TemplateKey, TemplateStore, TemplateText, create, forget};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = MemoryStore::new();
//! let key = TemplateKey::new(DomId::new(7), "a7989683-6a5f-495a-b64f-11438bce7d66".parse()?);
//! let deadline = Instant::now() + Duration::from_secs(10);
//!
//! let revision = create(&store, &key, &TemplateText::new(r#"{"c_info": {"name": "web"}}"#)?, deadline)?;
//! let template = store.load(&key, deadline)?.ok_or("just created")?;
//! assert_eq!(template.revision, revision);
//! assert!(forget(&store, &key, deadline)?);
//! # Ok(())
//! # }
//! ```
//!
//! What each store promises, its layout on disk, and how to add one: `docs/template-stores.md` in the repository. libxl's
//! side of the shared directory is `tools/libs/light/libxl_dom.c` and `libxl_internal.c` in Xen's source.

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
#[cfg(test)]
mod crashes;
mod error;
mod flock;
mod key;
mod key_locks;
mod lifecycle;
mod memory;
#[cfg(test)]
pub(crate) mod processes;
mod revision;
mod sled;
pub(crate) mod steps;
mod store;
#[cfg(test)]
mod suite;
mod text;
mod userdata;

pub use error::{Holder, ListError, LoadError, LockError, StoreFault, SwapError, WriteError};
pub use key::TemplateKey;
pub use lifecycle::{CreateError, CreateManyError, ForgetError, create, create_many, forget};
pub use memory::MemoryStore;
pub use revision::{Revision, RevisionError};
pub use sled::{OpenStoreError, SledStore};
pub use store::{HeldTemplate, Template, TemplateStore, WritePermit};
pub use text::{MAX_TEMPLATE_LEN, TemplateText, TextError};
pub use userdata::{OpenDirError, UserdataDir};
pub use xsclient::DomId;
