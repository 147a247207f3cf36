//! Which domain it is, and which template is its own.

use std::time::Instant;

use uuid::Uuid;
use xsclient::{Batch, Client, DomId, Nodes, OperationError, Path};

use crate::retrieve::{HypervisorView, disks};
use crate::template::{ListError, TemplateKey, TemplateStore};

/// Why nothing could be begun on a domain. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DomainError {
    /// Xenstore has no such domain.
    #[error("no domain {domid}: Xenstore has no /local/domain/{domid}")]
    NoSuchDomain {
        /// Which.
        domid: DomId,
    },
    /// The hypervisor could not be asked for the domain's uuid.
    #[error("domain {domid}: the hypervisor could not be asked")]
    Hypervisor {
        /// Which.
        domid: DomId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The template store could not be searched.
    #[error("domain {domid}: cannot search the template store")]
    Templates {
        /// For which domain.
        domid: DomId,
        /// Why.
        source: ListError,
    },
    /// The domain has no template.
    #[error("domain {domid}: the store has no template of it{}", of_uuid(uuid.as_ref()))]
    NoTemplate {
        /// Which.
        domid: DomId,
        /// Its uuid, if it is known.
        uuid: Option<Uuid>,
    },
    /// Xenstore could not be read.
    #[error("domain {domid}: cannot read Xenstore")]
    Xenstore {
        /// Of which domain.
        domid: DomId,
        /// Why.
        source: OperationError,
    },
}

/// A domain that is there.
#[derive(Clone, Debug)]
pub(crate) struct Domain {
    pub(crate) domid: DomId,
    /// Where its template is; `None` if nothing tells its uuid and there is not just one template of that id.
    pub(crate) key: Option<TemplateKey>,
    /// The value of `/local/domain/DOMID/vm`, by which it is known to be the same domain later.
    pub(crate) vm: Option<Vec<u8>>,
}

impl Domain {
    /// The hypervisor's handle says which template is the domain's, else `/local/domain/DOMID/vm`. Dom0 has neither, and a
    /// single template then.
    pub(crate) fn find(
        client: &mut Client,
        templates: &dyn TemplateStore,
        hypervisor: Option<&dyn HypervisorView>,
        domid: DomId,
        deadline: Instant,
    ) -> Result<Self, DomainError> {
        let xenstore = |source| DomainError::Xenstore { domid, source };
        let mut batch = Batch::new();
        let root = batch.read(Path::of_domain(domid));
        let vm = batch.read(disks::vm_path(domid));
        let mut replies = client.run(batch).map_err(xenstore)?;
        let root = replies.take_optional(root).map_err(xenstore)?;
        let vm = replies.take_optional(vm).map_err(xenstore)?;
        if root.is_none() && vm.is_none() {
            return Err(DomainError::NoSuchDomain { domid });
        }
        if let Some(hypervisor) = hypervisor {
            let told = hypervisor
                .domain(domid)
                .map_err(|source| DomainError::Hypervisor { domid, source })?;
            let told = told.ok_or(DomainError::NoSuchDomain { domid })?;
            return Ok(Self { domid, key: Some(TemplateKey::new(domid, told.uuid)), vm });
        }
        let told = vm.as_deref().and_then(|vm| str::from_utf8(vm).ok());
        if let Some(uuid) = told.and_then(disks::uuid_of_vm) {
            return Ok(Self { domid, key: Some(TemplateKey::new(domid, uuid)), vm });
        }
        let keys = templates.keys_of(domid, deadline);
        let keys = keys.map_err(|source| DomainError::Templates { domid, source })?;
        let key = if let [key] = keys[..] { Some(key) } else { None };
        Ok(Self { domid, key, vm })
    }

    /// The template's key, which there has to be.
    pub(crate) fn key(&self) -> Result<TemplateKey, DomainError> {
        self.key.ok_or(DomainError::NoTemplate { domid: self.domid, uuid: None })
    }
}

fn of_uuid(uuid: Option<&Uuid>) -> String {
    uuid.map(|uuid| format!(" (uuid {uuid})")).unwrap_or_default()
}
