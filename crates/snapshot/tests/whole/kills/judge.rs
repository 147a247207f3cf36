//! What has to hold after a kill, before and after the recovery: found out from files, images, views and domains.

use std::fs;
use std::path::{Path, PathBuf};

use snapshot::Observer;
use snapshot::control::{DomainControl, DomainIdentity, DomainState, DomainView};
use snapshot::disk::image::{ImageFormat, ImageRef};
use snapshot::recover::Recovered;
use snapshot::restore::Depth;
use snapshot::simulated::check;
use snapshot::verify::{Sources, verify};
use snapshot::{JournalError, Snapshot};
use xenstore_migration::{ReadOptions, StreamReader};

use super::world::{DISKS, Format, World, memory_of, recover, soon};

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
    format: Format,
    when: When,
) -> Outcome {
    names_mean_complete_files(files, format);
    if when == When::AfterGuardian {
        world.runs_on(domain);
    }
    let outcome = save_is_recovered(world, files, domain, format);
    let letters = |suffix| DISKS.map(|(_, letter)| files.join(format!("{letter}{suffix}")));
    let active = letters(if outcome == Outcome::Completed { "-1" } else { "" });
    assert_eq!(world.configured(domain), active);
    world.runs_on(domain);
    world.end(domain, &active);
    outcome
}

fn save_is_recovered(
    world: &World,
    files: &Path,
    domain: &DomainIdentity,
    format: Format,
) -> Outcome {
    let mut saved: Option<Box<Snapshot>> = None;
    let mut expected = vec!["a", "b", "journal"];
    // Once more gives the same.
    for time in 0..2 {
        match recover(world.path(), files, &mut Observer::none()) {
            Err(snapshot::recover::RecoverError::Journal(JournalError::Io { .. })) => {
                expected = vec!["a", "b"];
            }
            Ok(Recovered::NothingDone) => {}
            Ok(Recovered::RolledBack { left, .. }) => {
                assert!(left.is_empty() && saved.is_none(), "{left:?}");
            }
            Ok(Recovered::Saved(snapshot)) => {
                assert!(time == 0 || saved.as_ref() == Some(&snapshot));
                expected = vec!["a", "a-1", "b", "b-1", "journal", "memory", "xenstore"];
                if format == Format::Stream {
                    expected.insert(4, "digests");
                }
                saved = Some(snapshot);
            }
            other => panic!("{other:?}"),
        }
        let state = world.control().state(domain, soon()).unwrap();
        assert_eq!(state, DomainState::Running);
        assert_eq!(names(files), expected);
    }
    let Some(snapshot) = saved else { return Outcome::RolledBack };
    is_whole(world, files, &snapshot, format);
    Outcome::Completed
}

/// A snapshot is complete, and of one moment.
pub(super) fn is_whole(world: &World, files: &Path, snapshot: &Snapshot, format: Format) {
    let verified = verify(snapshot, &Sources::default(), Depth::Full, &mut Observer::none());
    verified.unwrap();
    assert!(snapshot.disks.iter().all(|disk| disk.digest.is_some()), "{:?}", snapshot.warnings);
    assert!(snapshot.config_applied, "{:?}", snapshot.warnings);
    let frozen: Vec<_> = snapshot.disks.iter().map(|disk| disk.frozen.path.clone()).collect();
    let memory = memory_of(&files.join("memory"), format);
    check::consistent(&memory, &world.ticks(&frozen)).unwrap();
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
            Err(snapshot::recover::RecoverError::Journal(JournalError::Io { .. })) => {
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
