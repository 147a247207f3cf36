//! A simulated host for the conformance checks, whatever is put around its domains' control.

use std::path::PathBuf;
use std::time::Duration;

use libxl_config::DomainConfig;
use snapshot::control::conformance::World;
use snapshot::control::{Cause, DomainControl, DomainIdentity};
use xsclient::DomId;

use crate::hosts::{TestHost, soon};

pub(crate) struct Simulated<'c> {
    host: TestHost,
    control: &'c dyn DomainControl,
    names: u32,
}

impl<'c> Simulated<'c> {
    pub(crate) fn new(host: TestHost, control: &'c dyn DomainControl) -> Self {
        Self { host, control, names: 0 }
    }
}

impl World for Simulated<'_> {
    fn control(&self) -> &dyn DomainControl {
        self.control
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
