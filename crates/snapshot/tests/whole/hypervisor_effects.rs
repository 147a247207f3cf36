//! Every way in which a call of the hypervisor can go wrong: what is said of the domain is what a query shows.

use std::time::Duration;

use snapshot::control::{DomainControl, DomainIdentity, DomainState, ShutdownReason};
use snapshot::recover::Recovered;
use snapshot::save::{After, SaveFailure, SaveRequest};
use snapshot::simulated::{Call, Effect};
use snapshot::{Observer, Phase, Progress, Snapshot, plan_save, recover, save};

use crate::hosts::{TestHost, soon, start};
use crate::save_failures::assert_undone;

/// Saves with a call that fails as told, in the phase that is told; before everything without one.
fn save_with(
    host: &TestHost,
    request: SaveRequest,
    (call, effect): (Call, Effect),
    at: Option<Phase>,
) -> Result<Snapshot, Box<SaveFailure>> {
    let mut access = host.access();
    access.guardian = None;
    let plan = plan_save(&mut access, request).unwrap();
    let fail = || host.operator().fail(call, effect, soon()).unwrap();
    if at.is_none() {
        fail();
    }
    let mut is_to_fail = true;
    let mut progress = |progress: &Progress| {
        if Some(progress.phase) == at && is_to_fail {
            is_to_fail = false;
            fail();
        }
    };
    save(&mut access, plan, &mut Observer::none().progress(&mut progress))
}

fn assert_is(host: &TestHost, domain: &DomainIdentity, told: Option<DomainState>) {
    assert_eq!(Some(host.control.state(domain, soon()).unwrap()), told);
}

