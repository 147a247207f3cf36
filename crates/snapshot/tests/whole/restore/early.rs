//! Ended early, at any phase.

use std::cell::Cell;
use std::time::Duration;

use snapshot::control::CancelToken;
use snapshot::restore::{RestoreCause, RestoreMode};
use snapshot::{Observer, Phase, Progress, restore};

use super::saved::{Memory, saved};

#[test]
fn a_restore_that_is_cancelled_at_any_phase_leaves_nothing() {
    const TEST: &str = "a_restore_that_is_cancelled_at_any_phase_leaves_nothing";
    for memory in [Memory::Mapped, Memory::Stream] {
        let Some(saved) = saved(TEST, memory) else { return };
        let before = saved.files();
        for phase in
            [Phase::Plan, Phase::Verify, Phase::Prepare, Phase::Build, Phase::Apply, Phase::Start]
        {
            let plan = saved.plan(saved.request("copy"));
            let token = CancelToken::new().unwrap();
            let mut tell = |progress: &Progress| {
                if progress.phase == phase {
                    token.cancel();
                }
            };
            let mut observer = Observer::none().progress(&mut tell).cancel(&token);
            let failed = saved.with(|access| restore(access, plan, &mut observer)).unwrap_err();
            assert!(matches!(*failed.cause, RestoreCause::Cancelled), "{phase}: {failed:?}");
            assert_eq!(failed.phase, phase);
            assert!(failed.left.is_empty() && failed.domain.is_none(), "{phase}: {failed:?}");
            let _ = std::fs::remove_file(saved.path("copy-journal"));
            assert_eq!(saved.files(), before, "{phase}");
            saved.nothing_but_the_original();
        }
    }
}

#[test]
fn a_restore_that_is_cancelled_in_the_midst_of_the_stream_leaves_nothing() {
    const TEST: &str = "a_restore_that_is_cancelled_in_the_midst_of_the_stream_leaves_nothing";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let before = saved.files();
    let plan = saved.plan(saved.request("copy"));
    let (token, streamed) = (CancelToken::new().unwrap(), Cell::new(0));
    let mut tell = |progress: &Progress| {
        if progress.phase == Phase::Build && progress.done > 0 {
            streamed.set(progress.done);
            token.cancel();
        }
    };
    let mut observer = Observer::none().progress(&mut tell).cancel(&token);
    let failed = saved.with(|access| restore(access, plan, &mut observer)).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::Cancelled), "{failed:?}");
    assert!(streamed.get() > 0);
    std::fs::remove_file(saved.path("copy-journal")).unwrap();
    assert_eq!(saved.files(), before);
    saved.nothing_but_the_original();
}

#[test]
fn a_deadline_that_has_passed_ends_a_restore_before_anything_is_made() {
    const TEST: &str = "a_deadline_that_has_passed_ends_a_restore_before_anything_is_made";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let before = saved.files();
    let mut request = saved.request("copy");
    request.deadlines.total = Duration::ZERO;
    let plan = saved.plan(request);
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::DeadlinePassed), "{failed:?}");
    assert_eq!(saved.files(), before);

    let mut request = saved.request("copy");
    request.deadlines.build = Duration::ZERO;
    let plan = saved.plan(request);
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::DeadlinePassed), "{failed:?}");
    assert_eq!(failed.phase, Phase::Build);
    std::fs::remove_file(saved.path("copy-journal")).unwrap();
    assert_eq!(saved.files(), before);
    saved.nothing_but_the_original();
}

#[test]
fn the_original_is_untouched_by_a_restore_that_is_cancelled_before_it_is_destroyed() {
    const TEST: &str =
        "the_original_is_untouched_by_a_restore_that_is_cancelled_before_it_is_destroyed";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    for free_first in [false, true] {
        let mut request = saved.request("copy");
        request.mode = RestoreMode::Replace { domain: saved.web, free_first };
        let plan = saved.plan(request);
        let token = CancelToken::new().unwrap();
        let mut tell = |progress: &Progress| {
            if progress.phase == Phase::Replace {
                token.cancel();
            }
        };
        let mut observer = Observer::none().progress(&mut tell).cancel(&token);
        let failed = saved.with(|access| restore(access, plan, &mut observer)).unwrap_err();
        assert!(matches!(*failed.cause, RestoreCause::Cancelled), "{failed:?}");
        assert_eq!(failed.phase, Phase::Replace);
        std::fs::remove_file(saved.path("copy-journal")).unwrap();
        saved.nothing_but_the_original();
    }
}
