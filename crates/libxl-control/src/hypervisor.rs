//! What a configuration needs of the hypervisor.

use std::error::Error;
use std::time::{Duration, Instant};

use libxl_config::retrieve::{HypervisorDomain, HypervisorView};
use xsclient::DomId;

use crate::control::Libxl;
use crate::failure::{Failing, LibxlFailure};
use crate::info::{DomInfo, sched_params};
use crate::rc;

/// How long the two questions may take.
const ASK_LIMIT: Duration = Duration::from_secs(10);

impl HypervisorView for Libxl {
    fn domain(
        &self,
        domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn Error + Send + Sync>> {
        let number = u32::from(domid.get());
        let asked = self.ask(Instant::now() + ASK_LIMIT, move |context| {
            Ok((context.info(number)?, context.sched_params(number)?))
        });
        let (info, params) = match asked {
            Ok(answers) => answers,
            Err(Failing::Libxl(LibxlFailure::Rc { rc: rc::DOMAIN_NOT_FOUND, .. })) => {
                return Ok(None);
            }
            Err(failing) => return Err(failing.to_string().into()),
        };
        Ok(Some(HypervisorDomain::new(DomInfo::read(&info)?.uuid(), sched_params(&params)?)))
    }
}
