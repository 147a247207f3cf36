//! The Xenstore state of one domain, out of any Xenstore and into any other.
//!
//! The state itself, its translation to another domid and the rules of a restore are values and pure functions in
//! [`xenstore_migration::domain_state`]; here is the I/O around them, through [`xsclient`] alone.
//!
//! ```no_run
//! use std::time::{Duration, Instant};
//! use snapshot::xenstore_state::{ExtractRequest, extract};
//! use xsclient::{Client, DomId, Endpoint, Options};
//!
//! let mut client = Client::open(Endpoint::Search, Options::default())?;
//! let deadline = Instant::now() + Duration::from_secs(5);
//! let extracted = extract(&mut client, &ExtractRequest::new(DomId::new(7), deadline))?;
//! println!("{} nodes, {:?}", extracted.state.nodes.len(), extracted.consistency);
//! for missing in &extracted.missing {
//!     println!("without {missing}");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod connection;
mod consistent;
mod extract;
mod levels;
mod limits;
mod missing;
mod questions;
mod trees;

pub use connection::{ConnectionSource, ConnectionSourceError};
pub use consistent::Means;
pub use extract::{
    ATTEMPTS_DEFAULT, Consistency, ExtractError, ExtractRequest, Extracted, extract, extract_with,
};
pub use limits::{LimitExceeded, Limits, NODES_DEFAULT, OCTETS_DEFAULT};
pub use missing::{Missing, MissingReason, StatePart};
