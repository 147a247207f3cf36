//! In the place of the domain that was saved.

use std::collections::BTreeMap;

use snapshot::control::{DomainControl, DomainState};
use snapshot::disk::image::ChainRefusal;
use snapshot::restore::{DiskRestore, NewIdentity, RestoreMode, RestoreRefusal, RestoreRequest};
use snapshot::restore::{PlanRestoreError, RestoreCause};
use snapshot::simulated::{Call, Effect};
use snapshot::{Observer, Phase, Progress, plan_restore, restore};

use super::saved::{Memory, Original, Saved, saved, saved_and, soon};

fn replacing(saved: &Saved, free_first: bool) -> RestoreRequest {
    let mut request = saved.request("again");
    request.identity = NewIdentity::default();
    request.mode = RestoreMode::Replace { domain: saved.web, free_first };
    request
}

fn only_web(state: DomainState) -> BTreeMap<String, DomainState> {
    BTreeMap::from([("web".to_owned(), state)])
}

#[test]
fn a_restored_domain_takes_the_place_name_and_uuid_of_the_original() {
    const TEST: &str = "a_restored_domain_takes_the_place_name_and_uuid_of_the_original";
    for free_first in [false, true] {
        let Some(saved) = saved(TEST, Memory::Packed) else { return };
        let plan = saved.plan(replacing(&saved, free_first));
        let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
        let again = restored.domain.unwrap();
        assert_eq!(again.uuid, saved.web.uuid);
        assert_ne!(again.domid, saved.web.domid);
        assert_eq!(saved.domains(), only_web(DomainState::Running));
        saved.ticks(&again);
        saved.frozen_is_as_it_was();
    }
}

#[test]
fn images_that_were_written_since_are_never_given_to_a_guest_with_older_memory() {
    const TEST: &str =
        "images_that_were_written_since_are_never_given_to_a_guest_with_older_memory";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    for free_first in [false, true] {
        let mut request = replacing(&saved, free_first);
        request.disks.values_mut().for_each(|disk| *disk = DiskRestore::AdoptActive);
        let refused = saved.with(|access| plan_restore(access, request)).unwrap_err();
        let PlanRestoreError::Refused { refusals } = refused else { panic!("{refused}") };
        let written = |it: &RestoreRefusal| match it {
            RestoreRefusal::ActiveChanged { .. } => free_first,
            RestoreRefusal::Chain { source, .. } => {
                !free_first && matches!(source, ChainRefusal::Written { .. })
            }
            _ => false,
        };
        assert!(refusals.iter().all(written) && refusals.len() >= 2, "{refusals:?}");
    }
    saved.nothing_but_the_original();
}

#[test]
fn images_of_a_domain_that_stood_still_are_adopted_once_it_is_destroyed() {
    const TEST: &str = "images_of_a_domain_that_stood_still_are_adopted_once_it_is_destroyed";
    for original in [Original::Paused, Original::Destroyed] {
        let Some(saved) = saved_and(TEST, Memory::Mapped, original) else { return };
        let mut request = match original {
            Original::Destroyed => saved.request("copy"),
            _ => replacing(&saved, true),
        };
        request.disks.values_mut().for_each(|disk| *disk = DiskRestore::AdoptActive);
        let plan = saved.plan(request);
        let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
        let images: Vec<_> = restored.disks.iter().map(|disk| disk.image.path.clone()).collect();
        assert_eq!(images, [saved.path("xvda-1"), saved.path("xvdb-1")]);
        saved.ticks(&restored.domain.unwrap());
        saved.frozen_is_as_it_was();
    }
}

#[test]
fn a_domain_that_cannot_be_destroyed_runs_on_and_the_new_one_is_gone() {
    const TEST: &str = "a_domain_that_cannot_be_destroyed_runs_on_and_the_new_one_is_gone";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    for effect in [Effect::FailBefore, Effect::LoseBefore, Effect::FalseSuccess] {
        let plan = saved.plan(replacing(&saved, false));
        saved.operator().fail(Call::Destroy, effect, soon()).unwrap();
        let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
        assert_eq!(failed.replaced, Some(DomainState::Running), "{failed}");
        assert!(failed.restored.is_none() && failed.domain.is_none(), "{failed}");
        assert!(failed.journal.is_none() && failed.left.is_empty(), "{failed}");
        assert_eq!(failed.removed, [saved.path("again-xvda"), saved.path("again-xvdb")]);
        saved.nothing_but_the_original();
        std::fs::remove_file(saved.path("again-journal")).unwrap();
    }
}

