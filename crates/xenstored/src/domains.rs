//! The domains the server knows, and who may hear of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use xenstore_proto::{Access, DomId, Features, Perm, Perms, SpecialName};

use crate::access::{Actor, Object, Subject};
use crate::interner::Interner;
use crate::release::without;

/// The introduced domains and the permissions of the special names.
#[derive(Debug)]
pub(crate) struct Domains {
    introduced: BTreeMap<DomId, Domain>,
    /// What domains are offered for which that was set, before they were introduced.
    pub(crate) restricted: BTreeMap<DomId, Features>,
    introduce_perms: Arc<Perms>,
    release_perms: Arc<Perms>,
}

#[derive(Debug, Default)]
struct Domain {
    target: Option<DomId>,
    /// Whether its shutdown has been told.
    shut_down: bool,
}

impl Domains {
    /// Domain 0 only. Every domain may hear of releases, and only privileged ones of introductions, as in Xen 4.22.
    pub(crate) fn new() -> Self {
        let any = Perm::new(Access::Read, DomId::ANY);
        let for_all = Perms::new(vec![Perm::new(Access::None, DomId::DOM0), any]);
        Self {
            introduced: BTreeMap::from([(DomId::DOM0, Domain::default())]),
            restricted: BTreeMap::new(),
            introduce_perms: Arc::new(Perms::owned_by(DomId::DOM0)),
            release_perms: Arc::new(for_all.expect("two entries are more than none")),
        }
    }

    /// The introduced domains.
    pub(crate) fn introduced(&self) -> impl Iterator<Item = DomId> {
        self.introduced.keys().copied()
    }

    /// The introduced domains, and those for which features were set.
    pub(crate) fn known(&self) -> BTreeSet<DomId> {
        self.introduced.keys().chain(self.restricted.keys()).copied().collect()
    }

    /// The permissions of a special name that has some.
    pub(crate) fn perms_of_special(&self, name: &str) -> Option<&Perms> {
        match name {
            SpecialName::INTRODUCE_DOMAIN => Some(&self.introduce_perms),
            SpecialName::RELEASE_DOMAIN => Some(&self.release_perms),
            _ => None,
        }
    }

    pub(crate) fn is_introduced(&self, domid: DomId) -> bool {
        self.introduced.contains_key(&domid)
    }

    /// `false` if the domain was introduced before.
    pub(crate) fn introduce(&mut self, domid: DomId) -> bool {
        let new = !self.is_introduced(domid);
        self.introduced.entry(domid).or_default();
        new
    }

    /// `false` if there was no such domain. Nobody keeps it as a target, or in the permissions of a special name: the next
    /// domain of this number is another.
    pub(crate) fn release(&mut self, domid: DomId, interner: &mut Interner) -> bool {
        for perms in [&mut self.introduce_perms, &mut self.release_perms] {
            if perms.entries().iter().any(|entry| entry.domid == domid) {
                *perms = without(domid, perms, interner);
            }
        }
        for domain in self.introduced.values_mut().filter(|domain| domain.target == Some(domid)) {
            domain.target = None;
        }
        self.restricted.remove(&domid);
        self.introduced.remove(&domid).is_some()
    }

    /// Whether a domain's shutdown is news: it is told once, until the domain is resumed.
    pub(crate) fn note_shutdown(&mut self, domid: DomId) -> bool {
        let domain = self.introduced.get_mut(&domid);
        domain.is_some_and(|domain| !std::mem::replace(&mut domain.shut_down, true))
    }

    /// The next shutdown of a domain will be news. `false` if there is no such domain.
    pub(crate) fn resume(&mut self, domid: DomId) -> bool {
        let domain = self.introduced.get_mut(&domid);
        domain.map(|domain| domain.shut_down = false).is_some()
    }

    /// `false` if one of the two is not introduced.
    pub(crate) fn set_target(&mut self, domid: DomId, target: DomId) -> bool {
        let known = self.is_introduced(target);
        match self.introduced.get_mut(&domid) {
            Some(domain) if known => domain.target = Some(target),
            _ => return false,
        }
        true
    }

    pub(crate) fn subject(&self, domid: DomId) -> Subject {
        let target = self.introduced.get(&domid).and_then(|domain| domain.target);
        Subject { domid, target, privileged: domid == DomId::DOM0 }
    }

    /// The permissions of a special name that has some.
    pub(crate) fn special_perms(&mut self, name: &SpecialName) -> Option<&mut Arc<Perms>> {
        match name.as_str() {
            SpecialName::INTRODUCE_DOMAIN => Some(&mut self.introduce_perms),
            SpecialName::RELEASE_DOMAIN => Some(&mut self.release_perms),
            _ => None,
        }
    }

    /// Whether the actor may hear of a domain's introduction or release.
    pub(crate) fn may_hear(&self, actor: Actor<'_>, event: DomainEvent) -> bool {
        let perms = match event {
            DomainEvent::Introduced => &self.introduce_perms,
            DomainEvent::Released => &self.release_perms,
        };
        actor.reads(Object { path: event.name(), perms })
    }
}

/// What special watches tell about a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DomainEvent {
    Introduced,
    Released,
}

impl DomainEvent {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Introduced => SpecialName::INTRODUCE_DOMAIN,
            Self::Released => SpecialName::RELEASE_DOMAIN,
        }
    }
}
