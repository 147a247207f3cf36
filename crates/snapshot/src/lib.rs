//! Saves and restores Xen domains: mechanism only, the caller supplies every path and name.
//!
//! So far it carries a domain's Xenstore state, and says what it asks of a hypervisor. It does not save memory or disks yet, and
//! does not talk to a real hypervisor: what it applies goes into a domain that a toolstack has created.
//!
//! | what | where |
//! |---|---|
//! | the Xenstore state of one domain, out of any Xenstore and into any other | [`xenstore_state`] |
//! | what saving and restoring ask of a hypervisor | [`control`] |
//! | a domain to test against, without a hypervisor | [`simulated`] |

#![forbid(unsafe_code)]

pub mod control;
pub mod simulated;
pub mod xenstore_state;
