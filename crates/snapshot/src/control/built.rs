//! What is left of a build that failed.

use std::time::Instant;

use libxl_config::DomainConfig;

use super::{DomainControl, DomainIdentity, DomainState, DomainView};

/// For implementations: destroys the domain that a failed build has left, which is known by its name and uuid and was not there
/// `before`. Gives the one that could not be destroyed.
pub fn remove_built(
    control: &dyn DomainControl,
    configuration: &DomainConfig,
    before: &[DomainView],
    deadline: Instant,
) -> Option<DomainIdentity> {
    let built = |view: &&DomainView| {
        view.identity.uuid == configuration.c_info.uuid
            && view.name == configuration.c_info.name
            && !before.iter().any(|other| other.identity == view.identity)
    };
    let views = match control.list(deadline) {
        Ok(views) => views,
        Err(error) => {
            tracing::warn!(%error, "cannot find out whether a domain is left of a failed build");
            return None;
        }
    };
    let left = views.iter().find(built)?.identity;
    match control.destroy(&left, deadline) {
        Ok(()) => None,
        Err(error) if error.state == Some(DomainState::Gone) => None,
        Err(error) => {
            tracing::warn!(%error, domain = %left, "a domain is left of a failed build");
            Some(left)
        }
    }
}
