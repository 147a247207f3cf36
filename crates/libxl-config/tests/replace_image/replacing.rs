//! What a replacement changes: what names the images, in both views, and nothing else.

use std::collections::BTreeMap;

use libxl_config::DomainError;
use libxl_config::model::DiskFormat;
use libxl_config::model::SchedParams;
use libxl_config::replace_image::{Image, ReplaceError, ReplaceImage, ViewState};
use libxl_config::retrieve::{DeviceClass, HypervisorDomain, HypervisorView};
use libxl_config::template::{SledStore, TemplateStore, UserdataDir};

use xsclient::DomId;

use crate::hosts::{self, GUEST, TEMPLATE, overlays, params, qcow2};

/// Replaces both images on a store of templates, and looks at all of both views.
fn replaces_on(templates: &dyn TemplateStore) {
    hosts::fill(templates, TEMPLATE);
    let xenstore = hosts::xenstore();
    let mut client = hosts::client(&xenstore);
    let before = hosts::whole(&mut client);
    let replaced = ReplaceImage::new(&mut client, templates).replace(GUEST, &overlays()).unwrap();

    let mut expected = BTreeMap::new();
    for (vdev, value) in [("xvda", "qcow2:/srv/a-1.qcow2"), ("xvdb", "qcow2:/srv/b-1.qcow2")] {
        expected.extend(params(vdev).map(|path| (path, value.to_owned())));
    }
    assert_eq!(hosts::changed(&before, &hosts::whole(&mut client)), expected);
    assert_eq!(hosts::text(templates), hosts::template_with_overlays());
    let now = templates.load(&hosts::key(), hosts::later()).unwrap().unwrap();
    assert_eq!((replaced.after, replaced.key), (now.revision, hosts::key()));
    assert_eq!(replaced.disks[1].live, Image::new("/srv/b.img", DiskFormat::Raw));
    assert_eq!(replaced.disks[1].template, replaced.disks[1].live);
    assert_eq!(replaced.disks[1].image.path, "/srv/b-1.qcow2");

    let retrieved = hosts::retrieve(&mut client, templates);
    assert!(retrieved.report.is_clean(), "{:#?}", retrieved.report);
    assert!(retrieved.report.devices.iter().all(|device| device.changes.is_empty()));
    assert_eq!(
        hosts::images(&retrieved),
        ["xvda qcow2:/srv/a-1.qcow2", "xvdb qcow2:/srv/b-1.qcow2"]
    );

    let back = replaced.undoing();
    let undone = ReplaceImage::new(&mut client, templates).replace(GUEST, &back).unwrap();
    assert_eq!((undone.before, undone.after), (replaced.after, replaced.before));
    assert_eq!(hosts::whole(&mut client), before);
    assert_eq!(hosts::text(templates), TEMPLATE);
}

#[test]
fn both_views_name_the_new_images_with_templates_in_memory() {
    replaces_on(&libxl_config::template::MemoryStore::new());
}

#[test]
fn both_views_name_the_new_images_with_templates_in_sled() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    replaces_on(&SledStore::open_or_create(path, hosts::later()).unwrap());
}

#[test]
fn both_views_name_the_new_images_with_templates_in_libxls_directory() {
    let directory = tempfile::tempdir().unwrap();
    replaces_on(&UserdataDir::open(directory.path()).unwrap());
}

#[test]
fn a_disk_is_found_by_every_name_of_its_number_and_only_that_disk_changes() {
    for vdev in ["xvdb", "d1p0", "51728"] {
        let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
        let asked = [qcow2(vdev, "/srv/b:1, \"odd\" ü.qcow2")];
        let replaced = hosts::replace(&xenstore, &templates, &asked).unwrap();
        assert_eq!(replaced.disks[0].vdev, "xvdb");
        let retrieved = hosts::retrieve(&mut hosts::client(&xenstore), &templates);
        assert_eq!(
            hosts::images(&retrieved),
            ["xvda raw:/srv/a.img", "xvdb qcow2:/srv/b:1, \"odd\" ü.qcow2"]
        );
        assert!(retrieved.report.devices.iter().all(|device| device.changes.is_empty()));
    }
}

#[test]
fn what_one_view_has_already_is_completed_in_the_other() {
    let new_live = |xenstore: &xenstored::Embedded, both: bool| {
        for (vdev, value) in [("xvda", "qcow2:/srv/a-1.qcow2"), ("xvdb", "qcow2:/srv/b-1.qcow2")] {
            let [copy, original] = params(vdev);
            hosts::apply(xenstore, hosts::write(&copy, value));
            if both {
                hosts::apply(xenstore, hosts::write(&original, value));
            }
        }
    };
    for case in ["live", "copy only", "template", "both"] {
        let xenstore = hosts::xenstore();
        let templates = libxl_config::template::MemoryStore::new();
        let text = hosts::template_with_overlays();
        hosts::fill(
            &templates,
            if matches!(case, "live" | "copy only") { TEMPLATE } else { &text },
        );
        if case != "template" {
            new_live(&xenstore, case != "copy only");
        }
        let replaced = hosts::replace(&xenstore, &templates, &overlays()).unwrap();
        assert_eq!(hosts::live(&xenstore), ViewState::New, "{case}");
        assert_eq!(hosts::text(&templates), text, "{case}");
        assert_eq!(replaced.before == replaced.after, matches!(case, "template" | "both"));
    }
}

