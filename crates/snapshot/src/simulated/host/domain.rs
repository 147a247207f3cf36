//! One simulated domain.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::control::{
    CancelToken, DomainIdentity, DomainKind, DomainState, DomainView, ShutdownReason,
};
use crate::simulated::disk::GuestDisk;
use crate::simulated::memory::GuestMemory;
use crate::simulated::protocol::{Failure, Inspection};
use crate::simulated::spec::{DiskSpec, GuestSpec};

use super::guest;
use super::storage::StorageDaemon;

/// A domain. Its guest is a thread, which does nothing but while it holds the lock.
pub(super) struct Domain {
    pub(super) identity: DomainIdentity,
    pub(super) spec: GuestSpec,
    pub(super) memory: GuestMemory,
    acknowledge: Duration,
    /// `None` if it has no qcow2 disk, or has ended.
    storage: Mutex<Option<StorageDaemon>>,
    core: Mutex<Core>,
    changed: Condvar,
}

/// What changes about a domain.
pub(super) struct Core {
    pub(super) name: String,
    pub(super) paused: bool,
    pub(super) shutdown: Option<Shutdown>,
    pub(super) gone: bool,
    /// What the toolstack asks of the guest.
    pub(super) asked: Option<Asked>,
    /// A suspend is under way, from the request to the guest until the end of the stream.
    pub(super) streaming: bool,
    /// The last tick that is done, and how much of the next one is.
    pub(super) tick: u64,
    pub(super) step: usize,
    pub(super) disks: Vec<GuestDisk>,
    /// What the guest found wrong.
    pub(super) wrong: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shutdown {
    Suspend,
    Other(ShutdownReason),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Suspend,
    Crash,
}

/// What a new domain is made of.
pub(super) struct Making {
    pub(super) identity: DomainIdentity,
    pub(super) name: String,
    pub(super) spec: GuestSpec,
    pub(super) memory: GuestMemory,
    pub(super) tick: u64,
    pub(super) disks: Vec<DiskSpec>,
    pub(super) acknowledge: Duration,
    pub(super) paused: bool,
}

impl Making {
    /// The memory of a freshly booted domain.
    pub(super) fn memory_of(
        directory: &Path,
        spec: &GuestSpec,
        disks: usize,
    ) -> io::Result<GuestMemory> {
        GuestMemory::populated(directory, spec, disks as u64)
    }

    /// Opens the disks and starts the guest's thread.
    pub(super) fn start(self, directory: &Path) -> io::Result<Arc<Domain>> {
        let storage = StorageDaemon::start(directory, self.identity.domid, &self.disks)?;
        let (disks, storage) = opened(self.disks, storage)?;
        let core = Core {
            name: self.name,
            paused: self.paused,
            shutdown: None,
            gone: false,
            asked: None,
            streaming: false,
            tick: self.tick,
            step: 0,
            disks,
            wrong: None,
        };
        let domain = Arc::new(Domain {
            identity: self.identity,
            spec: self.spec,
            memory: self.memory,
            acknowledge: self.acknowledge,
            storage: Mutex::new(storage),
            core: Mutex::new(core),
            changed: Condvar::new(),
        });
        let runs = Arc::clone(&domain);
        thread::Builder::new()
            .name(format!("guest-{}", domain.identity.domid))
            .spawn(move || guest::run(&runs))?;
        Ok(domain)
    }
}

/// Opens the disks; what the process said that was to have them open tells why it has not.
fn opened(
    disks: Vec<DiskSpec>,
    storage: Option<StorageDaemon>,
) -> io::Result<(Vec<GuestDisk>, Option<StorageDaemon>)> {
    let nbd = storage.as_ref().map(StorageDaemon::nbd);
    match disks.into_iter().map(|disk| GuestDisk::open(disk, nbd)).collect::<io::Result<_>>() {
        Ok(disks) => Ok((disks, storage)),
        Err(error) => Err(match storage.map(StorageDaemon::stop) {
            Some(said) if !said.is_empty() => io::Error::other(said),
            _ => error,
        }),
    }
}

impl Domain {
    /// Its guest does nothing any more, and nobody has its disks open.
    pub(super) fn end(&self) {
        self.lock().gone = true;
        self.notify();
        let storage = self.storage().take();
        if let Some(said) = storage.map(StorageDaemon::stop)
            && !said.is_empty()
        {
            tracing::warn!(domain = %self.identity, said, "the qemu-storage-daemon had something to say");
        }
    }

    fn storage(&self) -> MutexGuard<'_, Option<StorageDaemon>> {
        self.storage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of the guest's thread leaves a guest that does nothing any more, which is a state like others.
    pub(super) fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody who waits for a change that there is one.
    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    pub(super) fn wait<'c>(&'c self, core: MutexGuard<'c, Core>) -> MutexGuard<'c, Core> {
        self.changed.wait(core).unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait_until<'c>(
        &'c self,
        core: MutexGuard<'c, Core>,
        moment: Instant,
    ) -> MutexGuard<'c, Core> {
        let left = moment.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(core, left).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(super) fn view(&self) -> DomainView {
        self.view_of(&self.lock())
    }

