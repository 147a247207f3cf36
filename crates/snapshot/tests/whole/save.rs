//! What a save leaves, looked at with other eyes than its own.

use std::fs::File;

use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::image::packed::{Codec, PackedReader};
use snapshot::image::{Limits, mapped::MappedReader};
use snapshot::recover::{self, recover};
use snapshot::restore::Depth;
use snapshot::save::{
    After, Consistency, DiskRequestAction, Hold, MemoryFormat, PlanSaveError, SaveCause,
    SaveRefusal,
};
use snapshot::simulated::check::{self, CheckedMemory};
use snapshot::verify::{Sources, verify};
use snapshot::{Observer, Snapshot, plan_save, save};

use crate::hosts::{TestHost, has_qemu, soon, start};

fn stream() -> MemoryFormat {
    MemoryFormat::Stream { side_digest: None }
}

/// The saved memory, out of whatever format it is in.
fn memory(host: &TestHost, format: &MemoryFormat) -> CheckedMemory {
    let file = File::open(host.saved("memory")).unwrap();
    let mut octets = Vec::new();
    match format {
        MemoryFormat::Mapped => {
            let image = MappedReader::open(file, Limits::default()).unwrap();
            image.write_stream(&mut octets).unwrap();
        }
        MemoryFormat::Packed { .. } => {
            let image = PackedReader::open(file, Limits::default()).unwrap();
            image.write_stream(&mut octets).unwrap();
        }
        _ => return check::stream(&mut &file).unwrap(),
    }
    check::stream(&mut &*octets).unwrap()
}

fn assert_verified(snapshot: &Snapshot) {
    verify(snapshot, &Sources::default(), Depth::Full, &mut Observer::none()).unwrap();
    assert_eq!(&Snapshot::from_json(&snapshot.to_json().unwrap()).unwrap(), snapshot);
}

#[test]
fn memory_and_copies_of_disks_are_of_one_moment_in_every_format() {
    let codec = Codec::default();
    let side_digest = |host: &TestHost| Some(host.saved("side").into());
    for number in 0..3 {
        let host = start();
        let domain = host.running("web");
        let format = match number {
            0 => MemoryFormat::Stream { side_digest: side_digest(&host) },
            1 => MemoryFormat::Mapped,
            _ => MemoryFormat::Packed { codec, workers: 2 },
        };
        let snapshot = host.save(host.with_memory(host.copying(&domain), format.clone())).unwrap();
        check::consistent(&memory(&host, &format), &host.frozen_ticks(&snapshot)).unwrap();
        assert_eq!(snapshot.consistency, Consistency::Complete);
        assert_eq!(snapshot.state_after, Some(DomainState::Running));
        assert!(snapshot.timings.held_us > 0 && snapshot.timings.memory_us > 0);
        host.assert_goes_on(&domain);
        let mut names = vec!["a", "b", "memory", "xenstore"];
        names.splice(3..3, (number == 0).then_some("side"));
        assert_eq!(host.saved_names(), names);
        assert_eq!(host.configured(&domain), [host.path("web-a"), host.path("web-b")]);
        assert_verified(&snapshot);
    }
}

fn pivoted(host: &TestHost, domain: &DomainIdentity, snapshot: &Snapshot) {
    host.assert_goes_on(domain);
    assert!(snapshot.config_applied, "{:?}", snapshot.warnings);
    assert_eq!(host.configured(domain), [host.saved("a"), host.saved("b")]);
    assert_eq!(snapshot.config_delta.len(), 2);
    assert_verified(snapshot);
}

