//! What is done about libxl's answers, against a stand-in that gives the same ones without Xen.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod fake;

use std::fs::File;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libxl_control::{LibraryAt, Libxl, LibxlOptions, LoadError};
use rustix::pipe::{PipeFlags, pipe_with};
use snapshot::control::conformance;
use snapshot::control::{
    BuildFailure, CancelToken, ChangeFailure, DomainControl, DomainIdentity, DomainKind,
    DomainState, GuardianNeeds, Refusal, ResumeFailure, ShutdownReason, SuspendFailure, Until,
};
use uuid::Uuid;
use xsclient::DomId;

use fake::{Host, configuration, in_words};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn scratch(host: &Host) -> File {
    let path = host.directory.path().join("stream");
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

fn state(host: &Host, domain: &DomainIdentity) -> DomainState {
    host.libxl.state(domain, soon()).unwrap()
}

#[test]
fn every_check_of_the_trait_is_passed() {
    let Some(mut host) = Host::start("every_check_of_the_trait_is_passed") else { return };
    conformance::check(&mut host).unwrap();
    assert_eq!(host.touched_zero(), 0, "domain 0 was touched");
}

#[test]
fn a_success_without_a_suspended_guest_is_none() {
    let Some(mut host) = Host::start("a_success_without_a_suspended_guest_is_none") else { return };
    let domain = host.domain();
    host.fault("rc 0 while running");
    let failed = host.libxl.suspend_to(&domain, scratch(&host).as_fd(), false, soon().into());
    let failed = failed.unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::NotSuspended), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    // libxl's own way to it: it loses the number when it takes the request back.
    host.fault("guest ignores");
    let failed = host.libxl.suspend_only(&domain, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::NotSuspended), "{failed}");
    host.fault("resume lies");
    host.libxl.suspend_only(&domain, soon().into()).unwrap();
    let failed = host.libxl.resume(&domain, soon()).unwrap_err();
    assert!(matches!(failed.reason, ResumeFailure::NotResumed), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Suspended));
    host.libxl.resume(&domain, soon()).unwrap();
    host.fault("pause lies");
    let failed = host.libxl.pause(&domain, soon()).unwrap_err();
    assert!(matches!(failed.reason, ChangeFailure::NotDone), "{failed}");
}

#[test]
fn a_guest_that_does_not_answer_is_told_from_one_that_stopped() {
    let Some(mut host) = Host::start("a_guest_that_does_not_answer_is_told_from_one_that_stopped")
    else {
        return;
    };
    let domain = host.domain();
    let file = scratch(&host);
    let suspend =
        |live| host.libxl.suspend_to(&domain, file.as_fd(), live, soon().into()).unwrap_err();
    host.fault("guest ignores");
    let failed = suspend(false);
    assert!(matches!(failed.reason, SuspendFailure::NotAcknowledged), "{failed}");
    host.fault("guest ignores");
    let failed = suspend(true);
    assert!(matches!(failed.reason, SuspendFailure::NotAcknowledged), "{failed}");
    host.fault("no live");
    let failed = suspend(true);
    assert!(matches!(failed.reason, SuspendFailure::LiveUnsupported), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    host.fault("guest crashes");
    let failed = suspend(false);
    let crash = ShutdownReason::Crash;
    assert!(
        matches!(failed.reason, SuspendFailure::GuestStopped { reason } if reason == crash),
        "{failed}"
    );
    assert_eq!(failed.state, Some(DomainState::ShutDown(crash)));
}

/// libxl leaves the request where the guest can still find it.
#[test]
fn a_cancelled_request_is_taken_back() {
    let Some(mut host) = Host::start("a_cancelled_request_is_taken_back") else { return };
    let domain = host.domain();
    host.fault("guest ignores");
    let until = Until::deadline(Instant::now() + Duration::from_millis(100));
    let failed = host.libxl.suspend_only(&domain, until).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::DeadlinePassed), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    assert_eq!(host.request(&domain), b"");
    assert_eq!(host.libxl.settled(&domain, soon()).unwrap(), DomainState::Running);
}

/// What is told of the domain must be true a moment later.
#[test]
fn a_guest_that_saw_the_request_before_it_was_cancelled_is_waited_for() {
    let Some(mut host) =
        Host::start("a_guest_that_saw_the_request_before_it_was_cancelled_is_waited_for")
    else {
        return;
    };
    let domain = host.domain();
    host.fault("guest sees it late");
    let cancel = CancelToken::new().unwrap();
    cancel_soon(&cancel);
    let until = Until { deadline: soon(), cancel: Some(&cancel) };
    let failed = host.libxl.suspend_only(&domain, until).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::Cancelled), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Suspended));
    host.libxl.resume(&domain, soon()).unwrap();
    assert_eq!(state(&host, &domain), DomainState::Running);
}

fn cancel_soon(cancel: &CancelToken) {
    let cancel = cancel.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        cancel.cancel();
    });
}

