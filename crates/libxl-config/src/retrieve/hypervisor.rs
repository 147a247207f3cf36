//! What only the hypervisor knows.

use std::error::Error;

use uuid::Uuid;
use xsclient::DomId;

use crate::model::SchedParams;

/// Answers what neither template nor Xenstore holds: implemented on a real host by a crate that talks to the hypervisor.
///
/// Without one, the template's values stand and the report says so.
pub trait HypervisorView {
    /// What the hypervisor says of a domain; `None` if it has no such domain.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from answering; it goes into the report as text.
    fn domain(
        &self,
        domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn Error + Send + Sync>>;

    /// Bus and address of the host's USB device that Linux calls `bus_id` (`1-1.2`); `None` if there is none or nobody
    /// can tell. Xenstore holds only the former, configurations only the latter.
    fn usb_address(&self, bus_id: &str) -> Option<(u8, u8)> {
        let _ = bus_id;
        None
    }
}

/// What the hypervisor says of a domain.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HypervisorDomain {
    /// Its handle: the uuid under which its template is filed.
    pub uuid: Uuid,
    /// Its scheduler's parameters.
    pub sched_params: SchedParams,
}

impl HypervisorDomain {
    /// A domain with that handle and those parameters.
    pub fn new(uuid: Uuid, sched_params: SchedParams) -> Self {
        Self { uuid, sched_params }
    }
}
