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
//! [`WritePermit`], and only [`create`], [`create_many`], [`forget`] and the hotplug of this crate make one.

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
mod processes;
mod revision;
mod sled;
mod steps;
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
