//! Every failure on command leads to a state that the trait documents, and the domain can go on from it.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use snapshot::control::{
    BuildFailure, CancelToken, ChangeFailure, DomainControl, DomainIdentity, DomainState,
    QueryError, Refusal, RenameFailure, ResumeFailure, SETTLE_LIMIT, ShutdownReason, SuspendError,
    SuspendFailure, Until,
};
use snapshot::simulated::{Call, DomainSpec, Effect, GuestSpec, check};

use crate::hosts::{PAGES, SEED, TestHost, soon, start, uuid_of};

/// What hangs is waited for shortly; everything else may take its time on a busy machine.
fn until(effect: Effect) -> Instant {
    match effect {
        Effect::HangBefore
        | Effect::HangAfter
        | Effect::StreamHangs { .. }
        | Effect::GuestIgnores => Instant::now() + Duration::from_secs(1),
        _ => soon(),
    }
}

fn suspend_to(
    host: &TestHost,
    domain: &DomainIdentity,
    until: Until<'_>,
) -> Result<(), SuspendError> {
    let file = tempfile::tempfile_in(host.directory.path()).unwrap();
    host.control().suspend_to(domain, file.as_fd(), false, until)
}

/// A failed suspend; afterwards the domain goes on, and can be saved.
fn failed_suspend(
    host: &TestHost,
    domain: &DomainIdentity,
    effect: Effect,
    state: DomainState,
    is_reason: impl Fn(&SuspendFailure) -> bool,
) {
    for call in [Call::SuspendTo, Call::SuspendOnly] {
        if !effect.applies_to(call) {
            continue;
        }
        host.operator().fail(call, effect, soon()).unwrap();
        let failed = match call {
            Call::SuspendTo => suspend_to(host, domain, until(effect).into()),
            _ => host.control().suspend_only(domain, until(effect).into()),
        };
        let failed = failed.unwrap_err();
        assert!(is_reason(&failed.reason), "{call:?} {effect:?}: {failed} ({:?})", failed.reason);
        assert_eq!(failed.state, Some(state), "{call:?} {effect:?}: {failed}");
        assert_eq!(host.control().state(domain, soon()).unwrap(), state, "{call:?} {effect:?}");
        if state == DomainState::Suspended {
            host.control().resume(domain, soon()).unwrap();
        }
        let tick = host.inspect(domain).tick;
        host.operator().await_tick(domain, tick + 2, soon()).unwrap();
        let file = tempfile::tempfile_in(host.directory.path()).unwrap();
        host.control().suspend_to(domain, file.as_fd(), false, soon().into()).unwrap();
        host.control().resume(domain, soon()).unwrap();
        assert_eq!(host.inspect(domain).wrong, None, "{call:?} {effect:?}");
    }
}

#[test]
fn a_failed_suspend_leaves_the_domain_running_or_suspended_as_documented() {
    use SuspendFailure::{DeadlinePassed, HelperDied, Hypervisor, NotSuspended, Stream};
    let host = start();
    let domain = host.running("web");
    let (running, suspended) = (DomainState::Running, DomainState::Suspended);
    let failed = |effect, state, reason: fn(&SuspendFailure) -> bool| {
        failed_suspend(&host, &domain, effect, state, reason);
    };
    failed(Effect::FailBefore, running, |reason| matches!(reason, Hypervisor { .. }));
    failed(Effect::FailAfter, suspended, |reason| matches!(reason, Hypervisor { .. }));
    failed(Effect::FalseSuccess, running, |reason| matches!(reason, NotSuspended));
    failed(Effect::HangBefore, running, |reason| matches!(reason, DeadlinePassed));
    failed(Effect::HangAfter, suspended, |reason| matches!(reason, DeadlinePassed));
    failed(Effect::LoseBefore, running, |reason| matches!(reason, Hypervisor { .. }));
    failed(Effect::LoseAfter, suspended, |reason| matches!(reason, Hypervisor { .. }));
    for at in [0, 1, 40, 5000, 3 << 20] {
        failed(
            Effect::StreamFails { at },
            suspended,
            |reason| matches!(reason, Stream { source } if source.raw_os_error() == Some(5)),
        );
        failed(Effect::HelperDies { at }, suspended, |reason| matches!(reason, HelperDied));
    }
    let at = 100_000;
    failed(Effect::StreamHangs { at }, suspended, |reason| matches!(reason, DeadlinePassed));
    failed(Effect::GuestIgnores, running, |reason| matches!(reason, DeadlinePassed));
}

