//! Which domain, and how it is.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xsclient::DomId;

/// Which domain: domids are used again, so that a number alone names no domain for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DomainIdentity {
    /// Its number.
    #[serde(with = "domid_number")]
    pub domid: DomId,
    /// Its uuid. libxl lets two domains have the same one; together with the number it is unique.
    pub uuid: Uuid,
}

impl DomainIdentity {
    /// From number and uuid.
    pub fn new(domid: DomId, uuid: Uuid) -> Self {
        Self { domid, uuid }
    }
}

impl fmt::Display for DomainIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.domid, self.uuid)
    }
}

/// A domain as it was when it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// Which.
    pub identity: DomainIdentity,
    /// Its name; `None` if it has none yet, or none any more.
    pub name: Option<String>,
    /// Its kind. libxl 4.17 calls a PVH domain HVM.
    pub kind: DomainKind,
    /// Its state; never [`DomainState::Gone`].
    pub state: DomainState,
    /// Whether it has been paused, which a suspended domain can be at the same time.
    pub paused: bool,
}

/// Kind of guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DomainKind {
    /// Paravirtual.
    Pv,
    /// Paravirtual in hardware assisted containers.
    Pvh,
    /// Fully virtual.
    Hvm,
}

/// What a domain does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DomainState {
    /// It runs, or waits for something to do.
    Running,
    /// The toolstack has stopped it between two instructions. It can be unpaused.
    Paused,
    /// It has shut down for the reason "suspend", and can be resumed.
    Suspended,
    /// It has shut down for another reason.
    ShutDown(ShutdownReason),
    /// It is being destroyed.
    Dying,
    /// There is no such domain.
    Gone,
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Paused => f.write_str("paused"),
            Self::Suspended => f.write_str("suspended"),
            Self::ShutDown(reason) => write!(f, "shut down ({reason})"),
            Self::Dying => f.write_str("dying"),
            Self::Gone => f.write_str("gone"),
        }
    }
}

/// Why a domain has shut down, other than to be suspended.
///
/// Specified in Xen's public header `sched.h` (`SHUTDOWN_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ShutdownReason {
    /// 0.
    PowerOff,
    /// 1.
    Reboot,
    /// 3.
    Crash,
    /// 4.
    Watchdog,
    /// 5.
    SoftReset,
    /// A number that Xen's header does not list.
    Other(u8),
}

impl fmt::Display for ShutdownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("poweroff"),
            Self::Reboot => f.write_str("reboot"),
            Self::Crash => f.write_str("crash"),
            Self::Watchdog => f.write_str("watchdog"),
            Self::SoftReset => f.write_str("soft reset"),
            Self::Other(number) => write!(f, "reason {number}"),
        }
    }
}

/// A domid in JSON is its number.
pub(crate) mod domid_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use xsclient::DomId;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
    pub(crate) fn serialize<S: Serializer>(domid: &DomId, to: S) -> Result<S::Ok, S::Error> {
        domid.get().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DomId, D::Error> {
        u16::deserialize(from).map(DomId::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_survives_json_in_every_state() {
        let states = [
            DomainState::Running,
            DomainState::Suspended,
            DomainState::ShutDown(ShutdownReason::Crash),
            DomainState::ShutDown(ShutdownReason::Other(9)),
        ];
        for state in states {
            let view = DomainView {
                identity: DomainIdentity::new(DomId::new(7), Uuid::from_u128(1)),
                name: Some("web".into()),
                kind: DomainKind::Pv,
                state,
                paused: false,
            };
            let text = serde_json::to_string(&view).unwrap();
            assert_eq!(serde_json::from_str::<DomainView>(&text).unwrap(), view, "{text}");
        }
    }
}