#[test]
fn a_dead_helper_is_told_from_a_stream_that_cannot_be_written_and_the_guest_goes_on_after_both() {
    let Some(mut host) = Host::start(
        "a_dead_helper_is_told_from_a_stream_that_cannot_be_written_and_the_guest_goes_on_after_both",
    ) else {
        return;
    };
    let domain = host.domain();
    host.fault("helper dies");
    let failed =
        host.libxl.suspend_to(&domain, scratch(&host).as_fd(), false, soon().into()).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::HelperDied), "{failed}");
    host.libxl.resume(&domain, soon()).unwrap();
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    drop(reader);
    let failed = host.libxl.suspend_to(&domain, writer.as_fd(), false, soon().into()).unwrap_err();
    let SuspendFailure::Stream { source } = &failed.reason else { panic!("{failed}") };
    assert_eq!(source.kind(), std::io::ErrorKind::BrokenPipe);
    host.libxl.resume(&domain, soon()).unwrap();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let failed = host.libxl.suspend_to(&domain, full.as_fd(), false, soon().into()).unwrap_err();
    let SuspendFailure::Stream { source } = &failed.reason else { panic!("{failed}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    host.libxl.resume(&domain, soon()).unwrap();
}

#[test]
fn domain_zero_and_reserved_numbers_never_reach_libxl() {
    let Some(host) = Host::start("domain_zero_and_reserved_numbers_never_reach_libxl") else {
        return;
    };
    let zero = DomainIdentity::new(DomId::DOM0, Uuid::nil());
    let failed = host.libxl.destroy(&zero, soon()).unwrap_err();
    assert!(matches!(failed.reason, ChangeFailure::Refused(Refusal::ControlDomain)), "{failed}");
    assert!(host.libxl.pause(&zero, soon()).is_err());
    assert!(host.libxl.suspend_only(&zero, soon().into()).is_err());
    assert!(host.libxl.resume(&zero, soon()).is_err());
    assert_eq!(host.touched_zero(), 0);
}

#[test]
fn pauses_of_others_are_undone_all_and_none_of_ours_counts_twice() {
    let Some(mut host) =
        Host::start("pauses_of_others_are_undone_all_and_none_of_ours_counts_twice")
    else {
        return;
    };
    let domain = host.domain();
    host.libxl.pause(&domain, soon()).unwrap();
    host.libxl.pause(&domain, soon()).unwrap();
    assert_eq!(host.pauses(&domain), 1);
    host.pause_by_hand(&domain);
    host.pause_by_hand(&domain);
    host.libxl.unpause(&domain, soon()).unwrap();
    assert_eq!((host.pauses(&domain), state(&host, &domain)), (0, DomainState::Running));
}

#[test]
fn a_dying_domain_is_waited_for_until_it_is_gone() {
    let Some(mut host) = Host::start("a_dying_domain_is_waited_for_until_it_is_gone") else {
        return;
    };
    let domain = host.domain();
    host.fault("dies slowly");
    host.libxl.destroy(&domain, soon()).unwrap();
    assert_eq!(state(&host, &domain), DomainState::Gone);
    let domain = host.domain();
    host.fault("destroy fails");
    let failed = host.libxl.destroy(&domain, soon()).unwrap_err();
    assert_eq!(failed.state, Some(DomainState::Running), "{failed}");
}

#[test]
fn a_failed_build_that_left_a_domain_is_removed() {
    let Some(mut host) = Host::start("a_failed_build_that_left_a_domain_is_removed") else {
        return;
    };
    let domain = host.domain();
    let mut file = scratch(&host);
    host.libxl.suspend_to(&domain, file.as_fd(), false, soon().into()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    let copy = configuration("copy", Uuid::from_u128(77));
    host.fault("built and failed");
    let failed = host.libxl.build_from(&copy, file.as_fd(), soon().into()).unwrap_err();
    assert!(
        failed.left.is_none() && matches!(failed.reason, BuildFailure::Hypervisor { .. }),
        "{}",
        in_words(&failed)
    );
    assert_eq!(host.libxl.list(soon()).unwrap().len(), 1);
    host.fault("config refused");
    std::io::Seek::rewind(&mut file).unwrap();
    let failed = host.libxl.build_from(&copy, file.as_fd(), soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::Configuration { .. }), "{failed}");
    assert!(in_words(&failed).contains("JSON"), "{}", in_words(&failed));
    let nameless = configuration("", Uuid::from_u128(77));
    let failed = host.libxl.build_from(&nameless, file.as_fd(), soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::Configuration { .. }), "{failed}");
}

/// An aborted restore says that it failed, not that it was aborted.
#[test]
fn a_cancelled_build_is_cancelled_and_leaves_nothing() {
    let Some(host) = Host::start("a_cancelled_build_is_cancelled_and_leaves_nothing") else {
        return;
    };
    let (reader, _writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let cancel = CancelToken::new().unwrap();
    cancel_soon(&cancel);
    let until = Until { deadline: soon(), cancel: Some(&cancel) };
    let copy = configuration("copy", Uuid::from_u128(77));
    let failed = host.libxl.build_from(&copy, reader.as_fd(), until).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::Cancelled), "{failed}");
    assert!(failed.left.is_none());
    assert_eq!(host.libxl.list(soon()).unwrap(), []);
}

