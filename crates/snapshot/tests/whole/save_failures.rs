//! What fails during a save, and what is promised then: looked at in files, Xenstore, template and domain, not in the answer alone.

use std::cell::Cell;
use std::error::Error;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use snapshot::control::{CancelToken, DomainControl, DomainIdentity, DomainState, ShutdownReason};
use snapshot::recover::Recovered;
use snapshot::save::{
    After, ImageAfter, MemoryFormat, OnQuiesceFailure, QuiesceRequest, SaveCause, SaveFailure,
    SaveRequest,
};
use snapshot::simulated::{Call, Effect};
use snapshot::{Observer, Phase, Progress, Quiescer, Target, plan_save, recover, save};

use crate::hosts::{TestHost, directory_of_program, has_qemu, program, soon, start};

fn whole(host: &TestHost, domain: &DomainIdentity) -> SaveRequest {
    host.with_memory(host.copying(domain), MemoryFormat::Mapped)
}

/// Nothing is left of it: no file, no change of the configuration, nothing to recover, and the guest goes on.
pub(crate) fn assert_undone(host: &TestHost, domain: &DomainIdentity, failure: &SaveFailure) {
    assert_eq!(failure.domain, Some(DomainState::Running), "{failure}");
    assert!(failure.left.is_empty() && failure.thaw.is_none(), "{failure:?}");
    assert!(failure.snapshot.is_none() && failure.journal.is_none(), "{failure:?}");
    assert!(failure.disks.iter().all(|disk| disk.image == ImageAfter::Old), "{failure:?}");
    assert_eq!(host.saved_names(), <[&str; 0]>::default(), "{failure}");
    assert_eq!(host.configured(domain), [host.path("web-a"), host.path("web-b")]);
    host.assert_goes_on(domain);
    let recovered = recover(&mut host.access(), &host.path("journal"), &mut Observer::none());
    match recovered.unwrap() {
        Recovered::RolledBack { removed, left, .. } => {
            assert!(removed.is_empty() && left.is_empty(), "{removed:?} {left:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn whatever_fails_while_the_guest_suspends_or_its_memory_is_written_is_undone() {
    let suspend = Call::SuspendTo;
    let at = 1 << 20;
    for (call, effect) in [
        (suspend, Effect::FailBefore),
        (suspend, Effect::FailAfter),
        (suspend, Effect::FalseSuccess),
        (suspend, Effect::LoseBefore),
        (suspend, Effect::LoseAfter),
        (suspend, Effect::StreamFails { at }),
        (suspend, Effect::HelperDies { at }),
        (suspend, Effect::GuestIgnores),
    ] {
        let host = start();
        let domain = host.running("web");
        let mut access = host.access();
        let plan = plan_save(&mut access, whole(&host, &domain)).unwrap();
        host.operator().fail(call, effect, soon()).unwrap();
        match save(&mut access, plan, &mut Observer::none()) {
            Err(failure) => {
                assert!(matches!(failure.phase, Phase::Memory), "{effect:?}: {failure}");
                assert_undone(&host, &domain, &failure);
            }
            Ok(snapshot) => panic!("{effect:?}: {snapshot:?}"),
        }
    }
}

#[test]
fn a_suspend_that_hangs_ends_with_its_deadline_and_a_stream_that_hangs_with_the_caller() {
    for effect in [Effect::HangBefore, Effect::StreamHangs { at: 1 << 20 }] {
        let host = start();
        let domain = host.running("web");
        let mut request = whole(&host, &domain);
        request.deadlines.suspend = std::time::Duration::from_millis(500);
        let mut access = host.access();
        let plan = plan_save(&mut access, request).unwrap();
        host.operator().fail(Call::SuspendTo, effect, soon()).unwrap();
        let token = CancelToken::new().unwrap();
        let mut progress = |progress: &Progress| {
            if progress.phase == Phase::Memory && progress.done >= 1 << 20 {
                token.cancel();
            }
        };
        let mut observer = Observer::none().progress(&mut progress).cancel(&token);
        let failure = save(&mut access, plan, &mut observer).unwrap_err();
        match effect {
            Effect::HangBefore => assert!(matches!(failure.cause, SaveCause::DeadlinePassed)),
            _ => assert!(matches!(failure.cause, SaveCause::Cancelled), "{failure}"),
        }
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn a_guest_that_dies_instead_of_suspending_is_reported_as_dead_and_nothing_is_left() {
    let host = start();
    let domain = host.running("web");
    let mut access = host.access();
    let plan = plan_save(&mut access, whole(&host, &domain)).unwrap();
    host.operator().fail(Call::SuspendTo, Effect::GuestCrashes, soon()).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
    assert_eq!(failure.domain, Some(DomainState::ShutDown(ShutdownReason::Crash)), "{failure}");
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    let state = host.control.state(&domain, soon()).unwrap();
    assert_eq!(state, DomainState::ShutDown(ShutdownReason::Crash));
}

#[test]
fn memory_that_finds_no_room_is_given_up_and_the_guest_goes_on() {
    let host = start();
    let domain = host.running("web");
    let mut request = whole(&host, &domain);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let memory = request.memory.as_mut().unwrap();
    memory.target = Target::Descriptor(Arc::new(OwnedFd::from(full)));
    memory.format = MemoryFormat::Stream { side_digest: None };
    let failure = host.save(request).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Image(_)), "{failure:?}");
    assert_undone(&host, &domain, &failure);
}

#[test]
fn a_save_is_cancelled_in_every_phase_before_the_pivot() {
    for phase in [
        Phase::Plan,
        Phase::Prepare,
        Phase::Suspend,
        Phase::Memory,
        Phase::Capture,
        Phase::Sync,
        Phase::Name,
        Phase::Pivot,
    ] {
        let host = start();
        let domain = host.running("web");
        let mut access = host.access();
        let plan = plan_save(&mut access, whole(&host, &domain)).unwrap();
        let token = CancelToken::new().unwrap();
        let mut progress = |progress: &Progress| {
            if progress.phase == phase {
                token.cancel();
            }
        };
        let mut observer = Observer::none().progress(&mut progress).cancel(&token);
        let failure = save(&mut access, plan, &mut observer).unwrap_err();
        assert!(matches!(failure.cause, SaveCause::Cancelled), "{phase}: {failure}");
        if phase == Phase::Plan {
            assert!(!host.path("journal").exists());
            host.assert_goes_on(&domain);
        } else {
            assert_undone(&host, &domain, &failure);
        }
    }
}

#[test]
fn a_name_that_somebody_took_meanwhile_is_left_to_them_and_the_rest_is_undone() {
    let host = start();
    let domain = host.running("web");
    let mut access = host.access();
    let plan = plan_save(&mut access, whole(&host, &domain)).unwrap();
    let theirs = host.saved("xenstore");
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Name {
            std::fs::write(&theirs, "of another").unwrap();
        }
    };
    let failure = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = failure.unwrap_err();
    assert_eq!(failure.phase, Phase::Name, "{failure}");
    assert_eq!(failure.removed, [host.saved("memory")]);
    assert_eq!(std::fs::read(&theirs).unwrap(), b"of another");
    std::fs::remove_file(&theirs).unwrap();
    assert_undone(&host, &domain, &failure);
}

#[test]
fn a_guest_that_does_not_go_on_leaves_a_whole_snapshot_and_a_recovery_lets_it_go_on() {
    let host = start();
    let domain = host.running("web");
    let mut access = host.access();
    access.guardian = None;
    let plan = plan_save(&mut access, whole(&host, &domain)).unwrap();
    host.operator().fail(Call::Resume, Effect::FailBefore, soon()).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Resume(_)), "{failure}");
    assert_eq!(failure.domain, Some(DomainState::Suspended));
    let snapshot = failure.snapshot.as_ref().unwrap();
    assert_eq!(host.frozen_ticks(snapshot).len(), 2);
    assert_eq!(host.saved_names(), ["a", "b", "memory", "xenstore"]);
    let journal = failure.journal.unwrap();
    let recovered = recover(&mut host.access(), &journal, &mut Observer::none()).unwrap();
    assert!(matches!(recovered, Recovered::Saved(_)), "{recovered:?}");
    host.assert_goes_on(&domain);
}

