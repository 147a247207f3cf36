//! Saves and restores Xen domains: mechanism only, the caller supplies every path and name.
//!
//! So far it carries a domain's Xenstore state. It does not save memory or disks yet, does not talk to the hypervisor, and
//! creates no domains: what it applies goes into a domain that a toolstack has created.
//!
//! | what | where |
//! |---|---|
//! | the Xenstore state of one domain, out of any Xenstore and into any other | [`xenstore_state`] |
//! | a new file that has its name only once it is complete | [`CompleteFile`] |

#![forbid(unsafe_code)]

mod complete_file;
pub mod disk;
pub mod xenstore_state;

pub use complete_file::{CompleteFile, CompleteFileError, CompleteFileStep};
