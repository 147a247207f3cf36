//! Savers, restorers and recoveries that are killed with SIGKILL: at every step that they name, and at random moments.
//!
//! Each is a process of its own; the host with its domains is another, so that it outlives them, and so is the guardian. What has
//! to hold is in `judge`.

mod judge;
mod program;
mod random;
mod slow_qemu;
mod world;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::recover::Recovered;
use snapshot::restore::RestoreMode;
use snapshot::save::After;
use snapshot::{Observer, Snapshot};

use judge::{Outcome, When};
use program::{Kill, Task, Work};
use world::{Format, Saving, World, available, soon};

/// Steps that a killed process is killed at: enough to find that one never ends by itself.
const STEPS_MAX: u32 = 500;

fn format_of(round: u32) -> Format {
    if round.is_multiple_of(2) { Format::Stream } else { Format::Mapped }
}

/// Kills a save at each second step until one ends by itself, each of another domain.
fn saves_killed_from(first: u32, when: When) {
    let world = World::start();
    let mut outcomes = Vec::new();
    for step in (first..STEPS_MAX).step_by(2) {
        let (name, format) = (format!("web-{step}"), format_of(step / 2));
        let files = world.files(&name);
        let domain = world.running(&name, &files);
        let work = Work::Save { domain, saving: format.into() };
        let task = Task {
            host: world.path().to_owned(),
            files: files.clone(),
            work,
            kill: Kill::At(step),
        };
        let Some(at) = task.run() else {
            println!("{} kills {when:?}: {outcomes:?}", outcomes.len());
            assert!(outcomes.iter().any(|(_, outcome)| *outcome == Outcome::RolledBack));
            assert!(outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Completed));
            return;
        };
        println!("step {step}: {at}");
        outcomes.push((at, judge::save(&world, &files, &domain, format.into(), when)));
    }
    panic!("a save never ended by itself");
}

#[test]
fn a_save_killed_at_any_even_step_leaves_nothing_or_a_snapshot_once_its_guardian_is_done() {
    const TEST: &str =
        "a_save_killed_at_any_even_step_leaves_nothing_or_a_snapshot_once_its_guardian_is_done";
    if available(TEST) {
        saves_killed_from(0, When::AfterGuardian);
    }
}

#[test]
fn a_save_killed_at_any_odd_step_leaves_nothing_or_a_snapshot_while_its_guardian_is_at_work() {
    const TEST: &str =
        "a_save_killed_at_any_odd_step_leaves_nothing_or_a_snapshot_while_its_guardian_is_at_work";
    if available(TEST) {
        saves_killed_from(1, When::BesideGuardian);
    }
}

#[test]
fn a_snapshot_is_of_one_moment_also_if_qemu_freezes_the_disks_after_the_saver_has_died() {
    const TEST: &str =
        "a_snapshot_is_of_one_moment_also_if_qemu_freezes_the_disks_after_the_saver_has_died";
    if !available(TEST) {
        return;
    }
    let world = World::start();
    let files = world.files("web");
    let domain = world.running("web", &files);
    let work = Work::Save { domain, saving: Format::Stream.into() };
    let task = Task { host: world.path().to_owned(), files, work, kill: Kill::Never };
    let operator = world.operator();
    let (sender, saver) = std::sync::mpsc::channel::<Pid>();
    let meanwhile = move || {
        kill_process(saver.recv().unwrap(), Signal::KILL).unwrap();
        // Should the guardian resume it already, the guest writes to its disks now.
        let tick = operator.inspect(&domain, false, soon()).unwrap().tick;
        let moment = Instant::now() + Duration::from_millis(500);
        let _ = operator.await_tick(&domain, tick + 20, moment);
    };
    let socket = task.files.join("qmp");
    slow_qemu::before(&world::qmp(world.path(), &domain), &socket, meanwhile);
    let mut child = task.start();
    sender.send(Pid::from_child(&child)).unwrap();
    assert!(task.ended(child.wait().unwrap()).is_some(), "it was not killed");
    let outcome =
        judge::save(&world, &task.files, &domain, Format::Stream.into(), When::AfterGuardian);
    assert_eq!(outcome, Outcome::Completed);
}

