//! Which image each disk gets.

use snapshot::control::DomainState;
use snapshot::disk::image::ImageFormat;
use snapshot::restore::{DiskRestore, RestoreCause};
use snapshot::{Observer, restore};

use super::saved::{Memory, image, saved};

#[test]
fn a_snapshot_without_memory_gives_overlays_and_a_configuration_and_builds_nothing() {
    const TEST: &str =
        "a_snapshot_without_memory_gives_overlays_and_a_configuration_and_builds_nothing";
    let Some(saved) = saved(TEST, Memory::No) else { return };
    let plan = saved.plan(saved.request("copy"));
    assert!(!plan.builds);
    let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
    assert_eq!((restored.domain, restored.state), (None, None));
    let configuration = &restored.configuration;
    assert_eq!(configuration["c_info"]["name"], "copy");
    for (at, disk) in restored.disks.iter().enumerate() {
        let overlay = saved.path(&format!("copy-{}", disk.vdev));
        assert!(overlay.exists() && disk.writable);
        assert_eq!(configuration["disks"][at]["pdev_path"], overlay.to_str().unwrap());
        assert_eq!(configuration["disks"][at]["format"], "qcow2");
    }
    saved.nothing_but_the_original();
}

#[test]
fn a_frozen_image_itself_is_only_given_read_only() {
    const TEST: &str = "a_frozen_image_itself_is_only_given_read_only";
    let Some(saved) = saved(TEST, Memory::No) else { return };
    let mut request = saved.request("copy");
    request.disks.insert("xvda".into(), DiskRestore::FrozenReadOnly);
    let plan = saved.plan(request);
    let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
    let (disk, entry) = (&restored.disks[0], &restored.configuration["disks"][0]);
    assert_eq!((disk.image.path.clone(), disk.writable), (saved.path("xvda"), false));
    assert!(entry.get("readwrite").is_none_or(|it| *it == 0), "{entry}");
    assert_eq!(restored.configuration["disks"][1]["readwrite"], 1);
}

#[test]
fn an_image_of_the_callers_has_to_hold_what_was_frozen() {
    const TEST: &str = "an_image_of_the_callers_has_to_hold_what_was_frozen";
    let Some(saved) = saved(TEST, Memory::Packed) else { return };
    let copy = saved.path("copy-of-xvda");
    std::fs::copy(saved.path("xvda"), &copy).unwrap();
    let mut request = saved.request("copy");
    request.disks.insert("xvda".into(), image(&copy, ImageFormat::Qcow2));
    let plan = saved.plan(request.clone());
    let restored = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap();
    assert_eq!(restored.state, Some(DomainState::Running));
    saved.ticks(&restored.domain.unwrap());

    let other = saved.path("copy-of-xvdb");
    std::fs::copy(saved.path("xvdb"), &other).unwrap();
    let mut request = saved.request("other");
    request.disks.insert("xvda".into(), image(&other, ImageFormat::Qcow2));
    let plan = saved.plan(request);
    let failed = saved.with(|access| restore(access, plan, &mut Observer::none())).unwrap_err();
    assert!(matches!(*failed.cause, RestoreCause::OtherContent { .. }), "{failed:?}");
    assert!(!saved.path("other-xvdb").exists());
    saved.frozen_is_as_it_was();
}
