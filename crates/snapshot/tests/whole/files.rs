//! Files and what else a save writes to or asks, failing in the midst of it.

use std::cell::Cell;
use std::time::Instant;

use libxl_config::template::{
    HeldTemplate, ListError, LoadError, LockError, Template, TemplateKey, TemplateStore,
    UserdataDir, WritePermit,
};
use snapshot::control::{DomainControl, DomainState};
use snapshot::recover::Recovered;
use snapshot::save::{DiskRequestAction, MemoryFormat, SaveCause};
use snapshot::{Observer, Phase, Progress, plan_save, recover, save};
use xsclient::{Client, Endpoint, OpenError, Options};

use crate::hosts::{has_qemu, soon, start};
use crate::save_failures::assert_undone;

/// Connects as often as it may, and then finds nobody.
fn unreachable(at: &std::path::Path) -> Result<Client, OpenError> {
    Client::open(Endpoint::UnixSocket(at.to_owned()), Options::default())
}

#[test]
fn a_xenstore_that_is_gone_while_the_guest_waits_is_asked_a_bounded_number_of_times() {
    let host = start();
    let domain = host.running("web");
    let (asked, nowhere, is_gone) = (Cell::new(0), host.path("nowhere"), Cell::new(false));
    let open = |deadline: Instant| {
        if is_gone.get() {
            asked.set(asked.get() + 1);
            return unreachable(&nowhere);
        }
        (host.access().xenstore)(deadline)
    };
    let mut access = host.access();
    access.xenstore = &open;
    let request = host.with_memory(host.copying(&domain), MemoryFormat::Mapped);
    let plan = plan_save(&mut access, request).unwrap();
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Capture {
            is_gone.set(true);
        }
    };
    let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = saved.unwrap_err();
    assert_eq!(failure.phase, Phase::Capture, "{failure}");
    assert_eq!(asked.get(), 3);
    assert_undone(&host, &domain, &failure);
}

#[test]
fn a_xenstore_that_is_back_by_the_second_time_is_no_failure() {
    let host = start();
    let domain = host.running("web");
    let (nowhere, fails) = (host.path("nowhere"), Cell::new(0));
    let open = |deadline: Instant| {
        if fails.get() > 0 {
            fails.set(fails.get() - 1);
            return unreachable(&nowhere);
        }
        (host.access().xenstore)(deadline)
    };
    let mut access = host.access();
    access.xenstore = &open;
    let request = host.with_memory(host.copying(&domain), MemoryFormat::Mapped);
    let plan = plan_save(&mut access, request).unwrap();
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Capture {
            fails.set(2);
        }
    };
    let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    assert_eq!(saved.unwrap().state_after, Some(DomainState::Running));
    assert_eq!(fails.get(), 0);
    host.assert_goes_on(&domain);
}

/// Templates that can be read, and whose locks nobody gets.
struct Locked<'t>(&'t UserdataDir);

impl TemplateStore for Locked<'_> {
    fn load(&self, key: &TemplateKey, deadline: Instant) -> Result<Option<Template>, LoadError> {
        self.0.load(key, deadline)
    }

    fn keys(&self, deadline: Instant) -> Result<Vec<TemplateKey>, ListError> {
        self.0.keys(deadline)
    }

    fn lock<'s>(
        &'s self,
        _permit: &WritePermit,
        key: &TemplateKey,
        _deadline: Instant,
    ) -> Result<Box<dyn HeldTemplate + 's>, LockError> {
        Err(LockError::NotAFile { key: *key, at: "the lock".to_owned() })
    }
}