    fn view_of(&self, core: &Core) -> DomainView {
        DomainView {
            identity: self.identity,
            name: Some(core.name.clone()),
            kind: DomainKind::Pv,
            state: core.state(),
            paused: core.paused,
        }
    }

    pub(super) fn inspect(&self) -> io::Result<Inspection> {
        let core = self.lock();
        let storage = self.storage();
        Ok(Inspection {
            view: self.view_of(&core),
            guest: self.spec.clone(),
            tick: core.tick,
            disks: core.disks.iter().map(|disk| disk.spec.clone()).collect(),
            streaming: core.streaming,
            memory_stored: self.memory.stored()?,
            qmp: storage.as_ref().map(|storage| storage.qmp().to_owned()),
            storage_daemon: storage.as_ref().map(StorageDaemon::pid),
            wrong: core.wrong.clone(),
        })
    }

    /// Changes something unless the domain is in the wrong state for it.
    pub(super) fn change(
        &self,
        may: impl FnOnce(DomainState) -> bool,
        change: impl FnOnce(&mut Core),
    ) -> Result<(), Failure> {
        let mut core = self.lock();
        let state = core.state();
        if state == DomainState::Gone {
            return Err(Failure::NoSuchDomain);
        }
        if !may(state) {
            return Err(Failure::WrongState { state });
        }
        change(&mut core);
        self.notify();
        Ok(())
    }

    /// Asks the guest, if at all, and waits until it has shut down.
    pub(super) fn suspend(
        &self,
        asked: Option<Asked>,
        cancel: &CancelToken,
    ) -> Result<(), Failure> {
        self.change(
            |state| state == DomainState::Running,
            |core| {
                core.asked = asked;
                core.streaming = true;
            },
        )?;
        let give_up = Instant::now() + self.acknowledge;
        let mut core = self.lock();
        let outcome = loop {
            match core.shutdown {
                Some(Shutdown::Suspend) => break Ok(()),
                Some(Shutdown::Other(reason)) => break Err(Failure::GuestStopped { reason }),
                None if core.gone => break Err(Failure::NoSuchDomain),
                None if cancel.is_cancelled() => break Err(Failure::Cancelled),
                None if Instant::now() >= give_up => break Err(Failure::NotAcknowledged),
                None => core = self.wait_until(core, give_up),
            }
        };
        if outcome.is_err() {
            core.asked = None;
            core.streaming = false;
            self.notify();
        }
        outcome
    }

    /// Waits until the guest has done a tick.
    pub(super) fn await_tick(&self, tick: u64, cancel: &CancelToken) -> Result<(), Failure> {
        let mut core = self.lock();
        while core.tick < tick {
            match core.state() {
                DomainState::Gone => return Err(Failure::NoSuchDomain),
                state @ DomainState::ShutDown(_) => return Err(Failure::WrongState { state }),
                _ if cancel.is_cancelled() => return Err(Failure::Cancelled),
                _ => core = self.wait(core),
            }
        }
        Ok(())
    }

    /// No stream is written any more.
    pub(super) fn streamed(&self) {
        self.lock().streaming = false;
        self.notify();
    }

    /// Waits until nothing is asked and no stream is written any more.
    pub(super) fn settle(&self, cancel: &CancelToken) -> Result<(), Failure> {
        let mut core = self.lock();
        while core.streaming && !core.gone {
            if cancel.is_cancelled() {
                return Err(Failure::StillStreaming);
            }
            core = self.wait(core);
        }
        Ok(())
    }

    /// Waits until no stream is written any more, and lets a suspended guest go on.
    pub(super) fn resume(&self, cancel: &CancelToken, really: bool) -> Result<(), Failure> {
        let mut core = self.lock();
        loop {
            match core.state() {
                DomainState::Gone => return Err(Failure::NoSuchDomain),
                DomainState::Suspended if core.streaming && cancel.is_cancelled() => {
                    return Err(Failure::StillStreaming);
                }
                DomainState::Suspended if core.streaming => core = self.wait(core),
                DomainState::Suspended => break,
                state => return Err(Failure::WrongState { state }),
            }
        }
        if really {
            core.shutdown = None;
            self.notify();
        }
        Ok(())
    }
}

impl Core {
    pub(super) fn state(&self) -> DomainState {
        match self.shutdown {
            _ if self.gone => DomainState::Gone,
            Some(Shutdown::Suspend) => DomainState::Suspended,
            Some(Shutdown::Other(reason)) => DomainState::ShutDown(reason),
            None if self.paused => DomainState::Paused,
            None => DomainState::Running,
        }
    }
}
