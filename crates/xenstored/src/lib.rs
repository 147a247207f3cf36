//! An embeddable Xenstore server: a store as a value, the server as one step, and transports for clients in this
//! process, on a Unix socket and, on a Xen host, on domains' rings.
//!
//! With rings, the hypervisor tells of a domain's end ([`xen`]); without, a domain exists from INTRODUCE to RELEASE.
//!
//! ```
//! use xenstore_proto::{DomId, Path, Reply, Request};
//! use xenstored::{Embedded, Store};
//!
//! let name: Path = "/local/domain/7/name".parse()?;
//! let store = Store::from_text("/local/domain/7/name = \"seven\"   (n0,r7)\n")?;
//! let xenstore = Embedded::new(store);
//!
//! // Clients: in this process, or any on a socket.
//! let transport = xenstore.transport(DomId::DOM0);
//! # let dir = tempfile::tempdir()?;
//! # let socket = dir.path().join("socket");
//! let served = xenstore.serve_unix(&socket)?;
//!
//! // Beside them, a snapshot costs nothing and does not change.
//! let before = xenstore.snapshot();
//! xenstore.apply(Request::Rm(name.clone()));
//! assert_eq!(before.read(&name), Some(&b"seven"[..]));
//! assert_eq!(xenstore.snapshot().read(&name), None);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | the tree of nodes: immutable, shared, read without a lock | [`Store`], [`Nodes`] |
//! | requests to replies and events, without I/O or a clock | [`Server`] |
//! | who may do what | [`AccessPolicy`]: [`Standard`], [`ChineseWall`] |
//! | how much of what, and what is used | [`Quotas`], [`Usage`] |
//! | where the store is kept | [`Backend`]: [`MemoryBackend`], `SledBackend` (feature `sled`, on by default) |
//! | a server shared by threads | [`Embedded`] |
//! | a transaction of the program itself, and others inside it | [`OpenTransaction`] |
//! | a client's end inside the process | [`InProcess`] |
//! | the Unix socket | [`UnixServer`] |
//! | domains' rings | [`Serving::rings`], [`xen`] |
//! | what is counted | [`Server::metrics`], [`MetricsServer`] |
//!
//! # Where it goes its own way
//!
//! Specified in Xen's `docs/misc/xenstore.txt`. Where that leaves room, or the two stock daemons differ:
//!
//! - DIRECTORY lists children in the order of their creation, as C xenstored does.
//! - A transaction conflicts only if what it read has changed (each of value, list of children and permissions for
//!   itself), or what it wrote to was removed. Of two blind writes the later commit wins, and so does a removal over
//!   changes below it. A transaction that changed nothing always commits.
//! - A removal is told to the watches on the node and above, and to those set exactly on a node that went with it, as in
//!   C xenstored; a commit tells each changed node once. Nodes created on the way to a new one are not told, in
//!   transactions neither.
//! - An event that waits already is not queued twice, unless a reply was queued in between. A client that lets too many
//!   wait is disconnected; it never misses one silently.
//! - A domain with a target has its own and its target's permissions together, whatever the order of the entries.
//! - Permissions of special names are in no transaction. `@introduceDomain` is for privileged domains only and
//!   `@releaseDomain` for all, as in Xen 4.22.
//! - A released domain leaves nothing: its nodes go with all below, and no permissions name it any more.
//! - A limit is what may be used ([`Quota`]). A transaction is charged when it is committed, for what comes out of it.
//! - A transaction that has been open for too long is given up: what is asked in it is answered with EAGAIN.
//! - CONTROL knows `help`, `check`, `domain-state`, `domain-state-set`, `log`, `memreport`, `print`, `quota` and `quota-soft`.
//!
//! What each operation does where the stock daemons differ is in `docs/xenstored-behaviour.md`.

pub mod limits;

mod access;
mod accounts;
mod backend;
mod change;
mod charges;
mod client;
mod control;
mod domain_state;
mod domains;
mod embedded;
mod event_loop;
mod events;
mod features;
#[doc(hidden)]
pub mod fuzzing;
mod in_process;
mod interner;
mod keeping;
mod link;
mod listen;
mod live_update;
mod metrics;
mod metrics_socket;
mod open_transaction;
mod output;
mod quota;
mod quotas;
mod release;
mod requests;
mod server;
mod serving;
mod store;
mod text;
mod transaction;
mod transactions;
mod tree;
mod unix;
mod walk;
mod watches;
mod watchful;
mod watching;
pub mod xen;

pub use access::{
    AccessPolicy, Changed, ChineseWall, Company, ConflictClass, Object, Standard, Subject,
    WallError,
};
pub use accounts::Usage;
pub use backend::{
    Backend, BackendError, KeptNode, KeptWatch, MemoryBackend, NodeChange, WatchChange,
};
#[cfg(feature = "sled")]
pub use backend::{SledBackend, SyncMode};
pub use embedded::Embedded;
pub use in_process::InProcess;
pub use listen::ServeError;
pub use live_update::{CaptureError, LiveUpdate, RestoreError, Successor};
pub use metrics_socket::MetricsServer;
pub use open_transaction::{OpenTransaction, RefusedError};
pub use quota::{Quota, Quotas};
pub use server::{ConnectionId, Interceptor, Server};
pub use serving::{Inheritance, Serving};
pub use store::{Store, StoreError};
pub use text::{LineError, LoadError, escape_value};
pub use unix::UnixServer;
pub use walk::{NodeRef, Nodes};