#[test]
fn memory_and_overlays_on_a_running_qemu_are_of_one_moment_and_the_configuration_names_the_overlays()
 {
    if !has_qemu(
        "memory_and_overlays_on_a_running_qemu_are_of_one_moment_and_the_configuration_names_the_overlays",
    ) {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let snapshot = host.save(request).unwrap();
    let ticks = host.frozen_ticks(&snapshot);
    check::consistent(&memory(&host, &MemoryFormat::Mapped), &ticks).unwrap();
    assert!(snapshot.disks.iter().all(|disk| disk.digest.is_some()));
    pivoted(&host, &domain, &snapshot);
    let again = recover(&mut host.access(), &host.path("journal"), &mut Observer::none());
    assert!(matches!(again.unwrap(), recover::Recovered::Saved(saved) if *saved == snapshot));
}

#[test]
fn overlays_alone_are_of_one_moment_whether_the_guest_is_held_or_runs() {
    if !has_qemu("overlays_alone_are_of_one_moment_whether_the_guest_is_held_or_runs") {
        return;
    }
    for hold in [Hold::Suspended, Hold::Running] {
        let host = start();
        let domain = host.running_qcow2("web");
        let mut request = host.overlaying(&domain);
        request.hold = hold;
        let snapshot = host.save(request).unwrap();
        let ticks = host.frozen_ticks(&snapshot);
        check::crash_consistent(&ticks).unwrap();
        assert!(hold == Hold::Running || ticks[0] == ticks[1], "{ticks:?}");
        assert_eq!(snapshot.consistency, Consistency::CrashConsistent);
        pivoted(&host, &domain, &snapshot);
    }
}

#[test]
fn a_domain_is_afterwards_what_it_was_to_be() {
    for (after, found) in
        [(After::LeavePaused, DomainState::Paused), (After::Destroy, DomainState::Gone)]
    {
        let host = start();
        let domain = host.running("web");
        let mut request = host.with_memory(host.copying(&domain), stream());
        request.after = after;
        let snapshot = host.save(request).unwrap();
        assert_eq!(snapshot.state_after, Some(found));
        assert_eq!(host.control.state(&domain, soon()).unwrap(), found);
        check::consistent(&memory(&host, &stream()), &host.frozen_ticks(&snapshot)).unwrap();
    }
}

#[test]
fn disks_of_a_paused_domain_are_saved_and_it_stays_paused() {
    let host = start();
    let domain = host.running("web");
    host.control.pause(&domain, soon()).unwrap();
    let snapshot = host.save(host.copying(&domain)).unwrap();
    check::crash_consistent(&host.frozen_ticks(&snapshot)).unwrap();
    assert_eq!(snapshot.state_before, DomainState::Paused);
    assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Paused);
    host.control.unpause(&domain, soon()).unwrap();
    host.assert_goes_on(&domain);
}

#[test]
fn every_reason_against_a_save_is_told_at_once_and_nothing_is_touched() {
    let host = start();
    let domain = host.running("web");
    let mut request = host.with_memory(host.copying(&domain), MemoryFormat::Mapped);
    request.disks[0].vdev = "xvdz".into();
    request.hold = Hold::Running;
    request.memory.as_mut().unwrap().live = true;
    request.journal = Some(host.saved("memory").into());
    File::create_new(host.saved("xenstore")).unwrap();
    let action = DiskRequestAction::InternalQcow2 { tag: "t".into(), node: None };
    request.disks[1].action = action;
    let error = plan_save(&mut host.access(), request).unwrap_err();
    let PlanSaveError::Refused { refusals } = error else { panic!("{error:?}") };
    let expected: [fn(&SaveRefusal) -> bool; 7] = [
        |it| matches!(it, SaveRefusal::MemoryWhileRunning),
        |it| matches!(it, SaveRefusal::LiveFormat),
        |it| matches!(it, SaveRefusal::Missing { vdev } if vdev == "xvda"),
        |it| matches!(it, SaveRefusal::Unknown { vdev } if vdev == "xvdz"),
        |it| matches!(it, SaveRefusal::NoQmp { vdev } if vdev == "xvdb"),
        |it| matches!(it, SaveRefusal::TargetTwice { what, .. } if what == "journal"),
        |it| matches!(it, SaveRefusal::TargetExists { what, .. } if what == "xenstore"),
    ];
    for (number, expected) in expected.iter().enumerate() {
        assert_eq!(refusals.iter().filter(|it| expected(it)).count(), 1, "{number}: {refusals:?}");
    }
    assert_eq!(refusals.len(), expected.len(), "{refusals:?}");
    assert_eq!(host.saved_names(), ["xenstore"]);
    host.assert_goes_on(&domain);
}

#[test]
fn a_plan_that_does_not_hold_any_more_is_not_carried_out() {
    let host = start();
    let domain = host.running("web");
    let mut access = host.access();
    let plan = plan_save(&mut access, host.copying(&domain)).unwrap();
    host.control.pause(&domain, soon()).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::StalePlan { .. }), "{failure}");
    assert_eq!(failure.domain, Some(DomainState::Paused));
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    assert!(!host.path("journal").exists());
}