#[test]
fn a_guest_that_does_not_acknowledge_runs_on_and_the_request_is_withdrawn() {
    let host = start();
    let guest = GuestSpec::new(SEED, PAGES);
    let spec = DomainSpec { acknowledge_ms: 50, ..DomainSpec::new("web", uuid_of("web"), guest) };
    let domain = host.operator().create(spec, soon()).unwrap().identity;
    host.control().unpause(&domain, soon()).unwrap();
    host.operator().fail(Call::SuspendTo, Effect::GuestIgnores, soon()).unwrap();
    let failed = suspend_to(&host, &domain, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::NotAcknowledged), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    let tick = host.inspect(&domain).tick;
    host.operator().await_tick(&domain, tick + 50, soon()).unwrap();
    assert_eq!(host.control().state(&domain, soon()).unwrap(), DomainState::Running);
}

#[test]
fn a_guest_that_crashes_instead_is_reported_as_crashed() {
    let host = start();
    for (call, name) in [(Call::SuspendTo, "first"), (Call::SuspendOnly, "second")] {
        let domain = host.running(name);
        host.operator().fail(call, Effect::GuestCrashes, soon()).unwrap();
        let failed = match call {
            Call::SuspendTo => suspend_to(&host, &domain, soon().into()),
            _ => host.control().suspend_only(&domain, soon().into()),
        };
        let failed = failed.unwrap_err();
        let crash = ShutdownReason::Crash;
        assert!(
            matches!(failed.reason, SuspendFailure::GuestStopped { reason } if reason == crash)
        );
        assert_eq!(failed.state, Some(DomainState::ShutDown(crash)));
        let resumed = host.control().resume(&domain, soon()).unwrap_err();
        let state = DomainState::ShutDown(crash);
        assert!(
            matches!(resumed.reason, ResumeFailure::Refused(Refusal::WrongState { state: found }) if found == state)
        );
    }
}

#[test]
fn a_hung_suspend_ends_when_it_is_cancelled() {
    let host = start();
    let domain = host.running("web");
    for effect in [Effect::HangBefore, Effect::StreamHangs { at: 4096 }, Effect::HangAfter] {
        host.operator().fail(Call::SuspendTo, effect, soon()).unwrap();
        let cancel = CancelToken::new().unwrap();
        let until = Until { deadline: soon(), cancel: Some(&cancel) };
        let failed = std::thread::scope(|scope| {
            let call = scope.spawn(|| suspend_to(&host, &domain, until));
            cancel.cancel();
            call.join().unwrap().unwrap_err()
        });
        assert!(matches!(failed.reason, SuspendFailure::Cancelled), "{effect:?}: {failed}");
        if failed.state == Some(DomainState::Suspended) {
            host.control().resume(&domain, soon()).unwrap();
        }
        assert_eq!(host.control().state(&domain, soon()).unwrap(), DomainState::Running);
    }
}

#[test]
fn a_live_suspend_is_refused_and_the_guest_runs_on() {
    let host = start();
    let domain = host.running("web");
    let file = tempfile::tempfile_in(host.directory.path()).unwrap();
    let failed = host.control().suspend_to(&domain, file.as_fd(), true, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::LiveUnsupported), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    assert_eq!(file.metadata().unwrap().len(), 0);
}

