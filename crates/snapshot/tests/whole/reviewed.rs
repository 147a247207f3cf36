//! What others do with a domain while it is saved, and what a save and its recovery must not take for their own then.

use std::time::{Duration, Instant};

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceImage, Replacement};
use snapshot::control::{DomainControl, DomainIdentity, DomainState, Until};
use snapshot::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskSnapshot, DiskSnapshotter,
    PlanError, PrepareError, RollbackReport,
};
use snapshot::save::{After, DiskRequestAction, MemoryFormat, SaveCause, SaveFailure, SaveRequest};
use snapshot::{CreationLog, Observer, Phase, Progress, Snapshot, plan_save, save};

use crate::hosts::{TestHost, connect, soon, start};

/// Saves, and does something once, when a phase begins.
fn save_with(
    host: &TestHost,
    request: SaveRequest,
    phase: Phase,
    mut act: impl FnMut(),
) -> Result<Snapshot, Box<SaveFailure>> {
    let mut access = host.access();
    let plan = plan_save(&mut access, request).unwrap();
    let mut progress = |progress: &Progress| {
        if progress.phase == phase && progress.done == 0 {
            act();
        }
    };
    save(&mut access, plan, &mut Observer::none().progress(&mut progress))
}

fn whole(host: &TestHost, domain: &DomainIdentity) -> SaveRequest {
    host.with_memory(host.copying(domain), MemoryFormat::Mapped)
}

#[test]
fn a_guest_that_somebody_else_has_suspended_meanwhile_is_left_to_them() {
    for with_memory in [false, true] {
        let host = start();
        let domain = host.running("web");
        let request = if with_memory { whole(&host, &domain) } else { host.copying(&domain) };
        let failure = save_with(&host, request, Phase::Suspend, || {
            host.control.suspend_only(&domain, Until::deadline(soon())).unwrap();
        });
        let failure = failure.unwrap_err();
        assert!(matches!(failure.cause, SaveCause::Suspend(_)), "{failure:?}");
        assert_eq!(failure.domain, Some(DomainState::Suspended), "{failure:?}");
        assert_eq!(host.control.state(&domain, soon()).unwrap(), DomainState::Suspended);
        assert_eq!(host.saved_names(), <[&str; 0]>::default());
        assert_eq!(failure.journal, None, "all was undone");
    }
}

#[test]
fn a_guest_that_somebody_else_lets_go_on_before_its_disks_are_frozen_has_no_snapshot() {
    for phase in [Phase::Capture, Phase::Pivot] {
        let host = start();
        let domain = host.running("web");
        let failure = save_with(&host, whole(&host, &domain), phase, || {
            host.control.resume(&domain, soon()).unwrap();
        });
        let failure = failure.unwrap_err();
        let found = DomainState::Running;
        assert!(
            matches!(failure.cause, SaveCause::WentOn { state } if state == found),
            "{failure}"
        );
        assert_eq!(host.saved_names(), <[&str; 0]>::default());
        host.assert_goes_on(&domain);
    }
}

#[test]
fn a_paused_domain_that_somebody_unpauses_has_no_snapshot() {
    let host = start();
    let domain = host.running("web");
    host.control.pause(&domain, soon()).unwrap();
    let failure = save_with(&host, host.copying(&domain), Phase::Capture, || {
        host.control.unpause(&domain, soon()).unwrap();
    });
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::WentOn { .. }), "{failure}");
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

#[test]
fn a_guest_that_went_on_after_it_was_saved_is_not_destroyed() {
    let host = start();
    let domain = host.running("web");
    let mut request = whole(&host, &domain);
    request.after = After::Destroy;
    let failure = save_with(&host, request, Phase::After, || {
        host.control.resume(&domain, soon()).unwrap();
    });
    let failure = failure.unwrap_err();
    assert!(failure.snapshot.is_some() && matches!(failure.cause, SaveCause::After { .. }));
    host.assert_goes_on(&domain);
}

#[test]
fn the_longest_time_there_is_is_no_limit() {
    let host = start();
    let domain = host.running("web");
    let mut request = whole(&host, &domain);
    request.deadlines.total = Duration::MAX;
    request.deadlines.disks = Duration::MAX;
    request.deadlines.suspend = Duration::MAX;
    host.save(request).unwrap();
    host.assert_goes_on(&domain);
}

#[test]
fn a_disk_that_moves_to_another_image_before_the_guest_stands_still_is_not_forgotten() {
    let host = start();
    let domain = host.running("web");
    let other = host.path("other");
    std::fs::File::create_new(&other).unwrap();
    let failure = save_with(&host, whole(&host, &domain), Phase::Suspend, || {
        let mut client = connect(host.path("xenstore"))(soon()).unwrap();
        let image = Image::new(other.to_str().unwrap(), DiskFormat::Raw);
        let mut replace = ReplaceImage::new(&mut client, &host.templates).deadline(soon());
        replace.replace(domain.domid, &[Replacement::new("xvdb", image)]).unwrap();
    });
    let failure = failure.unwrap_err();
    assert!(matches!(failure.cause, SaveCause::StalePlan { .. }), "{failure}");
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

/// A storage that cannot say what became of a snapshot.
#[derive(Debug)]
struct Storage;

fn lost() -> DiskFailure {
    DiskFailure::Hook("the storage does not answer".into())
}

impl DiskSnapshotter for Storage {
    fn describe(&self) -> Description {
        Description {
            kind: "storage",
            disks: vec![("xvdb".into(), DiskAction::Hook { name: "storage".into() })],
            atomic: true,
            live: true,
            reversible: false,
        }
    }

    fn plan(&mut self, _deadline: Instant) -> Result<DiskPlan, PlanError> {
        Ok(DiskPlan { disks: Vec::new() })
    }

    fn prepare(
        &mut self,
        _log: &mut dyn CreationLog,
        _deadline: Instant,
    ) -> Result<(), PrepareError> {
        Ok(())
    }

    fn commit(&mut self, _deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        Err(CommitError::Unknown { source: lost(), asked: Box::new(lost()) })
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        RollbackReport::default()
    }
}

#[test]
fn as_long_as_it_is_not_known_whether_disks_are_frozen_the_others_snapshots_are_kept() {
    let host = start();
    let domain = host.running("web");
    let mut request = whole(&host, &domain);
    request.disks[1].action = DiskRequestAction::Hook { name: "storage".into() };
    let mut access = host.access();
    access.hooks.insert("storage".into(), Box::new(Storage));
    let plan = plan_save(&mut access, request).unwrap();
    let failure = save(&mut access, plan, &mut Observer::none()).unwrap_err();
    assert!(matches!(failure.cause, SaveCause::Commit { .. }), "{failure:?}");
    assert!(failure.journal.is_some() && failure.domain == Some(DomainState::Suspended));
    // Whoever completes it refers to all of them.
    assert_eq!(host.saved_names(), ["a", "memory", "xenstore"]);
}
