//! Saves and restores Xen domains: mechanism only, the caller supplies every path and name.
//!
//! So far it carries a domain's Xenstore state. It does not save memory or disks yet, does not talk to the hypervisor, and
//! creates no domains: what it applies goes into a domain that a toolstack has created.
//!
//! | what | where |
//! |---|---|
//! | the Xenstore state of one domain, out of any Xenstore and into any other | [`xenstore_state`] |

#![forbid(unsafe_code)]

pub mod image;
pub mod xenstore_state;
