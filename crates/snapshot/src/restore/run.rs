//! Carrying a plan out.

use std::path::{Path, PathBuf};
use std::time::Instant;

use uuid::Uuid;

use super::error::{RestoreCause, RestoreFailure};
use super::plan::{RestorePlan, draw, rests_on_frozen};
use super::request::{DiskRestore, RestoreMode, Start};
use super::undo::Undo;
use super::{
    Restored, RestoredDisk, RestoredXenstore, check, configuration, memory, source, xenstore,
};
use crate::control::{ChangeError, DomainIdentity, DomainState, SETTLE_LIMIT, deadline_in};
use crate::disk::create_overlay;
use crate::journal::{BeginRestore, Journal, Operation, Record, RestoredDraft, steps};
use crate::save::Durability;
use crate::{HostAccess, Observer, Phase};

/// Restores what a plan says.
///
/// What was saved is compared first: memory image and Xenstore state whole, disks as thoroughly as the request says. Nothing is
/// created before that. The domain is built under a temporary name and is paused until all else is done.
///
/// # Errors
///
/// [`RestoreFailure`]: until the domain that is replaced is destroyed, or the new one is about to run, everything is undone, and
/// the domain that was to be replaced is untouched unless it had to be destroyed first. From there on the new domain stays.
pub fn restore(
    access: &mut HostAccess<'_>,
    plan: RestorePlan,
    observer: &mut Observer<'_>,
) -> Result<Restored, RestoreFailure> {
    let deadline = deadline_in(plan.request.deadlines.total);
    let mut run = Run {
        access,
        plan,
        observer,
        deadline,
        phase: Phase::Plan,
        journal: Journal::none(Uuid::nil()),
        undo: Undo::default(),
        id: Uuid::nil(),
    };
    match run.restore() {
        Ok(restored) => Ok(restored),
        Err(Stop::Before(cause)) => Err(run.undone(cause)),
        Err(Stop::After(cause, restored)) => Err(run.stands(cause, restored)),
    }
}

/// Where a restore ended: before or after the commit point.
enum Stop {
    Before(RestoreCause),
    After(RestoreCause, Box<Restored>),
}

impl From<RestoreCause> for Stop {
    fn from(cause: RestoreCause) -> Self {
        Self::Before(cause)
    }
}

struct Run<'r, 'a, 'o> {
    access: &'r mut HostAccess<'a>,
    plan: RestorePlan,
    observer: &'r mut Observer<'o>,
    deadline: Instant,
    phase: Phase,
    journal: Journal,
    undo: Undo,
    id: Uuid,
}