#[test]
fn a_save_killed_with_overlays_open_disturbs_neither_the_guest_nor_the_next_save() {
    const TEST: &str =
        "a_save_killed_with_overlays_open_disturbs_neither_the_guest_nor_the_next_save";
    if !available(TEST) {
        return;
    }
    let world = World::start();
    let steps = [("after opening", 0), ("after node", 1), ("before transaction", 2)];
    for (number, (step, open)) in steps.into_iter().enumerate() {
        let name = format!("web-{number}");
        let (files, next) = (world.files(&name), world.files(&format!("next-{number}")));
        let domain = world.running(&name, &files);
        let qmp = world::qmp(world.path(), &domain);
        let saving = Format::Stream.into();
        let task = |files: &PathBuf, kill| {
            let work = Work::Save { domain, saving };
            Task { host: world.path().to_owned(), files: files.clone(), work, kill }
        };
        assert_eq!(task(&files, Kill::Named(step.into())).run().as_deref(), Some(step));
        world.runs_on(&domain);
        assert_eq!(crate::opened::added_nodes(&qmp).len(), open, "{step}");
        assert_eq!(task(&next, Kill::Never).run(), None);
        world.runs_on(&domain);
        let recovered = world::recover(world.path(), &files, &mut Observer::none()).unwrap();
        let Recovered::RolledBack { removed, left, .. } = recovered else {
            panic!("{recovered:?}")
        };
        assert!(left.is_empty() && removed.len() >= 2, "{removed:?} {left:?}");
        assert_eq!(crate::opened::added_nodes(&qmp).len(), 2, "those of the next one");
        assert_eq!(world.configured(&domain), [next.join("a-1"), next.join("b-1")]);
        judge::is_whole(&world, &next, &judge::saved(&world, &next), Format::Stream, true);
        world.runs_on(&domain);
        world.end(&domain, &[next.join("a-1"), next.join("b-1")]);
    }
}

#[test]
fn a_save_killed_around_a_snapshot_inside_an_image_leaves_that_only_in_a_whole_snapshot() {
    const TEST: &str =
        "a_save_killed_around_a_snapshot_inside_an_image_leaves_that_only_in_a_whole_snapshot";
    if !available(TEST) {
        return;
    }
    let world = World::start();
    let saving = Saving { inside: true, ..Format::Stream.into() };
    let steps = [
        ("after tagging", Outcome::RolledBack),
        ("after commit", Outcome::RolledBack),
        ("after committed", Outcome::RolledBack),
        ("after pivoting", Outcome::RolledBack),
        ("before pivoted", Outcome::Completed),
    ];
    for (number, (step, expected)) in steps.into_iter().enumerate() {
        let name = format!("web-{number}");
        let files = world.files(&name);
        let domain = world.running(&name, &files);
        let work = Work::Save { domain, saving };
        let kill = Kill::Named(step.into());
        let task = Task { host: world.path().to_owned(), files: files.clone(), work, kill };
        assert_eq!(task.run().as_deref(), Some(step));
        let when = if number % 2 == 0 { When::AfterGuardian } else { When::BesideGuardian };
        assert_eq!(judge::save(&world, &files, &domain, saving, when), expected, "{step}");
    }
}

#[test]
fn a_killed_save_that_was_to_pause_or_destroy_its_domain_does_so_unless_that_has_gone_on() {
    const TEST: &str =
        "a_killed_save_that_was_to_pause_or_destroy_its_domain_does_so_unless_that_has_gone_on";
    if !available(TEST) {
        return;
    }
    let world = World::start();
    let cases = [
        (After::LeavePaused, "after pivoted", DomainState::Paused),
        (After::LeavePaused, "after pause", DomainState::Paused),
        (After::LeavePaused, "after resume", DomainState::Paused),
        (After::Destroy, "before destroy", DomainState::Running),
        (After::Destroy, "after destroy", DomainState::Gone),
    ];
    for (number, (after, step, expected)) in cases.into_iter().enumerate() {
        let name = format!("web-{number}");
        let files = world.files(&name);
        let domain = world.running(&name, &files);
        let saving = Saving { after, ..Format::Stream.into() };
        let work = Work::Save { domain, saving };
        let kill = Kill::Named(step.into());
        let task = Task { host: world.path().to_owned(), files: files.clone(), work, kill };
        assert_eq!(task.run().as_deref(), Some(step));
        if expected == DomainState::Running {
            // The guardian was first.
            world.runs_on(&domain);
        }
        let snapshot = judge::saved(&world, &files);
        judge::is_whole(&world, &files, &snapshot, Format::Stream, expected != DomainState::Gone);
        assert_eq!(world.control().state(&domain, soon()).unwrap(), expected, "{after:?} {step}");
        assert_eq!(snapshot.state_after, Some(expected));
    }
}

