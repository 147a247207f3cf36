//! Journals written by hand, files, and a hypervisor that is a table.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;

use libxl_config::DomainConfig;
use libxl_config::template::MemoryStore;
use tempfile::TempDir;
use uuid::Uuid;
use xsclient::{DomId, OpenError};

use super::*;
use crate::control::{
    BuildError, ChangeError, ChangeFailure, DomainControl, DomainIdentity, DomainKind, DomainView,
    GuardianNeeds, Operation as Call, QueryError, Refusal, RenameError, ResumeError, ResumeFailure,
    SuspendError, Until,
};
use crate::creation::{CreatedFile, CreationLog, temporary_name};
use crate::disk::image::{ImageFormat, ImageRef};
use crate::disk::qemu_img::QemuImg;
use crate::disk::{OverlayIntent, create_overlay};
use crate::journal::{BeginRestore, BeginSave, DraftSave, RestoredDraft};
use crate::manifest::sample;
use crate::restore::Start;
use crate::save::{After, ConfigUpdate};
use crate::{LeftReason, Quiescer};

const OLD: DomainIdentity = DomainIdentity { domid: DomId::new(7), uuid: sample::DOMAIN };
const NEW: DomainIdentity = DomainIdentity { domid: DomId::new(8), uuid: sample::DOMAIN };

/// Domains by identity, with name and state.
#[derive(Default)]
struct Table {
    domains: Mutex<BTreeMap<u16, (DomainIdentity, String, DomainState)>>,
    /// Somebody else resumes every domain a moment earlier.
    guardian: bool,
}

impl Table {
    fn with(self, domain: DomainIdentity, name: &str, state: DomainState) -> Self {
        self.domains.lock().unwrap().insert(domain.domid.get(), (domain, name.into(), state));
        self
    }

    fn names(&self) -> Vec<(String, DomainState)> {
        let domains = self.domains.lock().unwrap();
        domains.values().map(|(_, name, state)| (name.clone(), *state)).collect()
    }

    fn set(&self, domain: &DomainIdentity, state: DomainState) {
        self.domains.lock().unwrap().get_mut(&domain.domid.get()).unwrap().2 = state;
    }

    fn change(
        &self,
        domain: &DomainIdentity,
        call: Call,
        to: DomainState,
    ) -> Result<(), ChangeError> {
        let state = self.state(domain, Instant::now()).unwrap();
        if state == DomainState::Gone {
            let refusal = ChangeFailure::Refused(Refusal::NoSuchDomain);
            return Err(ChangeError::new(domain.domid, call, Some(state), refusal));
        }
        // A suspended domain that is paused shows it only once it is resumed.
        if (call, state) != (Call::Pause, DomainState::Suspended) {
            self.set(domain, to);
        }
        Ok(())
    }
}

impl DomainControl for Table {
    fn find(&self, domid: DomId, deadline: Instant) -> Result<Option<DomainView>, QueryError> {
        Ok(self.list(deadline)?.into_iter().find(|view| view.identity.domid == domid))
    }

    fn list(&self, _: Instant) -> Result<Vec<DomainView>, QueryError> {
        let domains = self.domains.lock().unwrap();
        let view = |(identity, name, state): &(DomainIdentity, String, DomainState)| DomainView {
            identity: *identity,
            name: (!name.is_empty()).then(|| name.clone()),
            kind: DomainKind::Pv,
            state: *state,
            paused: *state == DomainState::Paused,
        };
        Ok(domains.values().map(view).collect())
    }

    fn suspend_to(
        &self,
        _: &DomainIdentity,
        _: BorrowedFd<'_>,
        _: bool,
        _: Until<'_>,
    ) -> Result<(), SuspendError> {
        panic!("nobody suspends to recover");
    }

    fn suspend_only(&self, _: &DomainIdentity, _: Until<'_>) -> Result<(), SuspendError> {
        panic!("nobody suspends to recover");
    }

    fn resume(&self, domain: &DomainIdentity, deadline: Instant) -> Result<(), ResumeError> {
        if self.guardian {
            self.set(domain, DomainState::Running);
        }
        let state = self.state(domain, deadline).unwrap();
        if state != DomainState::Suspended {
            let refused = ResumeFailure::Refused(Refusal::WrongState { state });
            return Err(ResumeError::new(domain.domid, Call::Resume, Some(state), refused));
        }
        self.set(domain, DomainState::Running);
        Ok(())
    }

