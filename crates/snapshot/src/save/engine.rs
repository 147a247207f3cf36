//! A save on its way to the pivot: everything up to there is files that can be deleted again.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::capture::{self, Captured, XenstoreSink};
use super::memory::{Saving, Sink, Written};
use super::survey::Survey;
use super::targets::Place;
use super::{
    Consistency, DiskRequestAction, Durability, Hold, OnQuiesceFailure, SaveCause, SaveRequest,
};
use crate::control::{DomainIdentity, DomainState, SuspendFailure, Until, deadline_in};
use crate::creation::CreatedFile;
use crate::disk::DiskSnapshot;
use crate::guard::Guardian;
use crate::image::Complete;
use crate::journal::{BeginSave, Journal, Operation, Record, steps};
use crate::manifest::{
    Location, MemoryArtifact, SavedDomain, SavedMemoryFormat, Timings, XenstoreArtifact,
};
use crate::{CompleteFile, CompleteFileError, HostAccess, Observer, Phase, Snapshot};

/// How long a guardian may take until it is armed.
const ARM_LIMIT: Duration = Duration::from_secs(10);

/// A save that has begun.
pub(super) struct Run<'r, 'a, 'o> {
    pub(super) access: &'r mut HostAccess<'a>,
    pub(super) request: &'r SaveRequest,
    pub(super) id: Uuid,
    pub(super) survey: Survey,
    pub(super) observer: &'r mut Observer<'o>,
    pub(super) journal: Journal,
    pub(super) phase: Phase,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    pub(super) guardian: Option<Guardian>,
    /// The guest was asked to quiesce, and not to thaw yet.
    pub(super) frozen: bool,
    /// The guest was asked to suspend by this call.
    pub(super) suspended: bool,
    pub(super) held: Instant,
    pub(super) created: u64,
    pub(super) files: Files,
    /// What has its final name.
    pub(super) named: Vec<CreatedFile>,
    pub(super) consistency: Consistency,
    pub(super) consistency_reason: Option<String>,
    pub(super) warnings: Vec<String>,
    pub(super) timings: Timings,
    /// Disks that have their snapshots already.
    pub(super) committed: Vec<DiskSnapshot>,
    /// What became of the pivot is not known.
    pub(super) unknown: BTreeSet<String>,
}

/// Files on their way.
#[derive(Debug, Default)]
pub(super) struct Files {
    memory: Option<Sink>,
    side: Option<Side>,
    xenstore: Option<XenstoreSink>,
}

type Side = XenstoreSink;

impl<'r, 'a, 'o> Run<'r, 'a, 'o> {
    pub(super) fn begin(
        access: &'r mut HostAccess<'a>,
        request: &'r SaveRequest,
        id: Uuid,
        survey: Survey,
        observer: &'r mut Observer<'o>,
        began: Instant,
    ) -> Result<Self, (&'r mut HostAccess<'a>, SaveCause)> {
        let begin = begin_record(request, id, &survey);
        let durable = request.durability == Durability::Full;
        let journal = match Journal::create(survey.targets.journal.as_deref(), id, durable, &begin)
        {
            Ok(journal) => journal,
            Err(error) => return Err((access, SaveCause::Journal(error))),
        };
        Ok(Self {
            access,
            request,
            id,
            observer,
            journal,
            phase: Phase::Prepare,
            began,
            deadline: deadline_in(request.deadlines.total),
            guardian: None,
            frozen: false,
            suspended: false,
            held: Instant::now(),
            created: 0,
            files: Files::default(),
            named: Vec::new(),
            consistency: survey.consistency,
            consistency_reason: survey.consistency_reason.clone(),
            warnings: survey.warnings.clone(),
            timings: Timings::default(),
            committed: Vec::new(),
            unknown: BTreeSet::new(),
            survey,
        })
    }

    /// Everything up to and including the pivot.
    pub(super) fn up_to_the_pivot(&mut self) -> Result<Snapshot, SaveCause> {
        self.prepare()?;
        self.freeze()?;
        let written = self.suspend()?;
        self.approach();
        let captured = self.capture()?;
        let (memory, xenstore) = self.settle(written, &captured)?;
        let draft = self.draft(captured, memory, xenstore);
        self.pivot(draft)
    }