#[test]
fn without_a_guardian_the_guest_of_a_killed_saver_waits_for_the_recovery() {
    const TEST: &str = "without_a_guardian_the_guest_of_a_killed_saver_waits_for_the_recovery";
    if !available(TEST) {
        return;
    }
    let world = World::start();
    let saving = Saving { is_guarded: false, ..Format::Stream.into() };
    for (number, step) in
        ["after suspend", "after pivoting", "after commit", "before resume"].iter().enumerate()
    {
        let name = format!("web-{number}");
        let files = world.files(&name);
        let domain = world.running(&name, &files);
        let work = Work::Save { domain, saving };
        let kill = Kill::Named((*step).into());
        let task = Task { host: world.path().to_owned(), files: files.clone(), work, kill };
        assert_eq!(task.run().as_deref(), Some(*step));
        assert_eq!(world.control().state(&domain, soon()).unwrap(), DomainState::Suspended);
        let outcome = judge::save(&world, &files, &domain, saving, When::BesideGuardian);
        assert_eq!(outcome == Outcome::Completed, number >= 2, "{step}");
    }
}

/// A domain that was saved and runs on, and its snapshot.
struct Origin {
    world: World,
    snapshot: Snapshot,
    manifest: PathBuf,
    domain: DomainIdentity,
}

impl Origin {
    fn new() -> Self {
        let world = World::start();
        let files = world.files("origin");
        let domain = world.running("web", &files);
        let snapshot = world::save(
            world.path(),
            &files,
            &domain,
            Format::Stream.into(),
            &mut Observer::none(),
        );
        let manifest = world.path().join("manifest");
        fs::write(&manifest, snapshot.to_json().unwrap()).unwrap();
        Self { world, snapshot, manifest, domain }
    }

    fn task(&self, files: PathBuf, replaces: Option<DomainIdentity>, kill: Kill) -> Task {
        let mode = match replaces {
            Some(domain) => RestoreMode::Replace { domain, free_first: false },
            None => RestoreMode::New,
        };
        let work = Work::Restore { manifest: self.manifest.clone(), mode };
        Task { host: self.world.path().to_owned(), files, work, kill }
    }

    /// What was saved is as it was.
    fn is_whole(&self) {
        let files = self.world.path().join("origin");
        judge::is_whole(&self.world, &files, &self.snapshot, Format::Stream, true);
    }
}

fn restores_killed(is_replacing: bool) {
    let origin = Origin::new();
    let (mut current, mut outcomes) = (origin.domain, Vec::new());
    for step in 0..STEPS_MAX {
        let files = origin.world.files(&format!("restored-{step}"));
        let replaces = is_replacing.then_some(current);
        let task = origin.task(files.clone(), replaces, Kill::At(step));
        let Some(at) = task.run() else {
            println!("{} kills, replacing {is_replacing}: {outcomes:?}", outcomes.len());
            assert!(outcomes.iter().any(|(_, outcome)| *outcome == Outcome::RolledBack));
            assert!(outcomes.iter().any(|(_, outcome)| *outcome == Outcome::Completed));
            origin.is_whole();
            return;
        };
        println!("step {step}: {at}");
        let (outcome, now) =
            judge::restore(&origin.world, &files, &origin.snapshot, current, is_replacing);
        current = now;
        outcomes.push((at, outcome));
    }
    panic!("a restore never ended by itself");
}

#[test]
fn a_restore_in_a_domains_place_killed_at_any_step_leaves_the_old_one_or_the_new_one() {
    const TEST: &str =
        "a_restore_in_a_domains_place_killed_at_any_step_leaves_the_old_one_or_the_new_one";
    if available(TEST) {
        restores_killed(true);
    }
}

#[test]
fn a_restore_beside_a_domain_killed_at_any_step_leaves_nothing_or_the_new_one() {
    const TEST: &str = "a_restore_beside_a_domain_killed_at_any_step_leaves_nothing_or_the_new_one";
    if available(TEST) {
        restores_killed(false);
    }
}