impl Run<'_, '_, '_> {
    fn restore(&mut self) -> Result<Restored, Stop> {
        self.begin(Phase::Plan)?;
        self.check_plan()?;
        self.begin(Phase::Verify)?;
        let mut warnings = self.plan.warnings.clone();
        warnings.extend(check::verify(&self.plan, self.deadline, self.observer)?);
        self.begin(Phase::Prepare)?;
        self.id = super::random::uuid().map_err(|source| RestoreCause::Random { source })?;
        self.open_journal()?;
        self.overlays()?;
        let mut restored = self.draft(warnings);
        let Some(domain) = self.build()? else {
            return self.without_memory(restored);
        };
        restored.domain = Some(domain);
        restored.state = Some(DomainState::Paused);
        restored.xenstore = self.xenstore(domain)?;
        self.commit(domain, restored)
    }

    /// A phase begins, unless the call is to end.
    fn begin(&mut self, phase: Phase) -> Result<(), RestoreCause> {
        self.phase = phase;
        self.observer.begin(phase);
        self.check_time()
    }

    fn check_time(&self) -> Result<(), RestoreCause> {
        if self.observer.is_cancelled() {
            Err(RestoreCause::Cancelled)
        } else if Instant::now() >= self.deadline {
            Err(RestoreCause::DeadlinePassed)
        } else {
            Ok(())
        }
    }

    fn check_plan(&self) -> Result<(), RestoreCause> {
        let again = draw(self.access, self.plan.request.clone(), self.plan.generation_id);
        match again {
            Ok(again) if again.fingerprint == self.plan.fingerprint => Ok(()),
            Ok(_) => Err(RestoreCause::StalePlan),
            Err(source) => Err(RestoreCause::Refused { source }),
        }
    }

    fn replaced(&self) -> Option<(DomainIdentity, bool)> {
        match self.plan.mode {
            RestoreMode::New => None,
            RestoreMode::Replace { domain, free_first } => Some((domain, free_first)),
        }
    }

    /// No other domain ever has it.
    fn temporary_name(&self) -> String {
        let id = self.id.simple().to_string();
        format!("{}--restoring-{}", self.plan.name, &id[..8])
    }

    fn open_journal(&mut self) -> Result<(), RestoreCause> {
        let replaced = self.replaced();
        let begin = BeginRestore {
            id: self.id,
            replaces: replaced.map(|(domain, _)| domain),
            free_first: replaced.is_some_and(|(_, free_first)| free_first),
            uuid: self.plan.uuid,
            temporary_name: self.temporary_name(),
            name: self.plan.name.clone(),
            start: self.plan.request.start,
            targets: self.overlay_paths().map(Path::to_owned).collect(),
        };
        let begin = Record::Begin(Box::new(Operation::Restore(begin)));
        let durable = self.plan.request.durability != Durability::None;
        let journal = Journal::create(self.plan.journal.as_deref(), self.id, durable, &begin)
            .map_err(|source| RestoreCause::Journal { source })?;
        self.journal = journal;
        self.undo.journal = self.plan.journal.clone();
        Ok(())
    }

    fn overlay_paths(&self) -> impl Iterator<Item = &Path> {
        let disks = self.plan.disks.iter().filter(|disk| disk.over.is_some());
        disks.map(|disk| disk.image.path.as_path())
    }

    fn record(&mut self, record: &Record) -> Result<(), RestoreCause> {
        self.journal.write(record).map_err(|source| RestoreCause::Journal { source })
    }

    fn overlays(&mut self) -> Result<(), RestoreCause> {
        for disk in &self.plan.disks {
            let Some(base) = &disk.over else { continue };
            self.check_time()?;
            let qemu_img = &self.access.qemu_img;
            steps::reached("before overlay");
            create_overlay(qemu_img, &disk.image.path, base, &mut self.journal, self.deadline)
                .map_err(|source| RestoreCause::Disk { vdev: disk.vdev.clone(), source })?;
        }
        Ok(())
    }

    fn draft(&self, warnings: Vec<String>) -> Restored {
        let disks = self.plan.disks.iter().map(|disk| RestoredDisk {
            vdev: disk.vdev.clone(),
            image: disk.image.clone(),
            writable: disk.writable,
        });
        Restored {
            id: self.id,
            snapshot: self.plan.snapshot,
            domain: None,
            state: None,
            name: self.plan.name.clone(),
            configuration: self.plan.configuration.clone(),
            disks: disks.collect(),
            xenstore: None,
            warnings,
        }
    }

    /// Nothing is built: the overlays are there, and what a toolstack creates the domain from.
    fn without_memory(&mut self, restored: Restored) -> Result<Restored, Stop> {
        self.check_time()?;
        self.record(&Record::Committing(Box::new(RestoredDraft { restored: restored.clone() })))?;
        Ok(self.done(restored))
    }

    /// Builds the domain, paused; `None` if there is no memory to build from.
    fn build(&mut self) -> Result<Option<DomainIdentity>, RestoreCause> {
        let request = &self.plan.request;
        let Some(memory) = request.snapshot.memory.clone() else { return Ok(None) };
        let file = source::open("memory image", request.memory.as_ref(), &memory.location)
            .map_err(RestoreCause::Source)?;
        self.record(&Record::Building)?;
        if let Some((domain, true)) = self.replaced() {
            self.begin(Phase::Replace)?;
            self.destroy(domain)?;
            // Whoever else has them open is not waited for.
            let soon = self.deadline.min(Instant::now() + SETTLE_LIMIT);
            check::images_are_free(&self.plan, soon)?;
        }
        self.begin(Phase::Build)?;
        let deadline = self.deadline.min(deadline_in(self.plan.request.deadlines.build));
        let mut config = self.plan.config.clone();
        let name = self.temporary_name();
        configuration::set_identity(&mut config, &name, self.plan.uuid);
        // From here on there may be a domain of that name, whatever is said.
        self.undo.temporary_name = Some(name);
        let control = self.access.control;
        steps::reached("before build");
        let outcome = memory::build(control, &config, &memory, &file, deadline, self.observer)?;
        steps::reached("after build");
        match (outcome.built, outcome.read) {
            (Ok(view), read) => {
                self.undo.domain = Some(view.identity);
                read?;
                self.built(view.identity).map(Some)
            }
            (Err(error), read) => {
                self.undo.domain = error.left;
                Err(memory::why(error, read))
            }
        }
    }

    /// It is what it was to be, and nothing else.
    fn built(&mut self, domain: DomainIdentity) -> Result<DomainIdentity, RestoreCause> {
        self.record(&Record::Built(domain))?;
        if domain.uuid != self.plan.uuid {
            return Err(RestoreCause::OtherDomain { found: domain });
        }
        self.is_paused(domain)?;
        Ok(domain)
    }

    fn is_paused(&self, domain: DomainIdentity) -> Result<(), RestoreCause> {
        let wanted = DomainState::Paused;
        match self.access.control.state(&domain, self.deadline) {
            Ok(state) if state == wanted => Ok(()),
            Ok(state) => Err(RestoreCause::State { state, wanted }),
            Err(source) => Err(RestoreCause::Query { source }),
        }
    }

    fn xenstore(
        &mut self,
        domain: DomainIdentity,
    ) -> Result<Option<RestoredXenstore>, RestoreCause> {
        let request = &self.plan.request;
        let (Some(artifact), Some(policy)) = (&request.snapshot.xenstore, &request.policy) else {
            return Ok(None);
        };
        let (artifact, policy) = (artifact.clone(), policy.clone());
        self.begin(Phase::Apply)?;
        let request = &self.plan.request;
        let file = source::open("Xenstore state", request.xenstore.as_ref(), &artifact.location)
            .map_err(RestoreCause::Source)?;
        let from = request.snapshot.domain.identity;
        xenstore::restore(self.access, &artifact, &file, from, domain, &policy, self.deadline)
            .map(Some)
            .map_err(|source| RestoreCause::Xenstore { source })
    }

    /// The last steps: from where the replaced domain is destroyed, or the new one is about to run, there is no way back.
    fn commit(&mut self, domain: DomainIdentity, restored: Restored) -> Result<Restored, Stop> {
        let replaced = self.replaced();
        if replaced.is_none() {
            self.begin(Phase::Start)?;
            self.rename(domain)?;
        } else {
            self.begin(Phase::Replace)?;
        }
        // Nothing is given up for one that has died since.
        self.is_paused(domain)?;
        self.record(&Record::Committing(Box::new(RestoredDraft { restored: restored.clone() })))?;
        // What is left to do has its time, however late it is.
        self.deadline = self.deadline.max(Instant::now() + SETTLE_LIMIT);
        if let Some((old, false)) = replaced {
            // A domain that is as it was can be left so; one that is half destroyed is not worth more than the new one.
            self.destroy(old).map_err(|cause| match self.undo.replaced {
                Some(DomainState::Dying) | None => {
                    let name = self.temporary_name();
                    Stop::After(cause, Box::new(Restored { name, ..restored.clone() }))
                }
                Some(_) => Stop::Before(cause),
            })?;
        }
        let mut restored = restored;
        if replaced.is_some() {
            self.phase = Phase::Start;
            self.observer.begin(Phase::Start);
            if let Err(cause) = self.rename(domain) {
                restored.name = self.temporary_name();
                return Err(Stop::After(cause, Box::new(restored)));
            }
        }
        if self.plan.request.start == Start::Run {
            if let Err(cause) = self.start(domain) {
                restored.state = self.access.control.state(&domain, self.deadline).ok();
                return Err(Stop::After(cause, Box::new(restored)));
            }
            restored.state = Some(DomainState::Running);
        }
        Ok(self.done(restored))
    }

    /// Destroys the domain that is replaced: whatever is answered, what counts is that it is gone.
    fn destroy(&mut self, old: DomainIdentity) -> Result<(), RestoreCause> {
        steps::reached("before destroy");
        let failed = self.access.control.destroy(&old, self.deadline).err();
        steps::reached("after destroy");
        let found = self.access.control.state(&old, Instant::now() + SETTLE_LIMIT);
        self.undo.replaced = found.as_ref().ok().copied();
        match (failed, found) {
            (_, Ok(DomainState::Gone)) => Ok(()),
            (Some(source), _) => Err(RestoreCause::Destroy { source }),
            (None, Ok(state)) => Err(RestoreCause::State { state, wanted: DomainState::Gone }),
            (None, Err(source)) => Err(RestoreCause::Query { source }),
        }
    }

    /// Gives the new domain its name: whatever is answered, what counts is that it has it.
    fn rename(&mut self, domain: DomainIdentity) -> Result<(), RestoreCause> {
        let control = self.access.control;
        steps::reached("before rename");
        let renamed = control.rename(&domain, &self.plan.name, self.deadline);
        steps::reached("after rename");
        let Err(source) = renamed else { return Ok(()) };
        let found = control.find(domain.domid, Instant::now() + SETTLE_LIMIT);
        let has_it = found.ok().flatten().is_some_and(|view| {
            view.identity == domain && view.name.as_ref() == Some(&self.plan.name)
        });
        if has_it { Ok(()) } else { Err(RestoreCause::Rename { source }) }
    }

    fn start(&mut self, domain: DomainIdentity) -> Result<(), RestoreCause> {
        let control = self.access.control;
        steps::reached("before unpause");
        let failed: Option<ChangeError> = control.unpause(&domain, self.deadline).err();
        steps::reached("after unpause");
        let wanted = DomainState::Running;
        match (failed, control.state(&domain, Instant::now() + SETTLE_LIMIT)) {
            (_, Ok(DomainState::Running)) => Ok(()),
            (Some(source), _) => Err(RestoreCause::Start { source }),
            (None, Ok(state)) => Err(RestoreCause::State { state, wanted }),
            (None, Err(source)) => Err(RestoreCause::Query { source }),
        }
    }

    fn done(&mut self, mut restored: Restored) -> Restored {
        if let Err(error) = self.record(&Record::Restored(Box::new(restored.clone()))) {
            restored.warnings.push(format!("the journal does not say that all is done: {error}"));
        }
        restored
    }

    /// A failure from which everything is undone.
    fn undone(&mut self, cause: RestoreCause) -> RestoreFailure {
        let phase = self.phase;
        self.observer.begin(Phase::RollBack);
        if let (None, Some((old, _))) = (self.undo.replaced, self.replaced()) {
            self.undo.replaced =
                self.access.control.state(&old, Instant::now() + SETTLE_LIMIT).ok();
        }
        let old = self.replaced().map(|(old, _)| old);
        let report = self.undo.run(self.access.control, &mut self.journal, self.plan.uuid, old);
        RestoreFailure {
            phase,
            cause: Box::new(cause),
            domain: report.domain,
            replaced: self.undo.replaced,
            removed: report.files.removed,
            left: report.files.left,
            restored: None,
            journal: report.journal,
        }
    }

    /// A failure behind the commit point: the new domain stays.
    fn stands(&mut self, cause: RestoreCause, restored: Box<Restored>) -> RestoreFailure {
        let domain = restored.domain.map(|domain| {
            (domain, self.access.control.state(&domain, Instant::now() + SETTLE_LIMIT).ok())
        });
        let journal: Option<PathBuf> = self.plan.journal.clone();
        RestoreFailure {
            phase: self.phase,
            cause: Box::new(cause),
            domain,
            replaced: self.undo.replaced,
            removed: Vec::new(),
            left: Vec::new(),
            restored: Some(restored),
            journal,
        }
    }
}

/// Disks whose saved images nothing is done with.
pub(super) fn not_used(plan: &RestorePlan) -> Vec<&str> {
    let disks = plan.request.snapshot.disks.iter().map(|disk| disk.vdev.as_str());
    disks
        .filter(|vdev| {
            let restore: Option<&DiskRestore> = plan.request.disks.get(*vdev);
            !rests_on_frozen(restore)
        })
        .collect()
}
