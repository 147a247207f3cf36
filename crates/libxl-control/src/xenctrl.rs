//! What a configuration needs of the hypervisor, from libxenctrl.

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Mutex;

use libxl_config::model::{SchedParams, Scheduler};
use libxl_config::retrieve::{HypervisorDomain, HypervisorView};
use uuid::Uuid;
use xsclient::DomId;

use crate::ffi::{Handle, Libxenctrl};
use crate::load::{self, LibraryAt, LoadError};
use crate::pool::lock;

/// The hypervisor of a Xen host, through libxenctrl: uuids and scheduler parameters of domains.
///
/// Its questions are answered by the hypervisor itself, at once: they wait for no daemon and no guest. Any number of threads may
/// ask; one is answered at a time.
pub struct Xenctrl {
    handle: Mutex<Handle>,
}

impl fmt::Debug for Xenctrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Xenctrl").finish_non_exhaustive()
    }
}

impl Xenctrl {
    /// Loads libxenctrl and opens its interface to the hypervisor. Neither libxl nor Xenstore is needed for it.
    ///
    /// # Errors
    ///
    /// If there is no libxenctrl that is known, or it does not reach its hypervisor.
    pub fn open(library: &LibraryAt) -> Result<Self, LoadError> {
        let libxenctrl = load::load(load::LIBXENCTRL, library, Libxenctrl::open)?;
        let handle =
            libxenctrl.interface().map_err(|error| LoadError::unusable("libxenctrl", error))?;
        Ok(Self { handle: Mutex::new(handle) })
    }
}

impl HypervisorView for Xenctrl {
    fn domain(
        &self,
        domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn Error + Send + Sync>> {
        let mut handle = lock(&self.handle);
        Ok(Question { handle: &mut handle, domid }.answer()?)
    }
}

/// Why the hypervisor's answer is not known. Each is one line, since that is how reports have it.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{function} for domain {domid}: {errno}{}", logged(log))]
    Call { function: &'static str, domid: DomId, errno: io::Error, log: String },
    #[error("domain {domid} is in CPU pool {pool}, which there is not")]
    NoPool { domid: DomId, pool: u32 },
    #[error("domain {domid} is under a scheduler that is not known, number {sched}")]
    UnknownScheduler { domid: DomId, sched: u32 },
}

fn logged(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(" ({log})") }
}

impl AskError {
    /// Whether it says that there is no such domain.
    fn is_gone(&self) -> bool {
        matches!(self, Self::Call { errno, .. } if errno.raw_os_error() == Some(libc::ESRCH))
    }
}

/// A question about one domain.
struct Question<'h> {
    handle: &'h mut Handle,
    domid: DomId,
}

impl Question<'_> {
    fn answer(mut self) -> Result<Option<HypervisorDomain>, AskError> {
        let info = self.handle.domain_from(self.domid.get().into());
        let info = info.map_err(|errno| self.failed("xc_domain_getinfolist", errno))?;
        let Some(info) = info.filter(|info| info.domid == self.domid.get()) else {
            return Ok(None);
        };
        match self.sched_params(info.pool) {
            Ok(params) => Ok(Some(HypervisorDomain::new(Uuid::from_bytes(info.uuid), params))),
            // It may go at any time.
            Err(error) if error.is_gone() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As libxl tells them: what a scheduler does not have is left to it. ARINC 653 and null have nothing of a domain's; libxl
    /// fails for the former.
    ///
    /// The scheduler is that of the domain's pool, which is asked for each time: pools are made and removed at any time.
    fn sched_params(&mut self, pool: u32) -> Result<SchedParams, AskError> {
        let domid = u32::from(self.domid.get());
        let mut params = SchedParams::default();
        match self.scheduler(pool)? {
            5 => {
                let told = self.handle.credit(domid);
                let told =
                    told.map_err(|errno| self.failed("xc_sched_credit_domain_get", errno))?;
                params.sched = Scheduler::Credit;
                (params.weight, params.cap) = (told.weight.into(), told.cap.into());
            }
            6 => {
                let told = self.handle.credit2(domid);
                let told =
                    told.map_err(|errno| self.failed("xc_sched_credit2_domain_get", errno))?;
                params.sched = Scheduler::Credit2;
                (params.weight, params.cap) = (told.weight.into(), told.cap.into());
            }
            7 => params.sched = Scheduler::Arinc653,
            8 => {
                let told = self.handle.rtds(domid);
                let told = told.map_err(|errno| self.failed("xc_sched_rtds_domain_get", errno))?;
                params.sched = Scheduler::Rtds;
                (params.period, params.budget) =
                    (told.period.cast_signed(), told.budget.cast_signed());
            }
            9 => params.sched = Scheduler::Null,
            sched => return Err(AskError::UnknownScheduler { domid: self.domid, sched }),
        }
        Ok(params)
    }

    /// The number of a pool's scheduler (`XEN_SCHEDULER_*` in Xen's `domctl.h`).
    fn scheduler(&mut self, pool: u32) -> Result<u32, AskError> {
        let found = self.handle.pool_from(pool);
        let found = found.map_err(|errno| self.failed("xc_cpupool_getinfo", errno))?;
        if found.id == pool {
            Ok(found.sched)
        } else {
            Err(AskError::NoPool { domid: self.domid, pool })
        }
    }

    fn failed(&mut self, function: &'static str, errno: io::Error) -> AskError {
        AskError::Call { function, domid: self.domid, errno, log: self.handle.take_log() }
    }
}
