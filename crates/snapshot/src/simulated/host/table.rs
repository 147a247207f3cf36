//! Which domains a host has: coming, going, and their names.

use std::collections::BTreeMap;
use std::sync::Arc;

use libxl_config::DomainConfig;
use xsclient::DomId;

use super::calls::other;
use super::domain::{Domain, Making};
use super::{Host, Table};
use crate::control::{DomainIdentity, DomainView};
use crate::simulated::protocol::{Failure, Reply};

/// The domains of a host, by number.
pub(super) type Domains = BTreeMap<u16, Arc<Domain>>;

impl Host {
    /// The domain, if it is still the one that is meant.
    pub(super) fn domain(&self, identity: &DomainIdentity) -> Result<Arc<Domain>, Failure> {
        let domid = identity.domid;
        if domid == DomId::DOM0 || !domid.is_real() {
            return Err(Failure::ControlDomain);
        }
        match self.lock().domains.get(&domid.get()) {
            None => Err(Failure::NoSuchDomain),
            Some(found) if found.identity != *identity => {
                Err(Failure::AnotherDomain { found: found.identity.uuid })
            }
            Some(found) => Ok(Arc::clone(found)),
        }
    }

    /// Starts a domain, paused, under a free domid.
    pub(super) fn add(
        &self,
        domid: Option<u16>,
        boots: bool,
        config: &DomainConfig,
        making: impl FnOnce(DomId) -> Making,
    ) -> Result<DomainView, Failure> {
        let mut table = self.lock();
        let domid = domid.unwrap_or(table.next_domid);
        let id = DomId::new(domid);
        if id == DomId::DOM0 || !id.is_real() || table.domains.contains_key(&domid) {
            return Err(Failure::Other { problem: format!("domid {domid} cannot be had") });
        }
        let making = making(id);
        table.name_is_free(&making.name)?;
        let (identity, name) = (making.identity, making.name.clone());
        let domain = making.start(&self.directory).map_err(other)?;
        if let Err(failure) = self.tell(identity, &name, config, boots) {
            domain.end();
            return Err(failure);
        }
        table.next_domid = table.next_domid.max(domid + 1);
        let view = domain.view();
        table.domains.insert(domid, domain);
        Ok(view)
    }

    /// The toolstack's views of a new domain: the template and Xenstore, or neither.
    fn tell(
        &self,
        identity: DomainIdentity,
        name: &str,
        config: &DomainConfig,
        boots: bool,
    ) -> Result<(), Failure> {
        if let Some(templates) = &self.templates {
            templates.create(identity, config).map_err(|problem| Failure::Other { problem })?;
        }
        let told = match &self.xenstore {
            Some(xenstore) => xenstore.create(identity, name, config, boots).map_err(other),
            None => Ok(()),
        };
        if told.is_err() {
            self.forget_template(identity)?;
        }
        told
    }

    pub(super) fn forget_template(&self, identity: DomainIdentity) -> Result<(), Failure> {
        match &self.templates {
            Some(templates) => templates.forget(identity).map_err(other),
            None => Ok(()),
        }
    }

    pub(super) fn destroy(&self, domain: &Arc<Domain>) -> Result<Reply, Failure> {
        let identity = domain.identity;
        self.lock().domains.remove(&identity.domid.get());
        // Without the lock: a process is waited for here, and perhaps whoever has locked the template.
        domain.end();
        self.forget_template(identity)?;
        let table = self.lock();
        let shared = table.domains.values().any(|other| other.identity.uuid == identity.uuid);
        if let Some(xenstore) = &self.xenstore {
            xenstore.remove(identity, shared).map_err(other)?;
        }
        Ok(Reply::Done)
    }

    pub(super) fn rename(&self, domain: &Arc<Domain>, name: String) -> Result<Reply, Failure> {
        let table = self.lock();
        if domain.lock().name == name {
            return Ok(Reply::Done);
        }
        table.name_is_free(&name)?;
        if let Some(xenstore) = &self.xenstore {
            xenstore.rename(domain.identity, &name).map_err(other)?;
        }
        domain.lock().name = name;
        Ok(Reply::Done)
    }
}

impl Table {
    /// Names are unique on a host.
    pub(super) fn name_is_free(&self, name: &str) -> Result<(), Failure> {
        if self.domains.values().any(|domain| domain.lock().name == name) {
            return Err(Failure::NameTaken { name: name.to_owned() });
        }
        Ok(())
    }
}