    fn build_from(
        &self,
        _: &DomainConfig,
        _: BorrowedFd<'_>,
        _: Until<'_>,
    ) -> Result<DomainView, BuildError> {
        panic!("nobody builds to recover");
    }

    fn pause(&self, domain: &DomainIdentity, _: Instant) -> Result<(), ChangeError> {
        self.change(domain, Call::Pause, DomainState::Paused)
    }

    fn unpause(&self, domain: &DomainIdentity, _: Instant) -> Result<(), ChangeError> {
        self.change(domain, Call::Unpause, DomainState::Running)
    }

    fn destroy(&self, domain: &DomainIdentity, _: Instant) -> Result<(), ChangeError> {
        self.change(domain, Call::Destroy, DomainState::Gone)?;
        self.domains.lock().unwrap().remove(&domain.domid.get());
        Ok(())
    }

    fn rename(&self, domain: &DomainIdentity, name: &str, _: Instant) -> Result<(), RenameError> {
        self.domains.lock().unwrap().get_mut(&domain.domid.get()).unwrap().1 = name.into();
        Ok(())
    }

    fn settled(
        &self,
        domain: &DomainIdentity,
        deadline: Instant,
    ) -> Result<DomainState, QueryError> {
        self.state(domain, deadline)
    }

    fn guardian(&self, _: &DomainIdentity) -> Option<GuardianNeeds> {
        None
    }
}

/// A directory with a journal and what it tells of.
struct Died {
    directory: TempDir,
    journal: Option<Journal>,
}

fn begin_save() -> BeginSave {
    BeginSave {
        id: Uuid::from_u128(5),
        domain: OLD,
        state_before: DomainState::Running,
        targets: Vec::new(),
        qmp: None,
        after: After::Resume,
        config: ConfigUpdate::Leave,
        hooks: Vec::new(),
        quiescer: None,
        digests: Vec::new(),
    }
}

impl Died {
    fn save(targets: &[&str], begin: BeginSave) -> Self {
        Self::of(targets, |targets| Operation::Save(BeginSave { targets, ..begin }))
    }

    fn restore(targets: &[&str], replaces: Option<DomainIdentity>) -> Self {
        Self::of(targets, |targets| {
            Operation::Restore(BeginRestore {
                id: Uuid::from_u128(5),
                replaces,
                free_first: false,
                uuid: NEW.uuid,
                temporary_name: "web--restoring".into(),
                name: "web".into(),
                start: Start::Run,
                targets,
            })
        })
    }

    fn of(targets: &[&str], operation: impl FnOnce(Vec<PathBuf>) -> Operation) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let targets = targets.iter().map(|name| directory.path().join(name)).collect();
        let begin = Record::Begin(Box::new(operation(targets)));
        let path = directory.path().join("journal");
        let journal = Journal::create(Some(&path), Uuid::from_u128(5), true, &begin).unwrap();
        Self { directory, journal: Some(journal) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&mut self, record: &Record) -> &mut Self {
        self.journal.as_mut().unwrap().write(record).unwrap();
        self
    }

    /// A file under its temporary or under its final name, of which the journal tells.
    fn created(&mut self, name: &str, is_named: bool) -> &mut Self {
        let (path, temporary) = (self.path(name), self.temporary(name));
        let file = File::create_new(&temporary).unwrap();
        fs::write(&temporary, name).unwrap();
        let created = CreatedFile::new(path.clone(), &file).unwrap();
        self.journal.as_mut().unwrap().created(&created).unwrap();
        if is_named {
            fs::rename(temporary, path).unwrap();
        }
        self
    }

