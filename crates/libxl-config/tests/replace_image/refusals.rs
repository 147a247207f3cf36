//! Everything that speaks against a replacement is said at once, and nothing is changed.

use libxl_config::DomainError;
use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{
    Image, Refusal, ReplaceError, ReplaceImage, Replacement, ViewState,
};
use libxl_config::template::{DomId, MemoryStore};
use xsclient::{Client, Options};

use crate::hosts::{self, GUEST, TEMPLATE, overlays, params, qcow2};

/// What is said about a host after some writes and removals, and with another template; both views stay as they are.
fn refused(
    changes: &[(&str, Option<&str>)],
    template: &str,
    asked: &[Replacement],
) -> Vec<Refusal> {
    let xenstore = hosts::xenstore();
    for (path, value) in changes {
        let request = value.map_or_else(|| hosts::rm(path), |value| hosts::write(path, value));
        hosts::apply(&xenstore, request);
    }
    let templates = MemoryStore::new();
    hosts::fill(&templates, template);
    let mut client = hosts::client(&xenstore);
    let before = hosts::whole(&mut client);
    let plan = ReplaceImage::new(&mut client, &templates).plan(GUEST, asked).unwrap();
    let error = ReplaceImage::new(&mut client, &templates).replace(GUEST, asked).unwrap_err();
    let views = error.views();
    assert_eq!((views.live, views.template), (ViewState::Old, ViewState::Old));
    let ReplaceError::Refused { refusals, .. } = error else { panic!("{error}") };
    assert_eq!(refusals, plan.refusals);
    assert_eq!(hosts::whole(&mut client), before);
    assert_eq!(hosts::text(&templates), template);
    refusals
}

/// The one thing that is said when xvda alone is asked for.
fn refused_for_xvda(changes: &[(&str, Option<&str>)], template: &str) -> Refusal {
    let mut refusals = refused(changes, template, &[qcow2("xvda", "/srv/a-1.qcow2")]);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    refusals.remove(0)
}

const BACKEND: &str = "/local/domain/0/backend/qdisk/7/51712";
const TOOLSTACK: &str = "/libxl/7/device/vbd/51712";

#[test]
fn everything_that_speaks_against_it_is_said_at_once() {
    let asked = [
        qcow2("xvdz", "/srv/z.qcow2"),
        qcow2("nonsense", "/srv/n.qcow2"),
        qcow2("xvda", "a.qcow2"),
        qcow2("51712", "/srv/a.qcow2"),
        Replacement::new("xvdb", Image::new("/srv/b\n", DiskFormat::Empty)),
    ];
    let refusals = refused(&[(&format!("{BACKEND}/state"), Some("5"))], TEMPLATE, &asked);
    let said: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "xvdz: neither the template nor Xenstore has such a disk",
            "nonsense: neither the template nor Xenstore has such a disk",
            "xvda: the path of the new image is not absolute: \"a.qcow2\"",
            "xvda: half detached, backend state 5 (closing)",
            "51712: asked for twice",
            "xvdb: the path of the new image has a control character: \"/srv/b\\n\"",
            "xvdb: qdisk does not serve images in the format empty",
        ]
    );
}

#[test]
fn a_disk_of_one_view_is_refused() {
    let gone = [(TOOLSTACK, None), (BACKEND, None), ("/local/domain/7/device/vbd/51712", None)];
    assert!(matches!(refused_for_xvda(&gone, TEMPLATE), Refusal::TemplateOnly { .. }));
    // Only the ends are left, which are not the toolstack's to speak for.
    assert!(matches!(refused_for_xvda(&gone[..1], TEMPLATE), Refusal::TemplateOnly { .. }));
    let without = TEMPLATE.replace("\"xvda\"", "\"xvdc\"");
    assert!(matches!(refused_for_xvda(&[], &without), Refusal::XenstoreOnly { .. }));
    let twice = TEMPLATE.replace("\"xvdb\"", "\"d0p0\"");
    assert!(matches!(
        refused_for_xvda(&[], &twice),
        Refusal::Ambiguous { count: 2, place: "the template", .. }
    ));
    let path = "/libxl/7/device/virtio_disk/51712/params";
    assert!(matches!(
        refused_for_xvda(&[(path, Some("x"))], TEMPLATE),
        Refusal::Ambiguous { count: 2, place: "Xenstore", .. }
    ));
}

#[test]
fn drives_without_an_image_are_refused() {
    let key = |key: &str| format!("{TOOLSTACK}/{key}");
    let cdrom = TEMPLATE.replace("\"tier\": 1.50", "\"is_cdrom\": 1");
    assert!(matches!(refused_for_xvda(&[], &cdrom), Refusal::Cdrom { .. }));
    let live = [(&*key("device-type"), Some("cdrom"))];
    assert!(matches!(refused_for_xvda(&live, TEMPLATE), Refusal::Cdrom { .. }));
    let empty = TEMPLATE.replace("/srv/a.img", "");
    assert!(matches!(refused_for_xvda(&[], &empty), Refusal::Empty { .. }));
    let live = [(&*key("params"), Some("aio:"))];
    assert!(matches!(refused_for_xvda(&live, TEMPLATE), Refusal::Empty { .. }));
}