#[test]
fn a_failed_resume_says_whether_the_domain_runs() {
    let host = start();
    let domain = host.running("web");
    let (running, suspended) = (DomainState::Running, DomainState::Suspended);
    for (effect, state) in [
        (Effect::FailBefore, suspended),
        (Effect::FailAfter, running),
        (Effect::FalseSuccess, suspended),
        (Effect::HangBefore, suspended),
        (Effect::HangAfter, running),
        (Effect::LoseBefore, suspended),
        (Effect::LoseAfter, running),
    ] {
        host.control().suspend_only(&domain, soon().into()).unwrap();
        host.operator().fail(Call::Resume, effect, soon()).unwrap();
        let failed = host.control().resume(&domain, until(effect)).unwrap_err();
        assert_eq!(failed.state, Some(state), "{effect:?}: {failed}");
        match (effect, &failed.reason) {
            (Effect::FalseSuccess, ResumeFailure::NotResumed) => {}
            (Effect::HangBefore | Effect::HangAfter, ResumeFailure::DeadlinePassed) => {}
            (_, ResumeFailure::Hypervisor { .. }) => {}
            _ => panic!("{effect:?}: {failed}"),
        }
        if state == suspended {
            host.control().resume(&domain, soon()).unwrap();
        }
        let tick = host.inspect(&domain).tick;
        host.operator().await_tick(&domain, tick + 2, soon()).unwrap();
    }
}

#[test]
fn a_failed_pause_unpause_destroy_or_rename_says_what_the_domain_is() {
    let (running, paused, gone) = (DomainState::Running, DomainState::Paused, DomainState::Gone);
    let host = start();
    let control = host.control();
    let effects = [
        (Effect::FailBefore, false),
        (Effect::FailAfter, true),
        (Effect::FalseSuccess, false),
        (Effect::HangBefore, false),
        (Effect::HangAfter, true),
        (Effect::LoseBefore, false),
        (Effect::LoseAfter, true),
    ];
    for (number, (effect, done)) in effects.into_iter().enumerate() {
        let domain = host.running(&format!("web-{number}"));
        let is_reason = |reason: &ChangeFailure| match effect {
            Effect::FalseSuccess => matches!(reason, ChangeFailure::NotDone),
            Effect::HangBefore | Effect::HangAfter => {
                matches!(reason, ChangeFailure::DeadlinePassed)
            }
            _ => matches!(reason, ChangeFailure::Hypervisor { .. }),
        };

        host.operator().fail(Call::Pause, effect, soon()).unwrap();
        let failed = control.pause(&domain, until(effect)).unwrap_err();
        assert!(is_reason(&failed.reason), "{effect:?}: {failed}");
        assert_eq!(failed.state, Some(if done { paused } else { running }), "{effect:?}");
        control.pause(&domain, soon()).unwrap();

        host.operator().fail(Call::Unpause, effect, soon()).unwrap();
        let failed = control.unpause(&domain, until(effect)).unwrap_err();
        assert!(is_reason(&failed.reason), "{effect:?}: {failed}");
        assert_eq!(failed.state, Some(if done { running } else { paused }), "{effect:?}");
        control.unpause(&domain, soon()).unwrap();

        let (old, new) = (format!("web-{number}"), format!("new-{number}"));
        host.operator().fail(Call::Rename, effect, soon()).unwrap();
        let failed = control.rename(&domain, &new, until(effect)).unwrap_err();
        match (effect, &failed.reason) {
            (Effect::FalseSuccess, RenameFailure::NotDone) => {}
            (Effect::HangBefore | Effect::HangAfter, RenameFailure::DeadlinePassed) => {}
            (_, RenameFailure::Hypervisor { .. }) => {}
            _ => panic!("{effect:?}: {failed}"),
        }
        let name = control.find(domain.domid, soon()).unwrap().unwrap().name;
        assert_eq!(name, Some(if done { new } else { old }), "{effect:?}");

        host.operator().fail(Call::Destroy, effect, soon()).unwrap();
        let failed = control.destroy(&domain, until(effect)).unwrap_err();
        assert!(is_reason(&failed.reason), "{effect:?}: {failed}");
        assert_eq!(failed.state, Some(if done { gone } else { running }), "{effect:?}");
        match control.destroy(&domain, soon()) {
            Ok(()) => assert!(!done, "{effect:?}"),
            Err(failed) => {
                assert!(matches!(failed.reason, ChangeFailure::Refused(Refusal::NoSuchDomain)));
            }
        }
    }
}