    fn temporary(&self, name: &str) -> PathBuf {
        self.path(
            temporary_name(&crate::journal::prefix(Uuid::from_u128(5)), name.as_ref())
                .to_str()
                .unwrap(),
        )
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn recover(&mut self, control: &Table) -> Result<Recovered, RecoverError> {
        self.recover_with(control, BTreeMap::new())
    }

    fn recover_with(
        &mut self,
        control: &Table,
        quiescers: BTreeMap<String, Box<dyn Quiescer + '_>>,
    ) -> Result<Recovered, RecoverError> {
        // The process is dead.
        self.journal = None;
        let templates = MemoryStore::new();
        let unreachable = |_: Instant| -> Result<xsclient::Client, OpenError> {
            panic!("there is no Xenstore in these tests")
        };
        let mut access = HostAccess {
            control,
            xenstore: &unreachable,
            templates: &templates,
            hypervisor: None,
            qemu_img: QemuImg::default(),
            guardian: None,
            hooks: BTreeMap::new(),
            quiescers,
        };
        recover(&mut access, &self.path("journal"), &mut Observer::none())
    }
}

fn removed(recovered: Result<Recovered, RecoverError>) -> (Vec<PathBuf>, Vec<LeftBehind>) {
    match recovered.unwrap() {
        Recovered::RolledBack { removed, left, .. } => (removed, left),
        other => panic!("{other:?}"),
    }
}

fn running() -> Table {
    Table::default().with(OLD, "web", DomainState::Running)
}

fn draft(name: &str) -> RestoredDraft {
    RestoredDraft {
        restored: Restored {
            id: Uuid::from_u128(5),
            snapshot: Uuid::from_u128(6),
            domain: Some(NEW),
            state: Some(DomainState::Paused),
            name: name.into(),
            configuration: serde_json::json!({}),
            disks: Vec::new(),
            xenstore: None,
            warnings: Vec::new(),
        },
    }
}

#[test]
fn a_journal_without_a_whole_line_is_of_nothing() {
    let mut died = Died::save(&[], begin_save());
    fs::write(died.path("journal"), "").unwrap();
    assert!(matches!(died.recover(&running()).unwrap(), Recovered::NothingDone));
    assert_eq!(died.files(), ["journal"]);
}

#[test]
fn files_of_a_save_are_removed_under_whichever_name_they_have_and_others_are_not() {
    let mut died = Died::save(&["memory", "xenstore", "overlay"], begin_save());
    died.created("memory", true).created("xenstore", false);
    // Its process died before it could tell of this one.
    fs::write(died.temporary("overlay"), "").unwrap();
    for name in ["other", "memory.bak", ".partial-0-memory"] {
        fs::write(died.path(name), "of another").unwrap();
    }
    let (gone, left) = removed(died.recover(&running()));
    assert!(left.is_empty(), "{left:?}");
    let mut expected = [died.temporary("overlay"), died.path("memory"), died.temporary("xenstore")];
    expected.sort();
    let mut gone = gone;
    gone.sort();
    assert_eq!(gone, expected);
    assert_eq!(died.files(), [".partial-0-memory", "journal", "memory.bak", "other"]);
    let (again, _) = removed(died.recover(&running()));
    assert!(again.is_empty());
}

#[test]
fn what_has_the_name_of_a_created_file_and_is_another_is_left_and_reported_each_time() {
    let mut died = Died::save(&["memory"], begin_save());
    died.created("memory", true);
    // Kept, so that its inode is not used again.
    fs::rename(died.path("memory"), died.path("moved")).unwrap();
    fs::write(died.path("memory"), "of another").unwrap();
    for _ in 0..2 {
        let (gone, left) = removed(died.recover(&running()));
        assert!(gone.is_empty());
        assert!(
            matches!(&left[..], [LeftBehind { reason: LeftReason::OtherFile, .. }]),
            "{left:?}"
        );
    }
    assert_eq!(fs::read_to_string(died.path("memory")).unwrap(), "of another");
    fs::remove_file(died.path("memory")).unwrap();
    let (_, left) = removed(died.recover(&running()));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_domain_that_the_save_suspended_goes_on_and_no_other_does() {
    let suspended = || Table::default().with(OLD, "web", DomainState::Suspended);
    let mut died = Died::save(&[], begin_save());
    died.write(&Record::Suspending);
    let table = suspended();
    died.recover(&table).unwrap();
    assert_eq!(table.names(), [("web".into(), DomainState::Running)]);

    // Somebody else has, before this save came to it.
    let table = suspended();
    Died::save(&[], begin_save()).recover(&table).unwrap();
    assert_eq!(table.names(), [("web".into(), DomainState::Suspended)]);

    // The domid is another domain's by now.
    let other = DomainIdentity::new(OLD.domid, Uuid::from_u128(99));
    let table = Table::default().with(other, "other", DomainState::Suspended);
    let mut died = Died::save(&[], begin_save());
    died.write(&Record::Suspending);
    died.recover(&table).unwrap();
    assert_eq!(table.names(), [("other".into(), DomainState::Suspended)]);
}

#[test]
fn a_guardian_that_is_a_moment_earlier_does_no_harm() {
    let table = Table { guardian: true, ..Table::default() };
    let table = table.with(OLD, "web", DomainState::Suspended);
    let mut died = Died::save(&[], begin_save());
    died.write(&Record::Suspending);
    died.recover(&table).unwrap();
    assert_eq!(table.names(), [("web".into(), DomainState::Running)]);
}

#[test]
fn a_completed_save_leaves_the_domain_as_it_was_to_be_but_destroys_none_that_ran_on() {
    let cases = [
        (After::Resume, DomainState::Suspended, Some(DomainState::Running)),
        (After::Resume, DomainState::Running, Some(DomainState::Running)),
        (After::LeavePaused, DomainState::Running, Some(DomainState::Paused)),
        (After::Destroy, DomainState::Suspended, None),
        (After::Destroy, DomainState::Running, Some(DomainState::Running)),
        (After::Destroy, DomainState::Gone, None),
    ];
    for (after, found, expected) in cases {
        let table = match found {
            DomainState::Gone => Table::default(),
            found => Table::default().with(OLD, "web", found),
        };
        let mut died = Died::save(&["memory"], BeginSave { after, ..begin_save() });
        died.created("memory", true).write(&Record::Suspending);
        died.write(&Record::Pivoted(Box::new(sample::snapshot())));
        for _ in 0..2 {
            match died.recover(&table).unwrap() {
                Recovered::Saved(snapshot) => {
                    let state = expected.unwrap_or(DomainState::Gone);
                    assert_eq!(snapshot.state_after, Some(state), "{after:?} {found}");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(table.names().first().map(|(_, state)| *state), expected, "{after:?} {found}");
        assert_eq!(died.files(), ["journal", "memory"]);
    }
}

/// An overlay over an image, and what its journal says before it is put in place.
fn overlaid(died: &mut Died) -> OverlayIntent {
    let base = died.path("base");
    fs::write(&base, [7; 4096]).unwrap();
    let base = ImageRef::read(base, ImageFormat::Raw).unwrap();
    let target = died.path("overlay");
    let journal = died.journal.as_mut().unwrap();
    let overlay =
        create_overlay(&QemuImg::default(), &target, &base, journal, domain::soon()).unwrap();
    OverlayIntent {
        vdev: "xvda".into(),
        node: "xvda-raw".into(),
        overlay,
        overlay_node: "xvda-5".into(),
        base,
    }
}

#[test]
fn without_a_qemu_to_ask_overlays_that_were_written_to_decide() {
    for is_written in [false, true] {
        let begin = BeginSave { qmp: Some("/nowhere/qmp".into()), ..begin_save() };
        let mut died = Died::save(&["overlay"], begin);
        let intent = overlaid(&mut died);
        let mut snapshot = sample::snapshot();
        (snapshot.disks, snapshot.config_delta) = (Vec::new(), Vec::new());
        let draft = DraftSave { snapshot, overlays: vec![intent], hook: None };
        died.write(&Record::Suspending).write(&Record::Pivoting(Box::new(draft)));
        if is_written {
            let overlay = File::options().append(true).open(died.path("overlay")).unwrap();
            overlay.set_len(1 << 20).unwrap();
        }
        // As long as there is a domain, its QEMU has to be asked.
        assert!(matches!(died.recover(&running()), Err(RecoverError::Disks(_))));
        assert_eq!(died.files(), ["base", "journal", "overlay"]);
        match died.recover(&Table::default()).unwrap() {
            Recovered::RolledBack { left, .. } => {
                assert!(!is_written && left.is_empty(), "{left:?}");
                assert_eq!(died.files(), ["base", "journal"]);
            }
            Recovered::Saved(snapshot) => {
                assert!(is_written);
                assert_eq!(snapshot.disks[0].frozen.path, died.path("base"));
                assert_eq!(snapshot.disks[0].active.path, died.path("overlay"));
                assert_eq!(snapshot.config_delta[0].to.path, died.path("overlay"));
                assert_eq!(died.files(), ["base", "journal", "overlay"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read(died.path("base")).unwrap(), [7; 4096]);
    }
}

#[derive(Debug)]
struct Counting<'c>(&'c Mutex<usize>, bool);

impl Quiescer for Counting<'_> {
    fn freeze(&mut self, _: Instant) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        panic!("nobody freezes to recover");
    }

    fn thaw(&mut self, _: Instant) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        *self.0.lock().unwrap() += 1;
        if self.1 { Ok(()) } else { Err("it does not answer".into()) }
    }
}

#[test]
fn a_guest_that_may_be_frozen_is_thawed_once_it_runs_and_only_until_that_has_worked() {
    let begin = BeginSave { quiescer: Some("agent".into()), ..begin_save() };
    let mut died = Died::save(&[], begin);
    died.write(&Record::Freezing).write(&Record::Suspending);
    let table = Table::default().with(OLD, "web", DomainState::Suspended);
    let none = died.recover(&table);
    assert!(matches!(none, Err(RecoverError::NoQuiescer { .. })), "{none:?}");
    assert_eq!(table.names(), [("web".into(), DomainState::Running)]);

    let thawed = Mutex::new(0);
    let agent = |works| -> BTreeMap<String, Box<dyn Quiescer + '_>> {
        BTreeMap::from([("agent".into(), Box::new(Counting(&thawed, works)) as Box<dyn Quiescer>)])
    };
    let refused = died.recover_with(&table, agent(false));
    assert!(matches!(refused, Err(RecoverError::Thaw { .. })), "{refused:?}");
    for _ in 0..2 {
        removed(died.recover_with(&table, agent(true)));
    }
    assert_eq!(*thawed.lock().unwrap(), 2);
}

#[test]
fn a_restore_before_its_commit_leaves_the_old_domain_and_nothing_else() {
    let old = || {
        running().with(
            DomainIdentity::new(DomId::new(9), Uuid::from_u128(1)),
            "db",
            DomainState::Paused,
        )
    };
    // Not told of yet; told of; and with its final name already.
    let cases = [("web--restoring", false), ("", false), ("web--restoring", true), ("web", true)];
    for (name, is_told) in cases {
        let mut died = Died::restore(&["overlay"], Some(OLD));
        died.created("overlay", true).write(&Record::Building);
        if is_told {
            died.write(&Record::Built(NEW));
        }
        let table = old().with(NEW, name, DomainState::Paused);
        for _ in 0..2 {
            let (_, left) = removed(died.recover(&table));
            assert!(left.is_empty(), "{left:?}");
            let names = [("web".into(), DomainState::Running), ("db".into(), DomainState::Paused)];
            assert_eq!(table.names(), names, "{name} {is_told}");
            assert_eq!(died.files(), ["journal"]);
        }
    }
}

#[test]
fn a_restore_after_its_commit_is_completed_wherever_it_died() {
    let both = || running().with(NEW, "web--restoring", DomainState::Paused);
    let only = |name, state| Table::default().with(NEW, name, state);
    let cases = [
        both(),
        only("web--restoring", DomainState::Paused),
        only("web", DomainState::Paused),
        only("web", DomainState::Running),
    ];
    for table in cases {
        let mut died = Died::restore(&["overlay"], Some(OLD));
        died.created("overlay", true).write(&Record::Building).write(&Record::Built(NEW));
        died.write(&Record::Committing(Box::new(draft("web"))));
        for _ in 0..2 {
            match died.recover(&table).unwrap() {
                Recovered::Restored(restored) => {
                    assert_eq!(restored.state, Some(DomainState::Running));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(table.names(), [("web".into(), DomainState::Running)]);
            assert_eq!(died.files(), ["journal", "overlay"]);
        }
    }
}

#[test]
fn images_of_a_restored_domain_that_is_gone_are_left_unless_it_cannot_have_run() {
    let mut died = Died::restore(&["overlay"], Some(OLD));
    died.created("overlay", true).write(&Record::Built(NEW));
    died.write(&Record::Committing(Box::new(draft("web"))));
    let gone = died.recover(&Table::default());
    assert!(matches!(gone, Err(RecoverError::Gone { domain: NEW })), "{gone:?}");
    assert_eq!(died.files(), ["journal", "overlay"]);

    removed(died.recover(&running()));
    assert_eq!(died.files(), ["journal"]);
}
