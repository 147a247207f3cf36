//! Which domain it is, and which template is its own.

use std::time::Instant;

use xsclient::{Batch, Client, DomId, Nodes, Path};

use super::error::DomainError;
use crate::retrieve::{HypervisorView, disks};
use crate::template::{TemplateKey, TemplateStore};

/// A domain that is there.
#[derive(Clone, Debug)]
pub(super) struct Domain {
    pub(super) domid: DomId,
    /// Where its template is; `None` if nothing tells its uuid and there is not just one template of that id.
    pub(super) key: Option<TemplateKey>,
    /// The value of `/local/domain/DOMID/vm`, by which it is known to be the same domain later.
    pub(super) vm: Option<Vec<u8>>,
}

impl Domain {
    /// The hypervisor's handle says which template is the domain's, else `/local/domain/DOMID/vm`. Dom0 has neither, and a
    /// single template then.
    pub(super) fn find(
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
}