#[test]
fn a_failed_build_leaves_no_domain_whatever_was_built() {
    let host = start();
    let domain = host.running("web");
    drop(host.suspended_to(&domain, "memory"));
    let config = host.copied("web", "copy");
    let build = |until: Until<'_>| {
        let stream = host.open("memory");
        host.control().build_from(&config, stream.as_fd(), until)
    };
    let effects = [
        Effect::FailBefore,
        Effect::FailAfter,
        Effect::FalseSuccess,
        Effect::HangBefore,
        Effect::HangAfter,
        Effect::LoseBefore,
        Effect::LoseAfter,
        Effect::StreamFails { at: 1 << 20 },
        Effect::StreamHangs { at: 1 << 20 },
        Effect::HelperDies { at: 0 },
    ];
    for effect in effects {
        host.operator().fail(Call::BuildFrom, effect, soon()).unwrap();
        let failed = build(until(effect).into()).unwrap_err();
        match (effect, &failed.reason) {
            (Effect::FalseSuccess, BuildFailure::NotBuilt) => {}
            (
                Effect::HangBefore | Effect::HangAfter | Effect::StreamHangs { .. },
                BuildFailure::DeadlinePassed,
            ) => {}
            (Effect::StreamFails { .. }, BuildFailure::Stream { .. }) => {}
            (Effect::HelperDies { .. }, BuildFailure::HelperDied) => {}
            (
                Effect::FailBefore | Effect::FailAfter | Effect::LoseBefore | Effect::LoseAfter,
                BuildFailure::Hypervisor { .. },
            ) => {}
            _ => panic!("{effect:?}: {failed}"),
        }
        assert_eq!(failed.left, None, "{effect:?}: {failed}");
        // Its name is free again, and the saved domain is as it was.
        let built = build(soon().into()).unwrap().identity;
        host.control().destroy(&built, soon()).unwrap();
        assert_eq!(host.control().state(&domain, soon()).unwrap(), DomainState::Suspended);
    }
    // Another domain of the same name and uuid is not what the failed build has left.
    let standing = build(soon().into()).unwrap().identity;
    let failed = build(soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::NameTaken { .. }), "{failed}");
    assert_eq!(host.control().state(&standing, soon()).unwrap(), DomainState::Paused);
}

#[test]
fn a_build_whose_remains_cannot_be_removed_names_them() {
    let host = start();
    let domain = host.running("web");
    drop(host.suspended_to(&domain, "memory"));
    let config = host.copied("web", "copy");
    host.operator().fail(Call::BuildFrom, Effect::FailAfter, soon()).unwrap();
    host.operator().fail(Call::Destroy, Effect::FailBefore, soon()).unwrap();
    let stream = host.open("memory");
    let failed = host.control().build_from(&config, stream.as_fd(), soon().into()).unwrap_err();
    let left = failed.left.unwrap();
    assert_eq!(left.uuid, uuid_of("copy"));
    host.control().destroy(&left, soon()).unwrap();
}

