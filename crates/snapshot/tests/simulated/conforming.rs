//! The simulated domain keeps the promises that any implementation must keep.

use std::path::PathBuf;
use std::time::Duration;

use libxl_config::DomainConfig;
use snapshot::control::conformance::{self, World};
use snapshot::control::{Cause, DomainControl, DomainIdentity};
use snapshot::simulated::SimulatedDomain;
use xsclient::DomId;

use crate::hosts::{TestHost, soon, start};

struct Simulated {
    host: TestHost,
    control: SimulatedDomain,
    names: u32,
}

impl World for Simulated {
    fn control(&self) -> &dyn DomainControl {
        &self.control
    }

    fn running(&mut self) -> Result<DomainIdentity, Cause> {
        self.names += 1;
        Ok(self.host.running(&format!("domain-{}", self.names)))
    }

    fn copy_of(&mut self, domain: &DomainIdentity) -> Result<DomainConfig, Cause> {
        let view = self.control.find(domain.domid, soon())?.ok_or("it is gone")?;
        self.names += 1;
        Ok(self.host.copied(&view.name.ok_or("it has no name")?, &format!("copy-{}", self.names)))
    }

    fn progress(&mut self, domain: &DomainIdentity) -> Result<u64, Cause> {
        let inspection = self.host.inspect(domain);
        match inspection.wrong {
            None => Ok(inspection.tick),
            Some(wrong) => Err(wrong.into()),
        }
    }

    fn await_progress(&mut self, domain: &DomainIdentity, beyond: u64) -> Result<(), Cause> {
        Ok(self.host.operator().await_tick(domain, beyond + 1, soon()).map(drop)?)
    }

    fn unused_domid(&mut self) -> DomId {
        DomId::new(4000)
    }

    fn directory(&self) -> PathBuf {
        self.host.directory.path().to_owned()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

#[test]
fn the_simulated_domain_conforms() {
    let host = start();
    let control = host.control();
    let mut world = Simulated { host, control, names: 0 };
    if let Err(deviation) = conformance::check(&mut world) {
        panic!("{deviation}");
    }
}
