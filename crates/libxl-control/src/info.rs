//! What libxl says of a domain.

use serde::Deserialize;
use snapshot::control::{DomainIdentity, DomainKind, DomainState, ShutdownReason};
use uuid::Uuid;
use xsclient::DomId;

/// Of a `libxl_dominfo`, what is needed here. A flag that is not set is not there, nor is the uuid of domain 0, which is nil.
#[derive(Debug, Deserialize)]
pub(crate) struct DomInfo {
    #[serde(default)]
    uuid: Uuid,
    #[serde(default)]
    domid: u32,
    #[serde(default)]
    paused: bool,
    #[serde(default)]
    shutdown: bool,
    #[serde(default)]
    dying: bool,
    #[serde(default)]
    shutdown_reason: Option<Reason>,
    #[serde(default)]
    domain_type: Option<String>,
}

/// A name, as all known versions write it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Reason {
    Name(String),
    Number(i64),
}

/// An answer of libxl's that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("libxl says something of a domain that cannot be read")]
pub(crate) struct InfoError {
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl InfoError {
    fn of(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: source.into() }
    }
}

impl DomInfo {
    pub(crate) fn read(text: &str) -> Result<Self, InfoError> {
        serde_json::from_str(text).map_err(InfoError::of)
    }

    /// `None` if the number is more than a domid.
    pub(crate) fn identity(&self) -> Option<DomainIdentity> {
        let domid = u16::try_from(self.domid).ok()?;
        Some(DomainIdentity::new(DomId::new(domid), self.uuid))
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(crate) fn state(&self) -> DomainState {
        if self.dying {
            DomainState::Dying
        } else if self.shutdown {
            self.shut_down()
        } else if self.paused {
            DomainState::Paused
        } else {
            DomainState::Running
        }
    }

    fn shut_down(&self) -> DomainState {
        let reason = match &self.shutdown_reason {
            // The first of the enumeration may be left out as its default.
            None => ShutdownReason::PowerOff,
            Some(Reason::Name(name)) => match name.as_str() {
                "suspend" => return DomainState::Suspended,
                "poweroff" => ShutdownReason::PowerOff,
                "reboot" => ShutdownReason::Reboot,
                "crash" => ShutdownReason::Crash,
                "watchdog" => ShutdownReason::Watchdog,
                "soft_reset" => ShutdownReason::SoftReset,
                _ => ShutdownReason::Other(u8::MAX),
            },
            Some(Reason::Number(number)) => {
                ShutdownReason::Other(u8::try_from(*number).unwrap_or(u8::MAX))
            }
        };
        DomainState::ShutDown(reason)
    }

    /// For a PVH domain it is wrong: libxl 4.17 calls it HVM.
    pub(crate) fn kind(&self) -> DomainKind {
        match self.domain_type.as_deref() {
            Some("pv") => DomainKind::Pv,
            Some("pvh") => DomainKind::Pvh,
            _ => DomainKind::Hvm,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "b8f105fc-3f47-4301-8f2d-d8e8cd5ebedd";

    fn info(rest: &str) -> DomInfo {
        DomInfo::read(&format!("{{\"uuid\": \"{UUID}\", \"domid\": 5{rest}}}")).unwrap()
    }

    #[test]
    fn a_domain_is_suspended_only_if_it_has_shut_down_to_be_so() {
        let check = |rest: &str, state| assert_eq!(info(rest).state(), state, "{rest}");
        check("", DomainState::Running);
        check(", \"running\": true", DomainState::Running);
        check(", \"shutdown_reason\": \"suspend\"", DomainState::Running);
        check(", \"paused\": true", DomainState::Paused);
        let suspended = ", \"shutdown\": true, \"shutdown_reason\": \"suspend\"";
        check(suspended, DomainState::Suspended);
        check(&format!("{suspended}, \"paused\": true"), DomainState::Suspended);
        check(&format!("{suspended}, \"dying\": true"), DomainState::Dying);
        let crash = DomainState::ShutDown(ShutdownReason::Crash);
        check(", \"shutdown\": true, \"shutdown_reason\": \"crash\"", crash);
        check(", \"shutdown\": true", DomainState::ShutDown(ShutdownReason::PowerOff));
    }

    #[test]
    fn the_control_domain_has_no_uuid() {
        let info = DomInfo::read("{ \"running\": true, \"domain_type\": \"pv\" }").unwrap();
        assert_eq!(info.identity(), Some(DomainIdentity::new(DomId::DOM0, Uuid::nil())));
    }
}