    /// The next phase, if there is to be one.
    pub(super) fn enter(&mut self, phase: Phase) -> Result<(), SaveCause> {
        if self.observer.is_cancelled() {
            return Err(SaveCause::Cancelled);
        }
        if Instant::now() >= self.deadline {
            return Err(SaveCause::DeadlinePassed);
        }
        self.phase = phase;
        self.observer.begin(phase);
        Ok(())
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<(), SaveCause> {
        self.journal.write(record).map_err(SaveCause::Journal)
    }

    pub(super) fn domain(&self) -> DomainIdentity {
        self.request.domain
    }

    pub(super) fn before(&self) -> DomainState {
        self.survey.view.state
    }

    /// Whether this call has the guest suspended.
    fn suspends(&self) -> bool {
        self.request.hold == Hold::Suspended && self.before() == DomainState::Running
    }

    fn prepare(&mut self) -> Result<(), SaveCause> {
        self.enter(Phase::Prepare)?;
        let disks_until = self.deadline.min(deadline_in(self.request.deadlines.disks));
        for group in &mut self.survey.groups {
            let Some(snapshotter) = group.snapshotter(&mut self.access.hooks) else { continue };
            let kind = snapshotter.describe().kind;
            let prepared = snapshotter.prepare(&mut self.journal, disks_until);
            prepared.map_err(|source| SaveCause::Prepare { kind, source: Box::new(source) })?;
        }
        let targets = &self.survey.targets;
        if let Some(place) = &targets.memory {
            self.files.memory = Some(match place {
                Place::Name(path) => {
                    Sink::New(CompleteFile::create_logged(path, &mut self.journal)?)
                }
                Place::Descriptor(descriptor) => Sink::Callers(own(descriptor)?),
            });
        }
        let others =
            [(&targets.side, &mut self.files.side), (&targets.xenstore, &mut self.files.xenstore)];
        for (place, file) in others {
            *file = match place {
                None => None,
                Some(Place::Name(path)) => {
                    Some(XenstoreSink::New(CompleteFile::create_logged(path, &mut self.journal)?))
                }
                Some(Place::Descriptor(descriptor)) => {
                    Some(XenstoreSink::Callers(own(descriptor)?))
                }
            };
        }
        self.arm()
    }

    fn arm(&mut self) -> Result<(), SaveCause> {
        if let (true, Some(program)) = (self.suspends(), &self.access.guardian)
            && let Some(needs) = self.access.control.guardian(&self.request.domain)
        {
            let until = self.deadline.min(Instant::now() + ARM_LIMIT);
            self.guardian = Some(Guardian::arm(program, &needs, until)?);
            steps::reached("after arm");
        }
        Ok(())
    }

    fn freeze(&mut self) -> Result<(), SaveCause> {
        let (Some(quiesce), DomainState::Running) = (&self.request.quiesce, self.before()) else {
            return Ok(());
        };
        self.enter(Phase::Freeze)?;
        self.write(&Record::Freezing)?;
        let until = self.deadline.min(deadline_in(quiesce.deadline));
        let Some(quiescer) = self.access.quiescers.get_mut(&quiesce.hook) else { return Ok(()) };
        self.frozen = true;
        steps::reached("before freeze");
        let frozen = quiescer.freeze(until);
        steps::reached("after freeze");
        let Err(error) = frozen else { return Ok(()) };
        if quiesce.on_failure == OnQuiesceFailure::Abort {
            return Err(SaveCause::Freeze(error));
        }
        let reason = format!("the guest could not be quiesced: {error}");
        self.warnings.push(reason.clone());
        if self.request.memory.is_none() {
            self.consistency = Consistency::CrashConsistent;
            self.consistency_reason = Some(reason);
        }
        let (wanted, achieved) = (self.request.min_consistency, self.consistency);
        if achieved < wanted {
            return Err(SaveCause::Consistency { wanted, achieved });
        }
        Ok(())
    }

    /// From here on the guest waits.
    fn suspend(&mut self) -> Result<Option<Written>, SaveCause> {
        if !self.suspends() {
            self.held = Instant::now();
            self.created = now();
            return Ok(None);
        }
        self.enter(Phase::Suspend)?;
        self.write(&Record::Suspending)?;
        let until = self.deadline.min(deadline_in(self.request.deadlines.suspend));
        (self.held, self.created, self.suspended) = (Instant::now(), now(), true);
        steps::reached("before suspend");
        let written = self.suspend_and_write(until);
        if let Err(SaveCause::Suspend(error)) = &written
            && matches!(error.reason, SuspendFailure::Refused(_))
        {
            // Nothing was changed: a guest that is suspended by now is another's to resume.
            self.suspended = false;
        }
        let written = written?;
        steps::reached("after suspend");
        match self.access.control.state(&self.request.domain, self.deadline)? {
            DomainState::Suspended => Ok(written),
            state => Err(SaveCause::NotSuspended { state }),
        }
    }

    fn suspend_and_write(&mut self, until: Instant) -> Result<Option<Written>, SaveCause> {
        let mut written = None;
        if let (Some(request), Some(sink)) = (&self.request.memory, self.files.memory.take()) {
            self.enter(Phase::Memory)?;
            let saving = Saving {
                control: self.access.control,
                domain: self.request.domain,
                request,
                suspend: until,
                deadline: self.deadline,
                expected: self.survey.memory_octets,
            };
            written = Some(saving.write(sink, self.observer)?);
            self.timings.memory_us = micros(self.held);
        } else {
            let until = Until { deadline: until, cancel: self.observer.token() };
            self.access.control.suspend_only(&self.request.domain, until)?;
        }
        Ok(written)
    }

    fn capture(&mut self) -> Result<Captured, SaveCause> {
        self.enter(Phase::Capture)?;
        let domid = self.request.domain.domid;
        let with_xenstore = self.request.xenstore.is_some();
        let mut captured = capture::capture(self.access, domid, with_xenstore, self.deadline)?;
        self.warnings.append(&mut captured.warnings);
        captured.has_the_disks_of(&self.survey.fingerprint)?;
        if let (Some(xenstore), Some(sink)) = (&captured.xenstore, &mut self.files.xenstore) {
            sink.write(&xenstore.stream)?;
        }
        Ok(captured)
    }

    /// Makes everything durable, and gives it its names.
    fn settle(
        &mut self,
        written: Option<Written>,
        captured: &Captured,
    ) -> Result<(Option<MemoryArtifact>, Option<XenstoreArtifact>), SaveCause> {
        self.enter(Phase::Sync)?;
        let durable = self.request.durability == Durability::Full;
        let mut memory = None;
        let mut to_name = Vec::new();
        if let Some(mut written) = written {
            if let (Some(side), Some(digest)) = (&mut self.files.side, &written.side) {
                side.write(&digest.to_octets())?;
            }
            let image = self.finish_memory(&mut written, durable)?;
            memory = Some(self.memory_artifact(&written, image.as_ref())?);
            match written.sink {
                Sink::New(file) => to_name.push(file),
                Sink::Callers(file) if durable => sync_callers(&file)?,
                Sink::Callers(_) => {}
            }
        }
        let xenstore = match (&captured.xenstore, &self.files.xenstore) {
            (Some(xenstore), Some(sink)) => Some(XenstoreArtifact {
                location: location(sink),
                octets: xenstore.stream.len() as u64,
                digest: xenstore.digest(),
                nodes: xenstore.nodes,
                missing: xenstore.missing.clone(),
            }),
            _ => None,
        };
        for sink in [self.files.side.take(), self.files.xenstore.take()].into_iter().flatten() {
            match sink {
                XenstoreSink::New(file) => to_name.push(file),
                XenstoreSink::Callers(file) if durable => sync_callers(&file)?,
                XenstoreSink::Callers(_) => {}
            }
        }
        if durable {
            to_name.iter_mut().try_for_each(CompleteFile::sync)?;
        }
        if !to_name.is_empty() {
            self.enter(Phase::Name)?;
            self.write(&Record::Naming)?;
            to_name.into_iter().try_for_each(|file| self.name(file, durable))?;
        }
        Ok((memory, xenstore))
    }

    /// The mark that it is complete may become durable only after everything else has.
    fn finish_memory(
        &self,
        written: &mut Written,
        durable: bool,
    ) -> Result<Option<Complete>, SaveCause> {
        let Some(unmarked) = written.unmarked.take() else { return Ok(None) };
        let failed = |source| SaveCause::Io { step: "sync the memory image", source };
        if durable {
            unmarked.file().sync_all().map_err(failed)?;
        }
        let complete = unmarked.mark_complete()?;
        if durable {
            complete.file.sync_all().map_err(failed)?;
        }
        Ok(Some(complete))
    }

    fn memory_artifact(
        &self,
        written: &Written,
        image: Option<&Complete>,
    ) -> Result<MemoryArtifact, SaveCause> {
        let format = match image.map(|image| image.info.layout) {
            None => SavedMemoryFormat::Stream,
            Some(crate::image::Layout::Packed { .. }) => SavedMemoryFormat::Packed,
            Some(_) => SavedMemoryFormat::Mapped,
        };
        let failed = |source| SaveCause::Io { step: "look at the memory image", source };
        let (mut file_octets, mut stored_octets) = (written.stream_octets, None);
        let mut at = Location::Descriptor;
        if let Some(file) = written.sink.as_new() {
            let opened: OwnedFd =
                std::os::fd::AsFd::as_fd(file).try_clone_to_owned().map_err(failed)?;
            let metadata = File::from(opened).metadata().map_err(failed)?;
            (file_octets, stored_octets) = (metadata.len(), Some(metadata.blocks() * 512));
            at = Location::Path(file.created().path.clone());
        }
        Ok(MemoryArtifact {
            location: at,
            format,
            stream_octets: written.stream_octets,
            file_octets,
            stored_octets,
            stream_digest: crate::disk::image::Digest::from_octets(written.stream_digest.0),
            side_digest: self.files.side.as_ref().map(location),
        })
    }

    fn name(&mut self, file: CompleteFile, durable: bool) -> Result<(), SaveCause> {
        let created = file.created().clone();
        steps::reached("before name");
        let named = if durable { file.finish() } else { file.finish_unsynced() };
        steps::reached("after name");
        // Something else may have the name if it failed: removing looks whether it is this file.
        match &named {
            Err(CompleteFileError::Exists { .. }) => {}
            _ => self.named.push(created),
        }
        named?;
        Ok(())
    }

    /// The snapshot without its disks.
    fn draft(
        &self,
        captured: Captured,
        memory: Option<MemoryArtifact>,
        xenstore: Option<XenstoreArtifact>,
    ) -> Snapshot {
        let view = &self.survey.view;
        Snapshot {
            id: self.id,
            created: self.created,
            domain: SavedDomain {
                identity: view.identity,
                name: view.name.clone(),
                kind: view.kind,
            },
            consistency: self.consistency,
            consistency_reason: self.consistency_reason.clone(),
            state_before: view.state,
            state_after: None,
            memory,
            xenstore,
            disks: Vec::new(),
            skipped: self.survey.skipped.clone(),
            configuration: captured.configuration,
            config_delta: Vec::new(),
            config_applied: false,
            timings: self.timings,
            warnings: self.warnings.clone(),
        }
    }
}

fn begin_record(request: &SaveRequest, id: Uuid, survey: &Survey) -> Record {
    let action = |is: fn(&DiskRequestAction) -> bool| {
        request.disks.iter().filter(move |disk| is(&disk.action))
    };
    let hooks: BTreeSet<_> = request
        .disks
        .iter()
        .filter_map(|disk| match &disk.action {
            DiskRequestAction::Hook { name } => Some(name.clone()),
            _ => None,
        })
        .collect();
    let digests =
        action(|action| matches!(action, DiskRequestAction::ExternalQcow2 { digest: true, .. }));
    let quiesced = survey.view.state == DomainState::Running;
    Record::Begin(Box::new(Operation::Save(BeginSave {
        id,
        domain: request.domain,
        state_before: survey.view.state,
        targets: survey.files.iter().map(|file| file.path.clone()).collect(),
        qmp: request.qmp.clone(),
        after: request.after,
        config: request.config,
        hooks: hooks.into_iter().collect(),
        quiescer: request.quiesce.as_ref().filter(|_| quiesced).map(|quiesce| quiesce.hook.clone()),
        digests: digests.map(|disk| disk.vdev.clone()).collect(),
    })))
}

fn own(descriptor: &OwnedFd) -> Result<File, SaveCause> {
    let cloned = descriptor.try_clone();
    cloned
        .map(File::from)
        .map_err(|source| SaveCause::Io { step: "use the caller's descriptor", source })
}

fn location(sink: &XenstoreSink) -> Location {
    match sink {
        XenstoreSink::New(file) => Location::Path(file.created().path.clone()),
        XenstoreSink::Callers(_) => Location::Descriptor,
    }
}

/// A pipe or socket cannot be synced, and need not be.
fn sync_callers(file: &File) -> Result<(), SaveCause> {
    match file.sync_all() {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        synced => {
            synced.map_err(|source| SaveCause::Io { step: "sync the caller's descriptor", source })
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

pub(super) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