#[test]
fn a_template_that_cannot_be_changed_leaves_a_whole_snapshot_with_a_warning_and_what_to_tell() {
    if !has_qemu(
        "a_template_that_cannot_be_changed_leaves_a_whole_snapshot_with_a_warning_and_what_to_tell",
    ) {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let templates = Locked(&host.templates);
    let mut access = host.access();
    access.templates = &templates;
    let plan = plan_save(&mut access, request).unwrap();
    let snapshot = save(&mut access, plan, &mut Observer::none()).unwrap();
    assert!(!snapshot.config_applied);
    assert_eq!(snapshot.config_delta.len(), 2);
    let told = |warning: &String| warning.contains("the new images are not told");
    assert_eq!(snapshot.warnings.iter().filter(|it| told(it)).count(), 1);
    assert_eq!(host.configured(&domain), [host.path("web-a"), host.path("web-b")]);
    assert_eq!(host.saved_names(), ["a", "b", "memory", "xenstore"]);
    assert_eq!(host.frozen_ticks(&snapshot).len(), 2);
    host.assert_goes_on(&domain);
}

#[test]
fn names_that_are_taken_while_the_guest_waits_stay_their_owners() {
    // Of copies, the names are given at the commit; memory and Xenstore state have theirs by then.
    for (taken, at) in [("memory", Phase::Name), ("b", Phase::Pivot)] {
        let host = start();
        let domain = host.running("web");
        let mut access = host.access();
        let request = host.with_memory(host.copying(&domain), MemoryFormat::Mapped);
        let plan = plan_save(&mut access, request).unwrap();
        let theirs = host.saved(taken);
        let mut progress = |progress: &Progress| {
            if progress.phase == at {
                std::fs::write(&theirs, "of another").unwrap();
            }
        };
        let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
        let failure = saved.unwrap_err();
        assert_eq!(failure.phase, at, "{failure}");
        assert_eq!(std::fs::read(&theirs).unwrap(), b"of another");
        std::fs::remove_file(&theirs).unwrap();
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn an_overlay_whose_name_is_taken_after_the_plan_is_not_made_and_qemu_is_not_asked() {
    if !has_qemu("an_overlay_whose_name_is_taken_after_the_plan_is_not_made_and_qemu_is_not_asked")
    {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    let theirs = host.saved("b");
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Prepare {
            std::fs::write(&theirs, "of another").unwrap();
        }
    };
    let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = saved.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Prepare { .. }), "{failure}");
    assert_eq!(std::fs::read(&theirs).unwrap(), b"of another");
    std::fs::remove_file(&theirs).unwrap();
    assert_undone(&host, &domain, &failure);
}

/// A small file system, as long as it lives.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(at: std::path::PathBuf, octets: usize) -> Option<Self> {
        let size = format!("size={octets}");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "none"])
            .arg(&at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Self(at))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn no_room_in_the_midst_of_memory_or_of_a_copy_or_of_the_journal_leaves_nothing() {
    for what in ["memory", "copy", "journal"] {
        let host = start();
        let domain = host.running("web");
        let directory = host.path("small");
        std::fs::create_dir(&directory).unwrap();
        let Some(_small) = Small::mount(directory.clone(), 512 << 10) else {
            println!(
                "skipped: no_room_in_the_midst_of_memory_or_of_a_copy_or_of_the_journal_leaves_nothing: \
                 a tmpfs cannot be mounted"
            );
            return;
        };
        let mut request = host.with_memory(host.copying(&domain), MemoryFormat::Mapped);
        request.space_check = false;
        let at = directory.join(what);
        let mut fill = None;
        match what {
            "memory" => request.memory.as_mut().unwrap().target = at.into(),
            "copy" => {
                if let DiskRequestAction::Copy { destination, .. } = &mut request.disks[0].action {
                    *destination = at.into();
                }
                fill = Some(Phase::Pivot);
            }
            _ => {
                request.journal = Some(at.into());
                fill = Some(Phase::Capture);
            }
        }
        let mut access = host.access();
        let plan = plan_save(&mut access, request).unwrap();
        let filler = directory.join("filler");
        let mut progress = |progress: &Progress| {
            if Some(progress.phase) == fill {
                // Until there is no room at all.
                let _ = std::fs::write(&filler, vec![1; 1 << 20]);
            }
        };
        let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
        let Err(failure) = saved else { panic!("{what}: {saved:?}") };
        let _ = std::fs::remove_file(&filler);
        let mut left: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        if what != "journal" {
            assert!(left.is_empty(), "{what}: {left:?}");
            assert_undone(&host, &domain, &failure);
            continue;
        }
        assert!(matches!(failure.cause, SaveCause::Journal(_)), "{failure:?}");
        assert_eq!(left, ["journal"]);
        assert_eq!(host.saved_names(), <[&str; 0]>::default());
        assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Running);
        host.assert_goes_on(&domain);
        // Whether or not there was room to write down that all was undone: a recovery finds nothing to undo.
        let recovered = recover(&mut access, &directory.join("journal"), &mut Observer::none());
        assert!(
            matches!(&recovered, Ok(Recovered::RolledBack { removed, left, .. })
                if removed.is_empty() && left.is_empty()),
            "{recovered:?}"
        );
        host.assert_goes_on(&domain);
    }
}