#[test]
fn a_domain_that_is_not_destroyed_stays_suspended_with_a_whole_snapshot() {
    let host = start();
    let domain = host.running("web");
    let mut request = whole(&host, &domain);
    request.after = After::Destroy;
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    host.operator().fail(Call::Destroy, Effect::FailBefore, soon()).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
    assert!(failure.snapshot.is_some() && matches!(failure.cause, SaveCause::Change(_)));
    assert_eq!(failure.domain, Some(DomainState::Suspended));
    let journal = failure.journal.unwrap();
    recover(&mut host.access(), &journal, &mut Observer::none()).unwrap();
    assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Gone);
}

/// Counts, and fails as it is told.
struct Agent {
    freezes: Rc<Cell<u32>>,
    thaws: Rc<Cell<u32>>,
    fails: bool,
}

impl Quiescer for Agent {
    fn freeze(&mut self, _deadline: Instant) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.freezes.set(self.freezes.get() + 1);
        if self.fails { Err("the agent does not answer".into()) } else { Ok(()) }
    }

    fn thaw(&mut self, _deadline: Instant) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.thaws.set(self.thaws.get() + 1);
        Ok(())
    }
}

#[test]
fn a_guest_that_is_not_quiesced_is_thawed_and_its_snapshot_undone_or_marked() {
    use snapshot::save::Consistency;
    for (on_failure, fails) in [
        (OnQuiesceFailure::Abort, false),
        (OnQuiesceFailure::Abort, true),
        (OnQuiesceFailure::MarkCrashConsistent, true),
    ] {
        let host = start();
        let domain = host.running("web");
        let mut request = host.copying(&domain);
        let deadline = std::time::Duration::from_secs(5);
        request.quiesce = Some(QuiesceRequest { hook: "agent".into(), deadline, on_failure });
        let (freezes, thaws) = <(Rc<Cell<u32>>, Rc<Cell<u32>>)>::default();
        let mut access = host.access();
        let agent = Agent { freezes: freezes.clone(), thaws: thaws.clone(), fails };
        access.quiescers.insert("agent".into(), Box::new(agent));
        let plan = plan_save(&mut access, request).unwrap();
        let saved = save(&mut access, plan, &mut Observer::none());
        assert_eq!((freezes.get(), thaws.get()), (1, 1));
        match (on_failure, fails, saved) {
            (_, false, Ok(snapshot)) => assert_eq!(snapshot.consistency, Consistency::Quiesced),
            (OnQuiesceFailure::MarkCrashConsistent, _, Ok(snapshot)) => {
                assert_eq!(snapshot.consistency, Consistency::CrashConsistent);
            }
            (OnQuiesceFailure::Abort, true, Err(failure)) => {
                assert!(matches!(failure.cause, SaveCause::Freeze(_)), "{failure}");
                assert_undone(&host, &domain, &failure);
            }
            (_, _, other) => panic!("{other:?}"),
        }
        host.assert_goes_on(&domain);
    }
}

