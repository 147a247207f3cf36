//! A connection to QEMU that is lost while the disks are frozen.

use snapshot::control::{DomainControl, DomainState};
use snapshot::recover::{RecoverError, Recovered};
use snapshot::save::{ImageAfter, MemoryFormat, SaveCause};
use snapshot::simulated::check;
use snapshot::{Observer, recover};

use crate::hosts::{has_qemu, soon, start};
use crate::proxy::{Fault, Proxy};
use crate::save_failures::assert_undone;

#[test]
fn a_transaction_that_qemu_never_got_leaves_disks_and_guest_as_they_were() {
    if !has_qemu("a_transaction_that_qemu_never_got_leaves_disks_and_guest_as_they_were") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let proxy = Proxy::start(request.qmp.as_ref().unwrap(), Fault::LoseRequest);
    request.qmp = Some(proxy.socket.clone());
    let failure = host.save(request).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    assert_undone(&host, &domain, &failure);
}

#[test]
fn a_lost_answer_is_asked_for_and_the_snapshot_is_whole() {
    if !has_qemu("a_lost_answer_is_asked_for_and_the_snapshot_is_whole") {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let proxy = Proxy::start(request.qmp.as_ref().unwrap(), Fault::LoseAnswer);
    request.qmp = Some(proxy.socket.clone());
    let snapshot = host.save(request).unwrap();
    let ticks = host.frozen_ticks(&snapshot);
    check::crash_consistent(&ticks).unwrap();
    assert_eq!(ticks[0], ticks[1], "the guest stood still");
    assert!(snapshot.config_applied, "{:?}", snapshot.warnings);
    host.assert_goes_on(&domain);
    assert_eq!(host.configured(&domain), [host.saved("a"), host.saved("b")]);
}

#[test]
fn while_nobody_can_ask_qemu_the_guest_is_held_and_a_recovery_completes_the_save_later() {
    if !has_qemu(
        "while_nobody_can_ask_qemu_the_guest_is_held_and_a_recovery_completes_the_save_later",
    ) {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut request = host.with_memory(host.overlaying(&domain), MemoryFormat::Mapped);
    let qmp = request.qmp.clone().unwrap();
    let proxy = Proxy::start(&qmp, Fault::LoseAnswerForGood);
    request.qmp = Some(proxy.socket.clone());
    let failure = host.save(request).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    assert_eq!(failure.domain, Some(DomainState::Suspended), "{failure}");
    assert!(failure.disks.iter().all(|disk| disk.image == ImageAfter::Unknown));
    // Released or not, the guardian lets nobody go on whose disks are unknown.
    assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Suspended);
    assert_eq!(host.saved_names(), ["a", "b", "memory", "xenstore"]);
    let journal = failure.journal.expect("there is something to recover");
    let recovered = recover(&mut host.access(), &journal, &mut Observer::none());
    assert!(matches!(recovered, Err(RecoverError::Disks(_))), "{recovered:?}");
    assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Suspended);
    std::os::unix::fs::symlink(&qmp, &proxy.socket).unwrap();
    let recovered = recover(&mut host.access(), &journal, &mut Observer::none()).unwrap();
    let Recovered::Saved(snapshot) = recovered else { panic!("{recovered:?}") };
    let ticks = host.frozen_ticks(&snapshot);
    assert_eq!(ticks[0], ticks[1], "the guest stood still");
    host.assert_goes_on(&domain);
    assert_eq!(host.configured(&domain), [host.saved("a"), host.saved("b")]);
}

#[test]
fn without_a_journal_a_guest_whose_disks_are_unknown_goes_on_and_nothing_is_removed() {
    if !has_qemu("without_a_journal_a_guest_whose_disks_are_unknown_goes_on_and_nothing_is_removed")
    {
        return;
    }
    let host = start();
    let domain = host.running_qcow2("web");
    let mut request = host.overlaying(&domain);
    let proxy = Proxy::start(request.qmp.as_ref().unwrap(), Fault::LoseAnswerForGood);
    (request.qmp, request.journal) = (Some(proxy.socket.clone()), None);
    let failure = host.save(request).unwrap_err();
    assert!(failure.disks.iter().all(|disk| disk.image == ImageAfter::Unknown));
    assert_eq!(failure.left.len(), 2, "{failure:?}");
    assert!(failure.journal.is_none());
    assert_eq!(host.saved_names(), ["a", "b"]);
    host.assert_goes_on(&domain);
}
