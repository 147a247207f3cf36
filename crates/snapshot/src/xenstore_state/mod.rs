//! The Xenstore state of one domain, out of any Xenstore and into any other.
//!
//! Suspending and building a domain carries its memory, and little of what the guest has in Xenstore. This carries the rest:
//!
//! ```text
//! one Xenstore --extract--> DomainState --Translation--> DomainState --apply--> another, or the same
//! ```
//!
//! The state itself, its translation to another domid and the plan of a restore are values and pure functions in
//! [`xenstore_migration::domain_state`]; here is the I/O around them, through [`xsclient`] alone. Whatever the policy says, a
//! plan leaves alone what a toolstack makes anew for every domain.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use snapshot::xenstore_state::{ApplyRequest, ExtractRequest, apply, extract};
//! use xenstore_migration::domain_state::{RestorePolicy, Translation};
//! use xsclient::{Client, DomId, Endpoint, Options};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let extracted = extract(&mut client, &ExtractRequest::new(DomId::new(7), deadline))?;
//! println!("{} nodes, {:?}", extracted.state.nodes.len(), extracted.consistency);
//! for missing in &extracted.missing {
//!     println!("without {missing}");
//! }
//!
//! // Into domain 9, which a toolstack has created and not started yet.
//! let wanted = Translation::new(DomId::new(7), DomId::new(9)).apply(&extracted.state)?;
//! let request = ApplyRequest::new(RestorePolicy::cooperative(), deadline);
//! let applied = apply(&mut client, &wanted, &request)?;
//! println!("{} changes", applied.plan.changes.len());
//! for unapplied in &applied.unapplied {
//!     println!("without {unapplied}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | what | where |
//! |---|---|
//! | reading a state | [`extract()`], [`ExtractRequest`], [`Extracted`], [`Consistency`], [`Means`] |
//! | what a state does not hold, and why | [`Missing`], [`StatePart`], [`MissingReason`] |
//! | who knows what the protocol cannot tell | [`extract_with`], [`ConnectionSource`] |
//! | restoring a state | [`apply()`], [`ApplyRequest`], [`Applied`] |
//! | how much of a store is held | [`Limits`] |

mod apply;
mod changes;
mod connection;
mod consistent;
mod extract;
mod levels;
mod limits;
mod missing;
mod of_server;
mod questions;
mod trees;

pub use apply::{Applied, ApplyError, ApplyRequest, Unapplied, UnappliedReason, apply};
pub use connection::{ConnectionSource, ConnectionSourceError};
pub use consistent::Means;
pub use extract::{
    ATTEMPTS_DEFAULT, Consistency, ExtractError, ExtractRequest, Extracted, extract, extract_with,
};
pub use limits::{LimitExceeded, Limits, NODES_DEFAULT, OCTETS_DEFAULT};
pub use missing::{Missing, MissingReason, StatePart};
