//! What speaks against a restore is told all at once, and nothing is made.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use snapshot::control::DomainIdentity;
use snapshot::disk::DiskAction;
use snapshot::disk::image::ImageFormat;
use snapshot::manifest::Location;
use snapshot::restore::{
    DiskRestore, NewIdentity, NicChange, PlanRestoreError, RestoreMode, RestoreRefusal,
    RestoreRequest,
};
use snapshot::{Target, plan_restore};
use uuid::Uuid;
use xsclient::DomId;

use super::saved::{Memory, Saved, saved};

fn refusals(saved: &Saved, request: RestoreRequest) -> Vec<RestoreRefusal> {
    let before = saved.files();
    let refused = saved.with(|access| plan_restore(access, request)).unwrap_err();
    assert_eq!(saved.files(), before);
    match refused {
        PlanRestoreError::Refused { refusals } => refusals,
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_that_speaks_against_a_restore_is_told_at_once() {
    const TEST: &str = "everything_that_speaks_against_a_restore_is_told_at_once";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let mut request = saved.request("copy");
    request.identity = NewIdentity::default();
    let overlay = Target::Path(saved.path("copy-xvdb"));
    request.disks.remove("xvda");
    request.disks.insert("xvdz".into(), DiskRestore::FrozenReadOnly);
    std::fs::write(saved.path("copy-xvdb"), b"of another").unwrap();
    request.journal = Some(overlay);
    request.nics.insert(7, NicChange::default());
    let memory = request.snapshot.memory.as_mut().unwrap();
    memory.location = Location::Path(saved.path("nowhere"));
    request.snapshot.xenstore.as_mut().unwrap().location = Location::Descriptor;
    let refusals = refusals(&saved, request);
    for (what, is) in [
        (
            "name",
            (|it| matches!(it, RestoreRefusal::NameTaken { .. })) as fn(&RestoreRefusal) -> bool,
        ),
        ("uuid", |it| matches!(it, RestoreRefusal::UuidTaken { .. })),
        ("disk", |it| matches!(it, RestoreRefusal::DiskNotNamed { vdev } if vdev == "xvda")),
        ("unknown", |it| matches!(it, RestoreRefusal::UnknownDisk { vdev } if vdev == "xvdz")),
        ("exists", |it| matches!(it, RestoreRefusal::TargetExists { .. })),
        ("twice", |it| matches!(it, RestoreRefusal::TargetTwice { .. })),
        ("nic", |it| matches!(it, RestoreRefusal::UnknownNic { devid: 7 })),
        ("memory", |it| matches!(it, RestoreRefusal::Source { .. })),
        ("xenstore", |it| matches!(it, RestoreRefusal::SourceNotGiven { .. })),
    ] {
        assert!(refusals.iter().any(is), "{what}: {refusals:?}");
    }
}

#[test]
fn a_domain_to_be_replaced_has_to_be_the_one_that_is_meant() {
    const TEST: &str = "a_domain_to_be_replaced_has_to_be_the_one_that_is_meant";
    let Some(saved) = saved(TEST, Memory::Mapped) else { return };
    let mut request = saved.request("copy");
    let (other, free_first) = (Uuid::from_u128(5), true);
    let domain = DomainIdentity::new(saved.web.domid, other);
    request.mode = RestoreMode::Replace { domain, free_first };
    let told = refusals(&saved, request.clone());
    assert!(
        matches!(told[..], [RestoreRefusal::ReplacedIsAnother { found, .. }] if found == saved.web.uuid),
        "{told:?}"
    );
    let domain = DomainIdentity::new(DomId::new(4000), saved.web.uuid);
    request.mode = RestoreMode::Replace { domain, free_first };
    let told = refusals(&saved, request.clone());
    assert!(matches!(told[..], [RestoreRefusal::ReplacedMissing { .. }]), "{told:?}");
    request.mode = RestoreMode::Replace { domain: saved.web, free_first };
    request.snapshot.memory = None;
    let told = refusals(&saved, request);
    assert!(matches!(told[..], [RestoreRefusal::NothingToReplaceWith]), "{told:?}");
}

#[test]
fn no_frozen_image_is_given_to_be_written() {
    const TEST: &str = "no_frozen_image_is_given_to_be_written";
    let Some(saved) = saved(TEST, Memory::No) else { return };
    let link = saved.path("link");
    std::os::unix::fs::symlink(saved.path("xvda"), &link).unwrap();
    let frozen =
        |path: PathBuf| DiskRestore::Image { path, format: ImageFormat::Qcow2, verify: false };
    for path in [saved.path("xvda"), link, saved.path("xvdb")] {
        let mut request = saved.request("copy");
        request.disks.insert("xvda".into(), frozen(path));
        let told = refusals(&saved, request);
        let is = |it: &RestoreRefusal| {
            matches!(it, RestoreRefusal::FrozenForWriting { .. } | RestoreRefusal::Chain { .. })
        };
        assert!(!told.is_empty() && told.iter().all(is), "{told:?}");
    }
    let mut request = saved.request("copy");
    request.disks.insert("xvda".into(), DiskRestore::AsConfigured);
    let told = refusals(&saved, request);
    assert!(matches!(told[..], [RestoreRefusal::DiskSaved { .. }]), "{told:?}");
}

#[test]
fn two_disks_do_not_get_one_image_and_a_snapshot_inside_an_image_is_none_by_itself() {
    const TEST: &str =
        "two_disks_do_not_get_one_image_and_a_snapshot_inside_an_image_is_none_by_itself";
    let Some(saved) = saved(TEST, Memory::No) else { return };
    let copy = saved.path("copy-of-xvda");
    std::fs::copy(saved.path("xvda"), &copy).unwrap();
    let image = DiskRestore::Image { path: copy, format: ImageFormat::Qcow2, verify: false };
    let mut request = saved.request("copy");
    request.disks.values_mut().for_each(|disk| *disk = image.clone());
    let told = refusals(&saved, request);
    assert!(matches!(told[..], [RestoreRefusal::SharedImage { .. }]), "{told:?}");

    let mut request = saved.request("copy");
    request.snapshot.disks[0].action = DiskAction::InternalQcow2 { tag: "before".into() };
    let told = refusals(&saved, request);
    assert!(
        matches!(&told[..], [RestoreRefusal::Internal { tag, .. }] if tag == "before"),
        "{told:?}"
    );
}

#[test]
fn an_overlay_needs_a_name_and_no_disk_that_was_skipped_has_a_frozen_image() {
    const TEST: &str = "an_overlay_needs_a_name_and_no_disk_that_was_skipped_has_a_frozen_image";
    let Some(saved) = saved(TEST, Memory::No) else { return };
    let mut request = saved.request("copy");
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let overlay = Target::Descriptor(Arc::new(file));
    request.disks.insert("xvda".into(), DiskRestore::NewOverlay { overlay });
    let reason = "scratch".to_owned();
    request.snapshot.disks[1].action = DiskAction::Skip { reason };
    let told = refusals(&saved, request);
    assert!(told.iter().any(|it| matches!(it, RestoreRefusal::Descriptor { .. })), "{told:?}");
    assert!(told.iter().any(|it| matches!(it, RestoreRefusal::DiskNotSaved { .. })), "{told:?}");
    assert_eq!(told.len(), 2);
}