#[test]
fn a_query_that_is_not_answered_leaves_the_state_unknown() {
    let host = start();
    let domain = host.running("web");
    let control = host.control();
    for effect in [Effect::FailBefore, Effect::LoseAfter] {
        host.operator().fail(Call::Find, effect, soon()).unwrap();
        let failed = control.find(domain.domid, soon()).unwrap_err();
        assert!(matches!(failed, QueryError::Hypervisor { .. }), "{failed}");
    }
    host.operator().fail(Call::Find, Effect::HangBefore, soon()).unwrap();
    let failed = control.find(domain.domid, until(Effect::HangBefore)).unwrap_err();
    assert!(matches!(failed, QueryError::DeadlinePassed { .. }), "{failed}");
    // What was suspended, and could not be looked at, is not said to be suspended.
    host.operator().fail(Call::Find, Effect::FailBefore, soon()).unwrap();
    let failed = control.suspend_only(&domain, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::Hypervisor { .. }), "{failed}");
    assert_eq!(failed.state, None);
    assert_eq!(control.state(&domain, soon()).unwrap(), DomainState::Suspended);
}

#[test]
fn a_host_that_dies_in_the_midst_is_not_taken_for_one_that_failed() {
    let host = start();
    let domain = host.running("web");
    host.operator().fail(Call::SuspendTo, Effect::HostDies { at: 1 << 20 }, soon()).unwrap();
    let began = Instant::now();
    let failed = suspend_to(&host, &domain, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::Hypervisor { .. }), "{failed}");
    assert_eq!(failed.state, None);
    assert!(began.elapsed() < SETTLE_LIMIT);
}

#[test]
fn an_effect_that_cannot_strike_is_refused() {
    let host = start();
    for (call, effect) in [
        (Call::Pause, Effect::StreamFails { at: 0 }),
        (Call::BuildFrom, Effect::GuestCrashes),
        (Call::Find, Effect::FalseSuccess),
    ] {
        assert!(host.operator().fail(call, effect, soon()).is_err(), "{call:?} {effect:?}");
    }
}

#[test]
fn a_domain_destroyed_while_it_is_streamed_is_gone_and_nobody_says_it_was_saved() {
    let host = start();
    let domain = host.running("web");
    let (reader, writer) = std::io::pipe().unwrap();
    let control = host.control();
    let call = std::thread::spawn(move || {
        control.suspend_to(&domain, writer.as_fd(), false, soon().into())
    });
    let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
    std::io::Read::read_exact(&mut reader, &mut [0; 5000]).unwrap();
    host.control().destroy(&domain, soon()).unwrap();
    std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    let failed = call.join().unwrap().unwrap_err();
    assert_eq!(failed.state, Some(DomainState::Gone), "{failed}");
    assert!(matches!(failed.reason, SuspendFailure::Refused(Refusal::NoSuchDomain)), "{failed}");
    assert!(
        check::crash_consistent(&[host.disk_tick(0, "web-a"), host.disk_tick(1, "web-b")]).is_ok()
    );
}

#[test]
fn a_domid_that_is_used_again_is_another_domain() {
    let host = start();
    let control = host.control();
    let old = host.running("old");
    control.destroy(&old, soon()).unwrap();
    let spec = DomainSpec::new("new", uuid_of("new"), GuestSpec::new(SEED, PAGES));
    let spec = DomainSpec { domid: Some(old.domid.get()), ..spec };
    let new = host.operator().create(spec, soon()).unwrap().identity;
    assert_eq!(new.domid, old.domid);
    assert_eq!(control.state(&old, soon()).unwrap(), DomainState::Gone);
    assert_eq!(control.settled(&old, soon()).unwrap(), DomainState::Gone);
    let failed = control.destroy(&old, soon()).unwrap_err();
    let found = uuid_of("new");
    assert!(
        matches!(failed.reason, ChangeFailure::Refused(Refusal::AnotherDomain { found: other }) if other == found)
    );
    assert_eq!(failed.state, Some(DomainState::Gone), "the one that was meant is");
    assert_eq!(control.state(&new, soon()).unwrap(), DomainState::Paused);
}