#[test]
#[ignore = "a saver that kills itself in the midst, which another test starts"]
fn saver_program() {
    let Some(directory) = directory_of_program() else { return };
    crate::hosts::save_and_die(&directory);
}

#[test]
fn a_guardian_lets_the_guest_of_a_killed_saver_go_on_and_a_recovery_leaves_no_trace() {
    let host = start();
    let domain = host.running("web");
    std::fs::write(host.path("domain"), domain.domid.get().to_string()).unwrap();
    let mut saver = program("save_failures::saver_program", host.directory.path()).spawn().unwrap();
    let status = saver.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status:?}");
    // The guest waited: the next tick comes only if the guardian has resumed it.
    let tick = host.inspect(&domain).tick;
    host.operator().await_tick(&domain, tick + 5, soon()).unwrap();
    let recovered = recover(&mut host.access(), &host.path("journal"), &mut Observer::none());
    assert!(matches!(recovered.unwrap(), Recovered::RolledBack { .. }));
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

#[test]
fn overlays_that_qemu_refuses_leave_disks_and_guest_as_they_were() {
    if !has_qemu("overlays_that_qemu_refuses_leave_disks_and_guest_as_they_were") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    // An overlay that is not there any more cannot be put in place.
    let overlay = host.saved("b");
    let mut progress = |progress: &Progress| {
        if progress.phase == Phase::Pivot {
            std::fs::remove_file(&overlay).unwrap();
        }
    };
    let failure = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure}");
    assert_undone(&host, &domain, &failure);
}