/// Kills the recovery of the same death at each of its steps; the next one has to come to the same end.
fn recoveries_killed(mut die: impl FnMut(u32) -> Task, mut judge: impl FnMut(&Task)) {
    for step in 0..STEPS_MAX {
        let died = die(step);
        let recovery = Task { work: Work::Recover, kill: Kill::At(step), ..died.clone() };
        let killed = recovery.run();
        judge(&died);
        match killed {
            Some(at) => println!("recovery of {:?} killed at {at}", died.kill),
            None => return,
        }
    }
    panic!("a recovery never ended by itself");
}

#[test]
fn a_recovery_of_a_save_killed_at_any_of_its_steps_is_recovered_by_the_next() {
    const TEST: &str = "a_recovery_of_a_save_killed_at_any_of_its_steps_is_recovered_by_the_next";
    if !available(TEST) {
        return;
    }
    let deaths = [
        ("after node", Outcome::RolledBack),
        ("before pivoting", Outcome::RolledBack),
        ("after pivoting", Outcome::RolledBack),
        ("before pivoted", Outcome::Completed),
    ];
    for (at, expected) in deaths {
        let world = World::start();
        let die = |round: u32| {
            let name = format!("web-{round}");
            let files = world.files(&name);
            let work =
                Work::Save { domain: world.running(&name, &files), saving: Format::Stream.into() };
            let kill = Kill::Named(at.into());
            let task = Task { host: world.path().to_owned(), files, work, kill };
            assert_eq!(task.run().as_deref(), Some(at));
            task
        };
        recoveries_killed(die, |died| {
            let Work::Save { domain, saving } = &died.work else { unreachable!("it is a save") };
            let outcome = judge::save(&world, &died.files, domain, *saving, When::BesideGuardian);
            assert_eq!(outcome, expected);
        });
    }
}

#[test]
fn a_recovery_of_a_restore_killed_at_any_of_its_steps_is_recovered_by_the_next() {
    const TEST: &str =
        "a_recovery_of_a_restore_killed_at_any_of_its_steps_is_recovered_by_the_next";
    if !available(TEST) {
        return;
    }
    let origin = Origin::new();
    let current = std::cell::Cell::new(origin.domain);
    let deaths =
        [("before committing", Outcome::RolledBack), ("after committing", Outcome::Completed)];
    for (at, expected) in deaths {
        let die = |round: u32| {
            let files = origin.world.files(&format!("{}-{round}", at.replace(' ', "-")));
            let task = origin.task(files, Some(current.get()), Kill::Named(at.into()));
            assert_eq!(task.run().as_deref(), Some(at));
            task
        };
        recoveries_killed(die, |died| {
            let (outcome, now) =
                judge::restore(&origin.world, &died.files, &origin.snapshot, current.get(), true);
            assert_eq!(outcome, expected);
            current.set(now);
        });
    }
    origin.is_whole();
}

#[test]
fn a_restore_that_frees_the_old_domain_first_leaves_neither_or_the_new_one() {
    const TEST: &str = "a_restore_that_frees_the_old_domain_first_leaves_neither_or_the_new_one";
    if !available(TEST) {
        return;
    }
    for step in ["after built", "before committing", "after committing"] {
        let origin = Origin::new();
        let mut task = origin.task(origin.world.files("restored"), None, Kill::Named(step.into()));
        let mode = RestoreMode::Replace { domain: origin.domain, free_first: true };
        task.work = Work::Restore { manifest: origin.manifest.clone(), mode };
        assert_eq!(task.run().as_deref(), Some(step));
        let recovered = world::recover(&task.host, &task.files, &mut Observer::none()).unwrap();
        let domains = origin.world.control().list(soon()).unwrap();
        match recovered {
            Recovered::RolledBack { warnings, domain, .. } => {
                assert_ne!(step, "after committing");
                assert_eq!((domains.len(), domain), (0, Some(DomainState::Gone)));
                assert_eq!(warnings.len(), 1, "{warnings:?}");
                assert!(!task.files.join("a-2").exists() && !task.files.join("b-2").exists());
            }
            Recovered::Restored(restored) => {
                assert_eq!(step, "after committing");
                assert_eq!(domains.len(), 1);
                origin.world.runs_on(&restored.domain.unwrap());
            }
            other => panic!("{other:?}"),
        }
        origin.is_whole();
    }
}
