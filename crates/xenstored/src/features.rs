//! Which features domains are offered.

use xenstore_proto::{DomId, Errno, Features, Perms};

use crate::domains::Domains;

/// What the server offers beyond the oldest protocol.
const OFFERED: Features = Features(Features::WATCH_DEPTH.0 | Features::ANY_DOMAIN.0);

impl Domains {
    /// What a domain is offered: everything, unless it was restricted before its introduction.
    pub(crate) fn features(&self, domid: DomId) -> Features {
        self.restricted.get(&domid).copied().unwrap_or(OFFERED)
    }

    /// Whether there is such a domain, introduced or with features set.
    pub(crate) fn is_known(&self, domid: DomId) -> bool {
        self.is_introduced(domid) || self.restricted.contains_key(&domid)
    }

    /// Sets what a domain will be offered: EBUSY once it may have looked, EINVAL for what the server does not offer.
    ///
    /// The hypervisor is not asked whether there is a domain of this number.
    pub(crate) fn set_features(&mut self, domid: DomId, features: Features) -> Result<(), Errno> {
        if !domid.is_real() {
            return Err(Errno::ENOENT);
        }
        if !OFFERED.contains(features) {
            return Err(Errno::EINVAL);
        }
        if self.is_introduced(domid) {
            return Err(Errno::EBUSY);
        }
        self.restricted.insert(domid, features);
        Ok(())
    }

    /// What a predecessor has offered a domain; what it had not to offer is not held back.
    pub(crate) fn restrict(&mut self, domid: DomId, features: Features) {
        let offered = Features(features.0 & OFFERED.0);
        if offered != OFFERED {
            self.restricted.insert(domid, offered);
        }
    }

    /// Whether a domain may set such permissions: any domain at once is named only by who is offered that.
    pub(crate) fn may_name(&self, domid: DomId, perms: &Perms) -> bool {
        self.features(domid).contains(Features::ANY_DOMAIN)
            || perms.entries().iter().all(|entry| entry.domid != DomId::ANY)
    }
}
