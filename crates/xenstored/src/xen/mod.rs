//! Domains' rings: what a Xen host has to offer, and what is done with it.
//!
//! | what | where |
//! |---|---|
//! | all that is asked of a hypervisor | [`Hypervisor`] |
//! | the real one, through the kernel's devices | [`XenDevices`] |
//! | one for tests, with guests that behave and guests that do not | [`SimulatedXen`] |
//! | the page shared with a domain | [`RingPage`] |
//! | the stream of octets on it | [`Ring`] |
//! | what of it outlives a killed server | `InFlight` |

mod devices;
mod domains;
#[cfg(test)]
mod fuse;
mod guest;
mod hypervisor;
mod in_flight;
#[cfg(test)]
mod killed;
mod page;
mod raw;
mod ring;
mod rings;
mod simulated;
mod slot;

pub use devices::XenDevices;
pub use guest::SimulatedGuest;
pub use hypervisor::{
    DomainHandle, DomainState, EventChannel, Hypervisor, LocalPort, PortState, RemotePort,
    ShutdownReason, XenError,
};
pub(crate) use in_flight::InFlight;
pub use page::{Direction, Field, Indices, RingPage};
pub use ring::{Fault, Ring, RingError};
pub(crate) use rings::{Rings, SharedRing};
pub use simulated::{SimulatedHypervisor, SimulatedXen};
pub(crate) use slot::Left;
