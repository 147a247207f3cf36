//! What has to hold after a kill, before and after the recovery: found out from files, images, views and domains.

use std::fs;
use std::path::{Path, PathBuf};

use snapshot::Observer;
use snapshot::control::{DomainControl, DomainIdentity, DomainState, DomainView};
use snapshot::disk::DiskAction;
use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::recover::{RecoverError, Recovered};
use snapshot::restore::Depth;
use snapshot::simulated::check;
use snapshot::verify::{Sources, verify};
use snapshot::{JournalError, Snapshot};
use xenstore_migration::{ReadOptions, StreamReader};

use super::world::{DISKS, Format, Saving, TAG, World, memory_of, qmp, recover, soon};
use crate::opened::added_nodes;

/// What came of a call that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    RolledBack,
    Completed,
}

/// When a recovery is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Once the guardian has done its work.
    AfterGuardian,
    /// At once, so that both are at work.
    BesideGuardian,
}

const OTHERS: [&str; 3] = [".partial-0-memory", "memory.bak", "other"];
/// A test's own.
const QMP: &str = "qmp";

/// What files there are, sorted, and that nobody has touched what is somebody else's.
fn names(files: &Path) -> Vec<String> {
    for other in OTHERS {
        assert_eq!(fs::read_to_string(files.join(other)).unwrap(), "of another");
    }
    let entries = fs::read_dir(files).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !OTHERS.contains(&&**name) && name != QMP);
    names.sort();
    names
}

/// I2: whatever has its final name is complete, recovered or not.
fn names_mean_complete_files(files: &Path, format: Format) {
    if files.join("memory").exists() {
        memory_of(&files.join("memory"), format);
    }
    if files.join("xenstore").exists() {
        let state = fs::read(files.join("xenstore")).unwrap();
        let mut stream = StreamReader::open(&state[..], ReadOptions::default()).unwrap();
        xenstore_migration::domain_state::DomainState::from_stream(&mut stream).unwrap();
    }
    for name in ["a-1", "b-1", "a-2", "b-2"].map(|name| files.join(name)) {
        if name.exists() {
            let image = ImageRef::read(&name, ImageFormat::Qcow2).unwrap();
            assert_eq!(image.virtual_size, 8 << 20);
        }
    }
}

/// A save of `domain` was killed: recovers, and looks at all there is. The domain is ended.
pub(super) fn save(
    world: &World,
    files: &Path,
    domain: &DomainIdentity,
    saving: Saving,
    when: When,
) -> Outcome {
    names_mean_complete_files(files, saving.format);
    if when == When::AfterGuardian {
        world.runs_on(domain);
    }
    let outcome = save_is_recovered(world, files, domain, saving);
    let is_completed = outcome == Outcome::Completed;
    let active = DISKS.map(|(_, letter)| {
        let is_moved = is_completed && !(saving.inside && letter == "b");
        files.join(format!("{letter}{}", if is_moved { "-1" } else { "" }))
    });
    assert_eq!(world.configured(domain), active);
    // QEMU has open what is in use, and nothing else of the save.
    let moved = active.iter().filter(|image| image.to_string_lossy().ends_with("-1")).count();
    assert_eq!(added_nodes(&qmp(world.path(), domain)).len(), moved);
    world.runs_on(domain);
    world.end(domain, &active);
    let tags = if is_completed && saving.inside { vec![TAG.to_owned()] } else { vec![] };
    assert_eq!(world.tags(&files.join("b")), tags);
    outcome
}

fn save_is_recovered(
    world: &World,
    files: &Path,
    domain: &DomainIdentity,
    saving: Saving,
) -> Outcome {
    let mut saved: Option<Box<Snapshot>> = None;
    let mut expected = vec!["a", "b", "journal"];
    // Once more gives the same.
    for time in 0..2 {
        match recover(world.path(), files, &mut Observer::none()) {
            Err(RecoverError::Journal(JournalError::Io { .. })) => {
                expected = vec!["a", "b"];
            }
            Ok(Recovered::NothingDone) => {}
            Ok(Recovered::RolledBack { left, .. }) => {
                assert!(left.is_empty() && saved.is_none(), "{left:?}");
            }
            Ok(Recovered::Saved(snapshot)) => {
                assert!(time == 0 || saved.as_ref() == Some(&snapshot));
                expected = files_of(saving);
                saved = Some(snapshot);
            }
            other => panic!("{other:?}"),
        }
        let state = world.control().state(domain, soon()).unwrap();
        assert_eq!(state, DomainState::Running);
        assert_eq!(names(files), expected);
    }
    let Some(snapshot) = saved else { return Outcome::RolledBack };
    is_whole(world, files, &snapshot, saving.format, true);
    Outcome::Completed
}