#[test]
fn what_is_not_attached_is_refused() {
    for (key, value) in
        [("state", "1"), ("state", "3"), ("state", "6"), ("online", "0"), ("state", "what")]
    {
        let path = format!("{BACKEND}/{key}");
        let refusal = refused_for_xvda(&[(&path, Some(value))], TEMPLATE);
        assert!(matches!(refusal, Refusal::NotAttached { .. }), "{key} {value}: {refusal}");
    }
}

#[test]
fn what_serves_no_image_file_is_refused_by_name() {
    for served in ["phy", "standalone"] {
        let path = format!("{TOOLSTACK}/type");
        let refusal = refused_for_xvda(&[(&path, Some(served))], TEMPLATE);
        let Refusal::Backend { backend, .. } = refusal else { panic!("{refusal}") };
        assert_eq!(backend, served);
    }
    let tap = [(&*format!("{TOOLSTACK}/type"), Some("vbd3"))];
    let Refusal::Format { format, .. } = refused_for_xvda(&tap, TEMPLATE) else { panic!() };
    assert_eq!(format, DiskFormat::Qcow2);
    let other = TEMPLATE.replace("\"tier\": 1.50", "\"backend\": \"phy\"");
    assert!(matches!(refused_for_xvda(&[], &other), Refusal::OtherBackend { .. }));
    let colo = TEMPLATE.replace("\"tier\": 1.50", "\"colo_enable\": \"True\"");
    assert!(matches!(refused_for_xvda(&[], &colo), Refusal::Replicated { .. }));
}

#[test]
fn a_backend_that_is_not_the_disks_own_is_refused() {
    for told in [
        "/local/domain/0/backend/qdisk/8/51712",
        "/local/domain/0/backend/qdisk/7/51728",
        "/local/domain/7/backend/qdisk/7/51712",
        "/local/domain/0/backend/vif/7/51712",
        "/local/domain/7/data",
        "nowhere",
        "",
    ] {
        let path = format!("{TOOLSTACK}/backend");
        let refusals =
            refused(&[(&path, Some(told))], TEMPLATE, &[qcow2("xvda", "/srv/a-1.qcow2")]);
        let said = refusals.iter().any(
            |refusal| matches!(refusal, Refusal::ForeignBackend { told: said, .. } if said == told),
        );
        assert!(said, "{told}: {refusals:?}");
    }
}

#[test]
fn params_that_name_no_image_are_refused() {
    let [copy, original] = params("xvda");
    for (path, value) in [(&copy, None), (&original, None), (&copy, Some("/srv/a.img"))] {
        let refusal = refused_for_xvda(&[(path, value)], TEMPLATE);
        assert!(matches!(&refusal, Refusal::BadValue { path: at, .. } if at == path), "{refusal}");
    }
}

#[test]
fn a_path_that_fits_no_request_is_refused_and_the_longest_that_fits_is_not() {
    let [copy, original] = params("xvda");
    let longest = 4096 - copy.len().max(original.len()) - 1 - "qcow2:".len();
    let path = |len: usize| format!("/{}", "x".repeat(len - 1));
    let refusals = refused(&[], TEMPLATE, &[qcow2("xvda", &path(longest + 1))]);
    assert!(matches!(&refusals[..], [Refusal::TooLong { len: 4097, max: 4096, .. }]));
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    hosts::replace(&xenstore, &templates, &[qcow2("xvda", &path(longest))]).unwrap();
}

#[test]
fn domains_and_templates_that_are_not_there_are_named() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let mut client = hosts::client(&xenstore);
    let mut replacer = ReplaceImage::new(&mut client, &templates);
    let error = replacer.replace(DomId::new(8), &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Domain(DomainError::NoSuchDomain { .. })), "{error}");
    let empty = MemoryStore::new();
    let error = hosts::replace(&xenstore, &empty, &overlays()).unwrap_err();
    assert!(
        matches!(error, ReplaceError::Domain(DomainError::NoTemplate { uuid: Some(_), .. })),
        "{error}"
    );
    let broken = MemoryStore::new();
    hosts::fill(&broken, "{ \"disks\": [");
    let error = hosts::replace(&xenstore, &broken, &overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Unreadable { .. }), "{error}");
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
}

#[test]
fn a_domain_that_may_not_see_the_disks_is_told_so() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let transport = Box::new(xenstore.transport(DomId::new(3)));
    let mut client = Client::over(transport, Options::default());
    let error = ReplaceImage::new(&mut client, &templates).replace(GUEST, &overlays()).unwrap_err();
    let ReplaceError::Domain(DomainError::Xenstore { source, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(source.errno(), Some(&xsclient::Errno::EACCES));
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
    assert_eq!(hosts::template(&templates), ViewState::Old);
}
