//! A domain as a callback describes it.

use std::ffi::CStr;

use snapshot::control::{DomainIdentity, DomainKind, DomainState, DomainView, ShutdownReason};
use uuid::Uuid;
use xsclient::DomId;

use crate::callbacks::Said;
use crate::control::{self as c, Domain};

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

    /// By the numbers of Xen's public header `sched.h`, of which 2 is to suspend.
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