fn files_of(saving: Saving) -> Vec<&'static str> {
    let mut names = vec!["a", "a-1", "b", "journal", "memory", "xenstore"];
    names.extend((!saving.inside).then_some("b-1"));
    names.extend((saving.format == Format::Stream).then_some("digests"));
    names.sort_unstable();
    names
}

/// A save was killed after its commit: what the recovery makes of it, twice.
pub(super) fn saved(world: &World, files: &Path) -> Box<Snapshot> {
    let [first, again] =
        [0, 1].map(|_| match recover(world.path(), files, &mut Observer::none()) {
            Ok(Recovered::Saved(snapshot)) => snapshot,
            other => panic!("{other:?}"),
        });
    assert_eq!(first, again);
    first
}

/// A snapshot is complete, and of one moment.
pub(super) fn is_whole(
    world: &World,
    files: &Path,
    snapshot: &Snapshot,
    format: Format,
    is_applied: bool,
) {
    let verified = verify(snapshot, &Sources::default(), Depth::Full, &mut Observer::none());
    verified.unwrap();
    assert_eq!(snapshot.config_applied, is_applied, "{:?}", snapshot.warnings);
    let memory = memory_of(&files.join("memory"), format);
    let ticks = DISKS.iter().enumerate().map(|(number, (vdev, _))| {
        let disk = snapshot.disks.iter().find(|disk| disk.vdev == *vdev).unwrap();
        let image = &disk.frozen.path;
        if matches!(disk.action, DiskAction::InternalQcow2 { .. }) {
            return world.tick_inside(number, image);
        }
        assert!(disk.digest.is_some(), "{:?}", snapshot.warnings);
        world.tick(number, image)
    });
    check::consistent(&memory, &ticks.collect::<Vec<_>>()).unwrap();
}

/// A restore was killed: recovers, and looks at all there is. The domain that has the name and runs.
pub(super) fn restore(
    world: &World,
    files: &Path,
    origin: &Snapshot,
    old: DomainIdentity,
    is_replacing: bool,
) -> (Outcome, DomainIdentity) {
    names_mean_complete_files(files, Format::Stream);
    let mut restored = None;
    let mut expected = vec!["journal"];
    for _ in 0..2 {
        match recover(world.path(), files, &mut Observer::none()) {
            Err(RecoverError::Journal(JournalError::Io { .. })) => {
                expected.clear();
            }
            Ok(Recovered::NothingDone) => {}
            Ok(Recovered::RolledBack { left, .. }) => {
                assert!(left.is_empty() && restored.is_none(), "{left:?}");
            }
            Ok(Recovered::Restored(done)) => {
                expected = vec!["a-2", "b-2", "journal"];
                restored = Some(done.domain.unwrap());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(names(files), expected);
    }
    let domains = world.control().list(soon()).unwrap();
    let views = |view: DomainView| (view.identity, view.name.unwrap(), view.state);
    let domains: Vec<_> = domains.into_iter().map(views).collect();
    let named = |domain, name: &str| (domain, name.to_owned(), DomainState::Running);
    let name = origin.domain.name.as_deref().unwrap();
    let (outcome, current) = match restored {
        None => {
            assert_eq!(domains, [named(old, name)]);
            (Outcome::RolledBack, old)
        }
        Some(new) if is_replacing => {
            assert_eq!(domains, [named(new, name)]);
            (Outcome::Completed, new)
        }
        Some(new) => {
            assert_eq!(domains, [named(old, name), named(new, "copy")]);
            (Outcome::Completed, new)
        }
    };
    templates_are_of(world, &domains.iter().map(|(domain, ..)| *domain).collect::<Vec<_>>());
    world.runs_on(&current);
    let overlays: Vec<PathBuf> = DISKS.map(|(_, letter)| files.join(format!("{letter}-2"))).into();
    if restored.is_some() {
        assert_eq!(world.configured(&current), overlays);
    }
    if restored.is_some() && !is_replacing {
        world.end(&current, &overlays);
        return (outcome, old);
    }
    (outcome, current)
}

/// No domain has left a template behind.
fn templates_are_of(world: &World, domains: &[DomainIdentity]) {
    let mut kept: Vec<_> = fs::read_dir(world.path().join("templates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("userdata-d."))
        .collect();
    kept.sort();
    let mut expected: Vec<_> = domains
        .iter()
        .map(|domain| format!("userdata-d.{}.{}.libxl-json", domain.domid, domain.uuid))
        .collect();
    expected.sort();
    assert_eq!(kept, expected);
}