#[test]
fn a_suspend_without_memory_that_goes_wrong_is_undone_whatever_it_said() {
    for effect in [
        Effect::FailBefore,
        Effect::FailAfter,
        Effect::FalseSuccess,
        Effect::LoseBefore,
        Effect::LoseAfter,
        Effect::HangBefore,
        Effect::HangAfter,
        Effect::GuestIgnores,
    ] {
        let host = start();
        let domain = host.running("web");
        let mut request = host.copying(&domain);
        request.deadlines.suspend = Duration::from_millis(300);
        let saved = save_with(&host, request, (Call::SuspendOnly, effect), None);
        let Err(failure) = saved else { panic!("{effect:?}: {saved:?}") };
        assert_eq!(failure.phase, Phase::Suspend, "{effect:?}: {failure}");
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn a_guest_that_dies_of_a_suspend_without_memory_is_told_to_be_dead() {
    let host = start();
    let domain = host.running("web");
    let fault = (Call::SuspendOnly, Effect::GuestCrashes);
    let failure = save_with(&host, host.copying(&domain), fault, None).unwrap_err();
    let crashed = DomainState::ShutDown(ShutdownReason::Crash);
    assert_eq!(failure.domain, Some(crashed), "{failure}");
    assert_is(&host, &domain, Some(crashed));
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
}

/// Whatever was answered: a snapshot says how the domain is; a failure has the snapshot, and a recovery brings the domain to what
/// was asked for.
fn assert_ends_as(
    host: &TestHost,
    domain: &DomainIdentity,
    saved: Result<Snapshot, Box<SaveFailure>>,
    wanted: DomainState,
) -> bool {
    let is_saved = match saved {
        Ok(snapshot) => {
            assert_eq!(snapshot.state_after, Some(wanted));
            true
        }
        Err(failure) => {
            assert_is(host, domain, failure.domain);
            let snapshot = failure.snapshot.as_ref().expect("all was saved");
            assert_eq!(snapshot.state_after, failure.domain);
            assert_eq!(host.frozen_ticks(snapshot).len(), 2);
            let journal = failure.journal.as_ref().expect("there is something to recover");
            let recovered = recover(&mut host.access(), journal, &mut Observer::none()).unwrap();
            assert!(matches!(recovered, Recovered::Saved(_)), "{recovered:?}");
            false
        }
    };
    assert_is(host, domain, Some(wanted));
    assert_eq!(host.saved_names(), ["a", "b"]);
    is_saved
}

#[test]
fn a_resume_is_believed_by_what_the_domain_does_and_not_by_its_answer() {
    for (effect, is_done) in [
        (Effect::FailBefore, false),
        (Effect::FailAfter, true),
        (Effect::FalseSuccess, false),
        (Effect::LoseBefore, false),
        (Effect::LoseAfter, true),
    ] {
        let host = start();
        let domain = host.running("web");
        let saved = save_with(&host, host.copying(&domain), (Call::Resume, effect), None);
        let is_saved = assert_ends_as(&host, &domain, saved, DomainState::Running);
        assert_eq!(is_saved, is_done, "{effect:?}");
        host.assert_goes_on(&domain);
    }
}

#[test]
fn a_pause_is_believed_by_what_the_domain_does_and_not_by_its_answer() {
    for (effect, is_done) in [
        (Effect::FailBefore, false),
        (Effect::FailAfter, true),
        (Effect::FalseSuccess, false),
        (Effect::LoseBefore, false),
        (Effect::LoseAfter, true),
    ] {
        let host = start();
        let domain = host.running("web");
        let mut request = host.copying(&domain);
        request.after = After::LeavePaused;
        let saved = save_with(&host, request, (Call::Pause, effect), None);
        let is_saved = assert_ends_as(&host, &domain, saved, DomainState::Paused);
        assert_eq!(is_saved, is_done, "{effect:?}");
        host.control.unpause(&domain, soon()).unwrap();
        host.assert_goes_on(&domain);
    }
}

#[test]
fn a_query_that_fails_before_the_pivot_leaves_nothing_and_the_guest_goes_on() {
    for effect in [Effect::FailBefore, Effect::LoseBefore, Effect::LoseAfter] {
        for phase in [Phase::Plan, Phase::Suspend] {
            let host = start();
            let domain = host.running("web");
            let fault = (Call::Find, effect);
            let saved = save_with(&host, host.copying(&domain), fault, Some(phase));
            let Err(failure) = saved else { panic!("{effect:?} {phase}: {saved:?}") };
            assert_is(&host, &domain, failure.domain);
            assert_eq!(host.saved_names(), <[&str; 0]>::default(), "{effect:?} {phase}");
            if phase == Phase::Suspend {
                assert_undone(&host, &domain, &failure);
            } else {
                assert!(!host.path("journal").exists());
                host.assert_goes_on(&domain);
            }
        }
    }
}

#[test]
fn a_query_that_fails_after_the_resume_is_asked_again() {
    for effect in [Effect::FailBefore, Effect::LoseAfter] {
        let host = start();
        let domain = host.running("web");
        let fault = (Call::Find, effect);
        let saved = save_with(&host, host.copying(&domain), fault, Some(Phase::After));
        assert!(assert_ends_as(&host, &domain, saved, DomainState::Running), "{effect:?}");
        host.assert_goes_on(&domain);
    }
}

#[test]
fn a_resume_that_fails_while_a_save_is_undone_is_tried_again() {
    for effect in [Effect::FailBefore, Effect::FalseSuccess, Effect::LoseBefore] {
        let host = start();
        let domain = host.running("web");
        host.operator().fail(Call::Resume, effect, soon()).unwrap();
        let fault = (Call::SuspendOnly, Effect::FailAfter);
        let failure = save_with(&host, host.copying(&domain), fault, None).unwrap_err();
        assert_undone(&host, &domain, &failure);
    }
}

#[test]
fn a_query_that_hangs_ends_and_the_guest_goes_on() {
    let host = start();
    let domain = host.running("web");
    let fault = (Call::Find, Effect::HangBefore);
    let saved = save_with(&host, host.copying(&domain), fault, Some(Phase::Suspend));
    assert_undone(&host, &domain, &saved.unwrap_err());
}