#[test]
fn a_plan_says_what_would_be_done_and_does_nothing() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let mut client = hosts::client(&xenstore);
    let before = hosts::whole(&mut client);
    let plan = ReplaceImage::new(&mut client, &templates).plan(GUEST, &overlays()).unwrap();
    assert!(plan.refusals.is_empty(), "{:?}", plan.refusals);
    assert_eq!(hosts::whole(&mut client), before);
    assert_eq!(hosts::text(&templates), TEMPLATE);
    let replaced = ReplaceImage::new(&mut client, &templates)
        .expecting(plan.before)
        .replace(GUEST, &overlays())
        .unwrap();
    assert_eq!(replaced.disks, plan.disks);
    // What was planned on a template that is there no more is not done.
    let error = ReplaceImage::new(&mut client, &templates)
        .expecting(plan.before)
        .replace(GUEST, &replaced.undoing())
        .unwrap_err();
    let ReplaceError::TemplateChanged { expected, found, .. } = error else { panic!("{error}") };
    assert_eq!((expected, found), (plan.before, Some(replaced.after)));
    assert_eq!(hosts::live(&xenstore), ViewState::New);
}

#[test]
fn what_the_guest_writes_changes_nothing() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    for (path, value) in [
        ("/local/domain/7/device/vbd/51712/backend", "/local/domain/0/backend/qdisk/8/51712"),
        ("/local/domain/7/device/vbd/51712/params", "aio:/etc/shadow"),
        ("/local/domain/7/device/vbd/51728/backend", "/local/domain/7/data"),
        ("/local/domain/0/backend/qdisk/8/51712/params", "aio:/srv/other.img"),
    ] {
        hosts::apply(&xenstore, hosts::write(path, value));
    }
    hosts::replace(&xenstore, &templates, &overlays()).unwrap();
    assert_eq!(hosts::live(&xenstore), ViewState::New);
    let other = "/local/domain/0/backend/qdisk/8/51712/params".parse().unwrap();
    assert_eq!(xenstore.snapshot().read(&other), Some(&b"aio:/srv/other.img"[..]));
}

#[test]
fn a_backend_in_a_driver_domain_is_written_there() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let driver = "/local/domain/3/backend/qdisk/7/51712";
    for (path, value) in [
        ("/libxl/7/device/vbd/51712/backend", driver),
        (&format!("{driver}/params"), "aio:/srv/a.img"),
        (&format!("{driver}/state"), "4"),
        (&format!("{driver}/online"), "1"),
    ] {
        hosts::apply(&xenstore, hosts::write(path, value));
    }
    hosts::apply(&xenstore, hosts::rm("/local/domain/0/backend/qdisk/7/51712"));
    let mut client = hosts::client(&xenstore);
    let before = hosts::whole(&mut client);
    hosts::replace(&xenstore, &templates, &[qcow2("xvda", "/srv/a-1.qcow2")]).unwrap();
    let changed = hosts::changed(&before, &hosts::whole(&mut client));
    let value = "qcow2:/srv/a-1.qcow2".to_owned();
    let expected = ["/libxl/7/device/vbd/51712/params", &format!("{driver}/params")]
        .map(|path| (path.to_owned(), value.clone()));
    assert_eq!(changed, BTreeMap::from(expected));
}

#[test]
fn no_disks_asked_for_is_nothing_to_do() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let replaced = hosts::replace(&xenstore, &templates, &[]).unwrap();
    assert_eq!(replaced.before, replaced.after);
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
}

#[test]
fn a_disk_of_an_hvm_guest_that_boots_from_what_qemu_emulates_is_moved() {
    let xenstore = hosts::xenstore();
    let templates = libxl_config::template::MemoryStore::new();
    hosts::fill(&templates, &TEMPLATE.replace("\"pv\"", "\"hvm\"").replace("type.pv", "type.hvm"));
    let backend = "/local/domain/0/backend/qdisk/7/51712/state";
    hosts::apply(&xenstore, hosts::write(backend, "1"));
    hosts::replace(&xenstore, &templates, &[qcow2("xvda", "/srv/a-1.qcow2")]).unwrap();
    let retrieved = hosts::retrieve(&mut hosts::client(&xenstore), &templates);
    let xvda = retrieved.report.device(DeviceClass::Disk, "xvda").unwrap();
    assert!(xvda.changes.is_empty());
}

/// A hypervisor that has one domain.
struct Hypervisor(uuid::Uuid);

impl HypervisorView for Hypervisor {
    fn domain(
        &self,
        domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn std::error::Error + Send + Sync>> {
        let domain = HypervisorDomain::new(self.0, SchedParams::default());
        Ok(Some(domain).filter(|_| domid == GUEST))
    }
}

#[test]
fn the_template_is_the_one_of_the_domains_uuid_by_whom_it_is_told() {
    let vm = "/local/domain/7/vm";
    // Dom0 has no such node: a single template is its own.
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    hosts::apply(&xenstore, hosts::rm(vm));
    hosts::replace(&xenstore, &templates, &overlays()).unwrap();
    // After a rename of a preserved domain Xenstore tells another uuid than the hypervisor.
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let other = "/vm/00000000-0000-4000-8000-000000000001";
    hosts::apply(&xenstore, hosts::write(vm, other));
    let error = hosts::replace(&xenstore, &templates, &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Domain(DomainError::NoTemplate { .. })), "{error}");
    let hypervisor = Hypervisor(hosts::key().uuid);
    let mut client = hosts::client(&xenstore);
    let mut replacer = ReplaceImage::new(&mut client, &templates).hypervisor(&hypervisor);
    replacer.replace(GUEST, &overlays()).unwrap();
    let error = replacer.replace(DomId::new(8), &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Domain(DomainError::NoSuchDomain { .. })), "{error}");
    assert_eq!(hosts::template(&templates), ViewState::New);
}
