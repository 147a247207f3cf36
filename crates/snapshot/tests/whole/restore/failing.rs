//! Whatever fails before the commit point, nothing is left, and the original runs on.

use std::time::Duration;

use snapshot::control::{BuildFailure, DomainState};
use snapshot::restore::RestoreCause;
use snapshot::simulated::{Call, Effect};
use snapshot::{Observer, restore};

use super::saved::{Memory, Saved, saved, soon};

/// The restore fails, and all that it did is undone.
fn undone(saved: &Saved, call: Call, effect: Effect) -> RestoreCause {
    let before = saved.files();
    let mut request = saved.request("copy");
    if matches!(effect, Effect::HangBefore | Effect::HangAfter | Effect::StreamHangs { .. }) {
        request.deadlines.build = Duration::from_secs(2);
    }
    let plan = saved.plan(request);
    saved.operator().fail(call, effect, soon()).unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(failed.domain.is_none(), "{effect:?}: {failed}");
    assert!(failed.left.is_empty() && failed.restored.is_none(), "{effect:?}: {failed}");
    assert_eq!(failed.journal, None, "{effect:?}: there is nothing to recover");
    assert_eq!(failed.removed, [saved.path("copy-xvda"), saved.path("copy-xvdb")]);
    std::fs::remove_file(saved.path("copy-journal")).unwrap();
    assert_eq!(saved.files(), before, "{effect:?}");
    saved.nothing_but_the_original();
    *failed.cause
}

#[test]
fn whatever_fails_in_a_build_leaves_no_domain_and_no_file() {
    const TEST: &str = "whatever_fails_in_a_build_leaves_no_domain_and_no_file";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let at = 300_000;
    for effect in [
        Effect::FailBefore,
        Effect::FailAfter,
        Effect::FalseSuccess,
        Effect::LoseBefore,
        Effect::LoseAfter,
        Effect::StreamFails { at },
        Effect::HelperDies { at },
    ] {
        let cause = undone(&saved, Call::BuildFrom, effect);
        assert!(matches!(cause, RestoreCause::Build(_)), "{effect:?}: {cause:?}");
    }
    for effect in [Effect::HangBefore, Effect::HangAfter, Effect::StreamHangs { at }] {
        let cause = undone(&saved, Call::BuildFrom, effect);
        assert!(matches!(cause, RestoreCause::DeadlinePassed), "{effect:?}: {cause:?}");
    }
}

#[test]
fn a_new_domain_that_cannot_get_its_name_is_destroyed() {
    const TEST: &str = "a_new_domain_that_cannot_get_its_name_is_destroyed";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    for effect in [Effect::FailBefore, Effect::FalseSuccess, Effect::LoseBefore] {
        let cause = undone(&saved, Call::Rename, effect);
        assert!(matches!(cause, RestoreCause::Rename { .. }), "{effect:?}: {cause:?}");
    }
}

#[test]
fn a_new_domain_that_does_not_start_is_there_paused_under_its_name() {
    const TEST: &str = "a_new_domain_that_does_not_start_is_there_paused_under_its_name";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let plan = saved.plan(saved.request("copy"));
    saved.operator().fail(Call::Unpause, Effect::FailBefore, soon()).unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::Start { .. }), "{failed:?}");
    let restored = failed.restored.unwrap();
    assert_eq!(restored.state, Some(DomainState::Paused));
    assert_eq!(saved.domains()["copy"], DomainState::Paused);
    saved.is_as_saved(&restored.domain.unwrap());
    saved.ticks(&saved.web);
}

#[test]
fn a_domain_that_is_left_of_a_build_is_destroyed_even_if_that_fails_at_first() {
    const TEST: &str = "a_domain_that_is_left_of_a_build_is_destroyed_even_if_that_fails_at_first";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    saved.operator().fail(Call::Destroy, Effect::FailBefore, soon()).unwrap();
    let cause = undone(&saved, Call::Rename, Effect::FailBefore);
    assert!(matches!(cause, RestoreCause::Rename { .. }), "{cause:?}");
}

#[test]
fn a_stream_that_the_builder_does_not_take_is_the_builders_word_not_a_broken_pipe() {
    const TEST: &str =
        "a_stream_that_the_builder_does_not_take_is_the_builders_word_not_a_broken_pipe";
    let Some(saved) = saved(TEST, Memory::Packed) else { return };
    match undone(&saved, Call::BuildFrom, Effect::HelperDies { at: 4096 }) {
        RestoreCause::Build(error) => {
            assert!(matches!(error.reason, BuildFailure::HelperDied), "{error:?}");
        }
        cause => panic!("{cause:?}"),
    }
}

#[test]
fn a_query_that_is_not_answered_leaves_no_domain_and_no_file() {
    const TEST: &str = "a_query_that_is_not_answered_leaves_no_domain_and_no_file";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    for effect in [Effect::FailBefore, Effect::LoseBefore] {
        undone(&saved, Call::Find, effect);
    }
}

#[test]
fn a_host_that_dies_leaves_no_file_and_a_journal_that_has_something_to_say() {
    const TEST: &str = "a_host_that_dies_leaves_no_file_and_a_journal_that_has_something_to_say";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let plan = saved.plan(saved.request("copy"));
    saved.operator().fail(Call::BuildFrom, Effect::HostDies { at: 100_000 }, soon()).unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::Build(_)), "{failed:?}");
    assert_eq!(failed.journal, Some(saved.path("copy-journal")), "nobody knows what there is");
    assert!(!saved.path("copy-xvda").exists() && !saved.path("copy-xvdb").exists());
    saved.frozen_is_as_it_was();
}
