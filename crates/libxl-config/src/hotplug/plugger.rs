//! The public way in, and what attaching, detaching and repairing have in common.

use std::time::{Duration, Instant};

use xsclient::{Client, DomId, OperationError};

use super::claim::{self, Claim};
use super::error::StepError;
use super::place::Place;
use super::script::{Action, NicNames, ScriptCall};
use super::wait::{self, Ends};
use super::{DeviceId, plan};
use crate::DomainError;
use crate::domain::Domain;
use crate::retrieve::HypervisorView;
use crate::template::{TemplateStore, steps};

/// How often it is tried while somebody else changes the domain in Xenstore.
pub const ATTEMPTS_MAX: u32 = 100;

/// How long the template's lock is waited for: `xl` holds it for as long as it writes a file and some nodes.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a backend may take to begin with a device, as in libxl.
pub const BACKEND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a hotplug script may take, as in libxl.
pub const SCRIPT_TIMEOUT: Duration = Duration::from_secs(40);

/// How long the guest's driver is waited for. A guest that has none does not fail the attaching.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a guest may take to let a device go, as in libxl.
pub const LET_GO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the ends of a device may take to close when attaching it is undone.
pub const UNDO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long each step may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// The template's lock, and another process's claim on the device.
    pub lock: Duration,
    /// The backend's state 2.
    pub backend: Duration,
    /// A hotplug script.
    pub script: Duration,
    /// The backend's state 4.
    pub connect: Duration,
    /// The backend's state 6.
    pub let_go: Duration,
    /// The backend's state 6 when attaching is undone.
    pub undo: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            lock: LOCK_TIMEOUT,
            backend: BACKEND_TIMEOUT,
            script: SCRIPT_TIMEOUT,
            connect: CONNECT_TIMEOUT,
            let_go: LET_GO_TIMEOUT,
            undo: UNDO_TIMEOUT,
        }
    }
}

/// Plugs devices, in one Xenstore and one template store.
pub struct Hotplug<'a> {
    pub(super) client: &'a mut Client,
    pub(super) templates: &'a dyn TemplateStore,
    pub(super) hypervisor: Option<&'a dyn HypervisorView>,
    pub(super) timeouts: Timeouts,
    pub(super) script_directory: String,
    pub(super) force: bool,
}

impl<'a> Hotplug<'a> {
    /// With libxl's times for each step, and its directory of scripts.
    pub fn new(client: &'a mut Client, templates: &'a dyn TemplateStore) -> Self {
        Self {
            client,
            templates,
            hypervisor: None,
            timeouts: Timeouts::default(),
            script_directory: plan::SCRIPT_DIRECTORY.to_owned(),
            force: false,
        }
    }

    /// Asks this for the domain's uuid, by which its template is filed, instead of Xenstore.
    #[must_use]
    pub fn hypervisor(mut self, hypervisor: &'a dyn HypervisorView) -> Self {
        self.hypervisor = Some(hypervisor);
        self
    }

    /// Other times for the steps.
    #[must_use]
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// Where scripts are that are given without a path; `/etc/xen/scripts` if not said.
    #[must_use]
    pub fn script_directory(mut self, directory: impl Into<String>) -> Self {
        self.script_directory = directory.into();
        self
    }

    /// Takes devices away from guests that do not let them go: their frontend is removed, the backend has
    /// [`Timeouts::let_go`] to notice, and then all of it is removed. What the guest had not written yet is lost.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }

    /// The claims on devices of a domain: what is being plugged right now, and what was when its process died.
    ///
    /// # Errors
    /// If Xenstore cannot be read.
    pub fn claims(&mut self, domid: DomId) -> Result<Vec<(DeviceId, Claim)>, OperationError> {
        claim::all(self.client, domid)
    }

    pub(super) fn domain(&mut self, domid: DomId) -> Result<Domain, DomainError> {
        let deadline = Instant::now() + self.timeouts.lock;
        Domain::find(self.client, self.templates, self.hypervisor, domid, deadline)
    }

    /// Waits until the backend is ready for its script, and the device's own state says so.
    pub(super) fn await_backend(&mut self, place: &Place) -> Result<Ends, StepError> {
        let waited = self.timeouts.backend;
        let deadline = Instant::now() + waited;
        let mut last = Ends::default();
        let ready = wait::until(self.client, &place.backend(), deadline, |client| {
            last = Ends::read(client, place)?;
            let done = !last.toolstack || last.backend_state.is_some_and(|state| state >= 2);
            Ok(done.then(|| last.clone()))
        })?;
        match ready {
            Some(ends) if !ends.toolstack => Err(StepError::Vanished),
            Some(ends) => Ok(ends),
            None => Err(StepError::NoBackend { state: last.backend_state, waited }),
        }
    }

    /// Runs the script, and looks whether it says that it did what it had to.
    pub(super) fn run_script(
        &mut self,
        place: &Place,
        script: &str,
        names: &NicNames,
        action: Action,
    ) -> Result<(), StepError> {
        let limit = self.timeouts.script;
        let call = ScriptCall::new(place, script, action, names);
        let started = call.start();
        steps::reached(match action {
            Action::Add => "attach: script started",
            Action::Remove => "detach: script started",
        });
        let ran = started.and_then(|script| script.wait(limit, Instant::now() + limit));
        let told = Ends::read(self.client, place)?;
        match ran {
            Err(source) => Err(StepError::Script { hotplug_error: told.hotplug_error, source }),
            Ok(()) if told.hotplug_status.as_deref() == Some("error") => {
                let error = told.hotplug_error.unwrap_or_else(|| "no more than that".to_owned());
                Err(StepError::HotplugError { error })
            }
            Ok(()) => Ok(()),
        }
    }

    /// Waits until both ends are connected, or it is clear that the guest does not come.
    pub(super) fn await_connection(&mut self, place: &Place) -> Result<Ends, StepError> {
        let deadline = Instant::now() + self.timeouts.connect;
        let mut last = Ends::default();
        for watched in [place.backend(), place.frontend()] {
            let found = wait::until(self.client, &watched, deadline, |client| {
                last = Ends::read(client, place)?;
                let connected = last.backend_state == Some(4)
                    && (watched == place.backend() || last.frontend_state == Some(4));
                Ok((connected || !last.toolstack).then_some(()))
            })?;
            if !last.toolstack {
                return Err(StepError::Vanished);
            }
            if found.is_none() {
                break;
            }
        }
        let (backend, frontend) = (last.backend_state, last.frontend_state);
        // A guest that has made its rings and is not met would wait for ever.
        if backend != Some(4) && matches!(frontend, Some(3 | 4)) {
            return Err(StepError::NotConnected { backend, frontend });
        }
        Ok(last)
    }
}
