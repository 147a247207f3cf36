//! A domain as C describes it, and as it is described to C.

use std::ffi::{CStr, c_char, c_int};

use snapshot::control::{DomainIdentity, DomainKind, DomainState, DomainView, ShutdownReason};
use uuid::Uuid;
use xsclient::DomId;

use crate::answer::Said;
use crate::arguments::domid;
use crate::control::{self as c, Domain};
use crate::problem::Problem;
use crate::status::Status;

impl Domain {
    /// What a callback fills in.
    pub(crate) fn empty() -> Self {
        Self {
            domid: 0,
            uuid: [0; 16],
            name: [0; 256],
            kind: -1,
            state: -1,
            shutdown_reason: 0,
            paused: false,
        }
    }

    /// A domain for C.
    pub(crate) fn of(view: &DomainView) -> Result<Self, Problem> {
        let mut domain = Self::empty();
        domain.domid = view.identity.domid.get().into();
        domain.uuid = *view.identity.uuid.as_bytes();
        let name = view.name.as_deref().unwrap_or_default();
        if name.len() >= domain.name.len() {
            let message = format!("domain {} has a name of {} octets", domain.domid, name.len());
            return Err(Problem::new(Status::InvalidData, message).about(view.identity.domid));
        }
        for (place, octet) in domain.name.iter_mut().zip(name.bytes()) {
            *place = c_char::from_ne_bytes([octet]);
        }
        domain.kind = match view.kind {
            DomainKind::Pv => c::DomainKind::Pv,
            DomainKind::Pvh => c::DomainKind::Pvh,
            DomainKind::Hvm => c::DomainKind::Hvm,
        } as c_int;
        let (state, reason) = match view.state {
            DomainState::Running => (c::DomainState::Running, 0),
            DomainState::Paused => (c::DomainState::Paused, 0),
            DomainState::Suspended => (c::DomainState::Suspended, SHUTDOWN_SUSPEND),
            DomainState::ShutDown(reason) => (c::DomainState::ShutDown, number_of(reason)),
            _ => (c::DomainState::Dying, 0),
        };
        (domain.state, domain.shutdown_reason) = (state as c_int, reason);
        domain.paused = view.paused;
        Ok(domain)
    }

    /// Which domain it is.
    pub(crate) fn identity(&self) -> Result<DomainIdentity, Problem> {
        Ok(DomainIdentity::new(domid(self.domid)?, Uuid::from_bytes(self.uuid)))
    }

    /// What the callback has said, if that can be.
    pub(crate) fn view(&self, callback: &'static str) -> Result<DomainView, Said> {
        let wrong = |what: String| Said::Domain { callback, what };
        let domid = u16::try_from(self.domid)
            .map_err(|_| wrong(format!("id is {}, and they have 16 bits", self.domid)))?;
        let octets: Vec<u8> = self.name.iter().map(|octet| octet.to_ne_bytes()[0]).collect();
        let name = CStr::from_bytes_until_nul(&octets)
            .map_err(|_| wrong("name does not end with a NUL".to_owned()))?
            .to_str()
            .map_err(|error| wrong(format!("name is not UTF-8: {error}")))?;
        let kind = chosen!(self.kind, "dk_domain_kind", {
            c::DomainKind::Pv => DomainKind::Pv,
            c::DomainKind::Pvh => DomainKind::Pvh,
            c::DomainKind::Hvm => DomainKind::Hvm,
        });
        let kind = kind.map_err(|problem| wrong(format!("kind {}", problem.in_words())))?;
        let state = chosen!(self.state, "dk_domain_state", {
            c::DomainState::Running => DomainState::Running,
            c::DomainState::Paused => DomainState::Paused,
            c::DomainState::Suspended => DomainState::Suspended,
            c::DomainState::ShutDown => DomainState::ShutDown(self.reason().map_err(wrong)?),
            c::DomainState::Dying => DomainState::Dying,
        });
        let state = state.map_err(|problem| wrong(format!("state {}", problem.in_words())))?;
        Ok(DomainView {
            identity: DomainIdentity::new(DomId::new(domid), Uuid::from_bytes(self.uuid)),
            name: (!name.is_empty()).then(|| name.to_owned()),
            kind,
            state,
            paused: self.paused || state == DomainState::Paused,
        })
    }

    fn reason(&self) -> Result<ShutdownReason, String> {
        Ok(match u8::try_from(self.shutdown_reason) {
            Ok(0) => ShutdownReason::PowerOff,
            Ok(1) => ShutdownReason::Reboot,
            Ok(3) => ShutdownReason::Crash,
            Ok(4) => ShutdownReason::Watchdog,
            Ok(5) => ShutdownReason::SoftReset,
            Ok(2) | Err(_) => {
                let reason = self.shutdown_reason;
                return Err(format!(
                    "shutdown_reason is {reason}, which is none to be shut down for"
                ));
            }
            Ok(other) => ShutdownReason::Other(other),
        })
    }
}

/// The numbers of reasons to shut down are those of Xen's public header `sched.h`.
const SHUTDOWN_SUSPEND: c_int = 2;

fn number_of(reason: ShutdownReason) -> c_int {
    match reason {
        ShutdownReason::PowerOff => 0,
        ShutdownReason::Reboot => 1,
        ShutdownReason::Crash => 3,
        ShutdownReason::Watchdog => 4,
        ShutdownReason::SoftReset => 5,
        ShutdownReason::Other(number) => number.into(),
        _ => -1,
    }
}
