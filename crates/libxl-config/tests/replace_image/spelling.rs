//! The template's text: whatever it looks like, nothing but the images changes in it.

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceError, Replacement, ViewState};
use libxl_config::template::MemoryStore;
use libxl_config::{DomainConfig, Layout, Mode};
use proptest::prelude::*;

use crate::hosts::{self, TEMPLATE, params, qcow2};

fn on(text: &str) -> (xenstored::Embedded, MemoryStore) {
    let templates = MemoryStore::new();
    hosts::fill(&templates, text);
    (hosts::xenstore(), templates)
}

fn formats() -> impl Strategy<Value = DiskFormat> {
    prop::sample::select(vec![
        DiskFormat::Raw,
        DiskFormat::Qcow,
        DiskFormat::Qcow2,
        DiskFormat::Vhd,
        DiskFormat::Qed,
    ])
}

fn images() -> impl Strategy<Value = Image> {
    let path = "/[a-z:/\\\\\" ,üß🦀{}]{0,40}";
    (path, formats()).prop_map(|(path, format)| Image::new(path, format))
}

/// The template with these images for the disks, as hand-written or as either of libxl's writers would have it.
fn spelled(first: &Image, second: &Image, how: usize) -> String {
    let mut config = DomainConfig::read(TEMPLATE.as_bytes(), Mode::Lenient).unwrap().config;
    for (disk, image) in config.disks.iter_mut().zip([first, second]) {
        disk.pdev_path = Some(image.path.clone());
        disk.format = image.format.clone();
    }
    match how {
        0 => config.to_json(Layout::Yajl),
        1 => config.to_json(Layout::JsonC),
        _ => {
            let quoted = |text: &str| serde_json::to_string(text).unwrap();
            let format = |image: &Image| format!("\"format\":{}", quoted(image.format.name()));
            let mut text = TEMPLATE.replace("\"format\":\"raw\"", &format(second));
            text = text.replace("\"format\": \"raw\"", &format(first).replace(':', ": "));
            text = text.replace("\"/srv/a.img\"", &quoted(&first.path));
            text.replace("\"/srv/b.img\"", &quoted(&second.path))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn there_and_back_again_restores_both_views_octet_for_octet(
        first in images(), second in images(), new_first in images(), new_second in images(), how in 0..3_usize,
    ) {
        let text = spelled(&first, &second, how);
        let (xenstore, templates) = on(&text);
        for (vdev, image) in [("xvda", &first), ("xvdb", &second)] {
            let format = if image.format == DiskFormat::Raw { "aio" } else { image.format.name() };
            for path in params(vdev) {
                hosts::apply(&xenstore, hosts::write(&path, &format!("{format}:{}", image.path)));
            }
        }
        let mut client = hosts::client(&xenstore);
        let before = hosts::whole(&mut client);
        let asked = [Replacement::new("xvda", new_first.clone()), Replacement::new("xvdb", new_second.clone())];
        let replaced = hosts::replace(&xenstore, &templates, &asked).unwrap();
        prop_assert_eq!(hosts::text(&templates), spelled(&new_first, &new_second, how));
        let retrieved = hosts::retrieve(&mut client, &templates);
        prop_assert!(retrieved.report.devices.iter().all(|device| device.changes.is_empty()));
        prop_assert_eq!(retrieved.config.disks[1].pdev_path.as_deref(), Some(&*new_second.path));
        prop_assert_eq!(&retrieved.config.disks[1].format, &new_second.format);
        hosts::replace(&xenstore, &templates, &replaced.undoing()).unwrap();
        prop_assert_eq!(hosts::text(&templates), text);
        prop_assert_eq!(hosts::whole(&mut client), before);
    }
}

#[test]
fn what_only_json_c_reads_is_left_as_it_is() {
    let text = "{ // by hand\n  'c_info': {'type': 'pv', }, \"b_info\": {\"type.pv\": {}},\n  \"disks\": [\n    \
                {'vdev':'xvda' /* boot */, 'pdev_path' /* old */ : '/srv/a.img' // here\n    , 'format':RAW_HERE,},\n  ]}";
    let text = text.replace("RAW_HERE", "'raw'");
    let (xenstore, templates) = on(&text);
    hosts::replace(&xenstore, &templates, &[qcow2("xvda", "/srv/a-1.qcow2")]).unwrap();
    let expected = text.replace("'/srv/a.img'", "\"/srv/a-1.qcow2\"");
    assert_eq!(hosts::text(&templates), expected.replace("'raw'", "\"qcow2\""));
}

#[test]
fn a_format_that_is_not_there_is_added_where_libxl_writes_it() {
    let text = TEMPLATE.replace("\"format\": \"raw\",   ", "").replace("\"format\":\"raw\",", "");
    let (xenstore, templates) = on(&text);
    hosts::replace(&xenstore, &templates, &hosts::overlays()).unwrap();
    let expected = text
        .replace(
            "\"/srv/a.img\", \"vdev\": \"xvda\"",
            "\"/srv/a-1.qcow2\", \"vdev\": \"xvda\", \"format\": \"qcow2\"",
        )
        .replace(
            "\"vdev\":\"xvdb\",\"pdev_path\":\"/srv/b.img\"",
            "\"vdev\":\"xvdb\",\"format\":\"qcow2\",\"pdev_path\":\"/srv/b-1.qcow2\"",
        );
    assert_eq!(hosts::text(&templates), expected);
}

/// yajl's reader takes the first of two, json-c's the last.
#[test]
fn of_a_path_that_is_there_twice_both_are_changed() {
    let text = TEMPLATE.replace("\"tier\": 1.50", "\"pdev_path\": \"/srv/z.img\"");
    let (xenstore, templates) = on(&text);
    hosts::replace(&xenstore, &templates, &[qcow2("xvda", "/srv/a-1.qcow2")]).unwrap();
    let now = hosts::text(&templates);
    assert_eq!(now.matches("/srv/a-1.qcow2").count(), 2, "{now}");
    assert!(!now.contains("z.img"));
}

#[test]
fn of_two_lists_of_disks_none_is_changed() {
    let text = TEMPLATE.replace("\"owner\": \"ops\"", "\"disks\": []");
    let (xenstore, templates) = on(&text);
    let error = hosts::replace(&xenstore, &templates, &hosts::overlays()).unwrap_err();
    assert!(matches!(error, ReplaceError::Edit { .. }), "{error}");
    assert_eq!(hosts::live(&xenstore), ViewState::Old);
    assert_eq!(hosts::text(&templates), text);
}
