//! What was saved and is not what is there any more: no domain is created, and no file.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use snapshot::restore::{Depth, PlanRestoreError, RestoreCause, RestoreRefusal};
use snapshot::{Observer, Phase, plan_restore, restore};

use super::saved::{Memory, Saved, saved};

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut octet = [0];
    file.read_exact_at(&mut octet, at).unwrap();
    octet[0] ^= 0x10;
    file.write_all_at(&octet, at).unwrap();
}

/// A restore with this octet flipped is refused, and it is flipped back.
fn is_refused(saved: &Saved, path: &Path, at: u64) {
    flip(path, at);
    let before = saved.files();
    let plan = saved.plan(saved.request("copy"));
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    let what = format!("{} at {at}", path.display());
    assert!(matches!(*failed.cause, RestoreCause::Verify { .. }), "{what}: {failed:?}");
    assert_eq!(failed.phase, Phase::Verify);
    assert!(failed.domain.is_none() && failed.removed.is_empty(), "{what}: {failed:?}");
    assert_eq!(saved.files(), before, "{what}");
    flip(path, at);
}

#[test]
fn an_octet_flipped_anywhere_in_the_memory_image_is_found_before_anything_is_made() {
    const TEST: &str =
        "an_octet_flipped_anywhere_in_the_memory_image_is_found_before_anything_is_made";
    for memory in [Memory::Mapped, Memory::Packed, Memory::Stream] {
        let Some(saved) = saved(TEST, memory) else { return };
        let image = saved.path("memory");
        let octets = image.metadata().unwrap().len();
        // Header, records, types, pages and table, wherever they are.
        let mut places: Vec<u64> = (0..16).map(|part| octets * part / 16 + 9).collect();
        places.extend([40, 4096, 4200, octets - 1, octets - 40]);
        for at in places.into_iter().filter(|at| *at < octets) {
            is_refused(&saved, &image, at);
        }
        saved.nothing_but_the_original();
    }
}

#[test]
fn an_octet_flipped_in_the_xenstore_state_is_found_before_anything_is_made() {
    const TEST: &str = "an_octet_flipped_in_the_xenstore_state_is_found_before_anything_is_made";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let state = saved.path("xenstore-state");
    let octets = state.metadata().unwrap().len();
    for at in [0, 17, octets / 2, octets - 1] {
        is_refused(&saved, &state, at);
    }
    saved.nothing_but_the_original();
}

#[test]
fn a_frozen_image_that_was_written_is_refused() {
    const TEST: &str = "a_frozen_image_that_was_written_is_refused";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let before = saved.files();
    let frozen = saved.path("xvda");
    for at in [30, frozen.metadata().unwrap().len() - 5] {
        flip(&frozen, at);
        let refused = saved.with(|access| plan_restore(access, saved.request("copy"))).unwrap_err();
        let PlanRestoreError::Refused { refusals } = refused else { panic!("{refused}") };
        let tells = |it: &RestoreRefusal| {
            matches!(it, RestoreRefusal::FrozenChanged { .. } | RestoreRefusal::Chain { .. })
        };
        assert!(refusals.iter().all(tells) && !refusals.is_empty(), "{refusals:?}");
        flip(&frozen, at);
    }
    assert_eq!(saved.files(), before);
}

#[test]
fn at_full_depth_the_octets_of_a_frozen_image_count_and_not_its_times() {
    const TEST: &str = "at_full_depth_the_octets_of_a_frozen_image_count_and_not_its_times";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let frozen = saved.path("xvda");
    let at = frozen.metadata().unwrap().len() - 5;
    let full = || {
        let mut request = saved.request("copy");
        request.verify = Depth::Full;
        saved.plan(request)
    };
    flip(&frozen, at);
    let plan = full();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::Verify { .. }), "{failed:?}");
    flip(&frozen, at);
    let plan = full();
    let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
    saved.ticks(&restored.domain.unwrap());
    saved.frozen_is_as_it_was();
}

#[test]
fn what_changes_between_plan_and_restore_makes_the_plan_stale() {
    const TEST: &str = "what_changes_between_plan_and_restore_makes_the_plan_stale";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let plan = saved.plan(saved.request("copy"));
    let (memory, moved) = (saved.path("memory"), saved.path("moved"));
    fs::copy(&memory, &moved).unwrap();
    fs::rename(&moved, &memory).unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::StalePlan), "{failed:?}");

    let plan = saved.plan(saved.request("copy"));
    fs::write(saved.path("copy-xvda"), b"of another").unwrap();
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::Refused { .. }), "{failed:?}");
    assert_eq!(fs::read(saved.path("copy-xvda")).unwrap(), b"of another");
    saved.nothing_but_the_original();
}