#[test]
fn a_pvh_domain_is_one_though_libxl_says_hvm() {
    let Some(mut host) = Host::start("a_pvh_domain_is_one_though_libxl_says_hvm") else { return };
    let domain = host.create("web", DomainKind::Pvh);
    let view = host.libxl.find(domain.domid, soon()).unwrap().unwrap();
    assert_eq!((view.kind, view.name.as_deref()), (DomainKind::Pvh, Some("web")));
}

#[test]
fn two_calls_at_once_have_contexts_of_their_own_and_a_deadline_ends_only_one() {
    let Some(mut host) =
        Host::start("two_calls_at_once_have_contexts_of_their_own_and_a_deadline_ends_only_one")
    else {
        return;
    };
    let (slow, other) = (host.domain(), host.domain());
    // Nobody reads from either pipe at first.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let (other_reader, other_writer) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let libxl = host.libxl.clone();
    let second =
        thread::spawn(move || libxl.suspend_to(&other, other_writer.as_fd(), false, soon().into()));
    let until = Until::deadline(Instant::now() + Duration::from_millis(200));
    let failed = host.libxl.suspend_to(&slow, writer.as_fd(), false, until).unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::DeadlinePassed), "{failed}");
    drop(writer);
    drop(reader);
    let mut other_reader = File::from(other_reader);
    std::io::copy(&mut other_reader, &mut std::io::sink()).unwrap();
    second.join().unwrap().unwrap();
    assert_eq!(state(&host, &other), DomainState::Suspended);
    assert!(host.contexts() >= 2);
    let contexts = host.contexts();
    for _ in 0..5 {
        state(&host, &other);
    }
    assert_eq!(host.contexts(), contexts, "contexts are used again");
}

#[test]
fn a_query_that_hangs_ends_at_its_deadline_and_the_next_one_works() {
    let Some(mut host) =
        Host::start("a_query_that_hangs_ends_at_its_deadline_and_the_next_one_works")
    else {
        return;
    };
    let domain = host.domain();
    host.fault("info hangs");
    let until = Instant::now() + Duration::from_millis(100);
    assert!(host.libxl.find(domain.domid, until).is_err());
    assert!(host.libxl.find(domain.domid, soon()).unwrap().is_some());
}

#[test]
fn our_children_are_not_reaped() {
    let Some(mut host) = Host::start("our_children_are_not_reaped") else { return };
    let domain = host.domain();
    let mut child = Command::new("true").spawn().unwrap();
    host.libxl.suspend_only(&domain, soon().into()).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(host.reaps_others(), 0, "a context reaps the children of the whole process");
}

#[test]
fn a_guardian_waits_for_a_guest_that_has_seen_the_request() {
    let Some(mut host) = Host::start("a_guardian_waits_for_a_guest_that_has_seen_the_request")
    else {
        return;
    };
    let domain = host.domain();
    let needs = host.libxl.guardian(&domain).unwrap();
    assert_eq!(needs.control, Libxl::CONTROL_NAME);
    assert_eq!(needs.address.as_deref(), host.library_path().to_str());
    let socket = host.directory.path().join("xenstore");
    assert_eq!(needs.environment.get("XENSTORED_PATH").map(String::as_str), socket.to_str());
    let needs = GuardianNeeds::from_json(&needs.to_json()).unwrap();
    let guardian = Libxl::from_guardian(&needs).unwrap();
    // A saver asks, the guest sees it, the saver dies, and the guest suspends.
    host.set_request(&domain, b"suspend");
    host.set_request(&domain, b"");
    thread::scope(|scope| {
        let settled = scope.spawn(|| guardian.settled(&domain, soon()));
        thread::sleep(Duration::from_millis(300));
        host.shut_down(&domain, 2);
        assert_eq!(settled.join().unwrap().unwrap(), DomainState::Suspended);
    });
    guardian.resume(&domain, soon()).unwrap();
    // One that has not seen it may still.
    host.set_request(&domain, b"suspend");
    assert!(host.libxl.settled(&domain, Instant::now() + Duration::from_millis(300)).is_err());
}

#[test]
fn a_libxl_without_a_hypervisor_says_so() {
    let Some(host) = Host::start("a_libxl_without_a_hypervisor_says_so") else { return };
    host.fault("no context");
    let mut options = LibxlOptions::default();
    options.library = LibraryAt::File(host.library_path());
    let error = Libxl::open(options).unwrap_err();
    assert!(matches!(error, LoadError::Unusable { .. }), "{error}");
    assert!(in_words(&error).contains("privileged command interface"), "{}", in_words(&error));
}