#[test]
fn a_destroy_that_fails_after_it_was_done_is_done() {
    const TEST: &str = "a_destroy_that_fails_after_it_was_done_is_done";
    for effect in [Effect::FailAfter, Effect::LoseAfter] {
        let Some(saved) = saved(TEST, Memory::Mapped) else { return };
        let plan = saved.plan(replacing(&saved, false));
        saved.operator().fail(Call::Destroy, effect, soon()).unwrap();
        let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
        assert_eq!(saved.domains(), only_web(DomainState::Running));
        saved.ticks(&restored.domain.unwrap());
    }
}

#[test]
fn what_fails_once_the_original_is_destroyed_leaves_the_new_one_there_paused() {
    const TEST: &str = "what_fails_once_the_original_is_destroyed_leaves_the_new_one_there_paused";
    for call in [Call::Rename, Call::Unpause] {
        let Some(saved) = saved(TEST, Memory::Mapped) else { return };
        let plan = saved.plan(replacing(&saved, false));
        saved.operator().fail(call, Effect::FailBefore, soon()).unwrap();
        let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
        let restored = failed.restored.as_ref().unwrap();
        let (domain, state) = failed.domain.unwrap();
        assert_eq!(restored.domain, Some(domain));
        assert_eq!(state, Some(DomainState::Paused));
        assert_eq!(failed.replaced, Some(DomainState::Gone));
        assert_eq!(failed.journal, Some(saved.path("again-journal")));
        match call {
            Call::Rename => assert!(matches!(*failed.cause, RestoreCause::Rename { .. })),
            _ => assert!(matches!(*failed.cause, RestoreCause::Start { .. })),
        }
        let domains = saved.domains();
        assert_eq!(domains, BTreeMap::from([(restored.name.clone(), DomainState::Paused)]));
        assert_eq!(restored.name == "web", call == Call::Unpause);
        // Only a name and a start are missing.
        saved.is_as_saved(&domain);
        saved.control().rename(&domain, "web", soon()).unwrap();
        saved.control().unpause(&domain, soon()).unwrap();
        saved.ticks(&domain);
        saved.frozen_is_as_it_was();
    }
}

#[test]
fn a_build_that_fails_after_the_original_was_freed_says_that_neither_is_there() {
    const TEST: &str = "a_build_that_fails_after_the_original_was_freed_says_that_neither_is_there";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let plan = saved.plan(replacing(&saved, true));
    saved.operator().fail(Call::BuildFrom, Effect::HelperDies { at: 100_000 }, soon()).unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert_eq!(failed.replaced, Some(DomainState::Gone));
    assert!(failed.domain.is_none() && failed.restored.is_none());
    assert!(saved.domains().is_empty());
    saved.frozen_is_as_it_was();
}

#[test]
fn the_original_is_not_given_up_for_a_new_domain_that_is_not_paused_any_more() {
    const TEST: &str = "the_original_is_not_given_up_for_a_new_domain_that_is_not_paused_any_more";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let plan = saved.plan(replacing(&saved, false));
    let new = |control: &dyn DomainControl| {
        let found = control.list(soon()).unwrap().into_iter();
        found.map(|view| view.identity).find(|domain| *domain != saved.web).unwrap()
    };
    let mut tell = |progress: &Progress| {
        if progress.phase == Phase::Replace {
            let control = saved.control();
            control.unpause(&new(&control), soon()).unwrap();
        }
    };
    let mut observer = Observer::none().progress(&mut tell);
    let failed = saved.with(|access| restore(access, plan, &mut observer)).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::State { .. }), "{failed:?}");
    std::fs::remove_file(saved.path("again-journal")).unwrap();
    saved.nothing_but_the_original();
}
