//! 9pfs shares: `9pfs`, served by `9pfs` (QEMU) or `xen_9pfs` (xen-9pfsd).

use super::rule::{flag, number_rule, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Live, Rule, Taken, numbered_devices};
use crate::model::{P9, P9Type};
use crate::retrieve::report::DeviceClass;

pub(in crate::retrieve) struct P9s;

impl Class for P9s {
    numbered_devices!(P9, p9s, |p9, live| p9.p9_type = served_by(live).unwrap_or_default());

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::P9,
        kinds: &["9pfs"],
        backend_kinds: &["9pfs", "xen_9pfs"],
        keys: &[
            "path",
            "security_model",
            "max-space",
            "max-files",
            "max-open-files",
            "auto-delete",
        ],
        frontend_keys: &["tag"],
        layout: Layout::Nested(0),
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<P9>] = &[
        text_rule!(P9, "path", path),
        text_rule!(P9, "security_model", security_model),
        number_rule!(P9, "max-space", max_space, "max_space"),
        number_rule!(P9, "max-files", max_files, "max_files"),
        number_rule!(P9, "max-open-files", max_open_files, "max_open_files"),
        Rule {
            key: "auto-delete",
            field: "auto_delete",
            expected: |p9, _| Expected::flag(p9.auto_delete),
            take: |p9, live, _| {
                p9.auto_delete = flag(live)?;
                Ok(())
            },
            // Only xen-9pfsd's has it.
            absent: Absence::Keep,
        },
    ];

    fn take_lists(p9: &mut P9, live: &Live<'_>, taken: &mut Taken) {
        taken.server("type", &mut p9.p9_type, served_by(live));
    }

    /// The tag stands in the guest's tree only.
    fn take_guests_word(p9: &mut P9, live: &Live<'_>, taken: &mut Taken) {
        p9.tag = taken.text("tag", live.guests("tag")).map(str::to_owned);
        if live.guests("tag").is_none() {
            taken.problem("tag", "missing, and only the guest's tree has it");
        }
    }
}

fn served_by(live: &Live<'_>) -> Option<P9Type> {
    match live.backend_kind()? {
        "9pfs" => Some(P9Type::Qemu),
        "xen_9pfs" => Some(P9Type::Xen9pfsd),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    use crate::model::P9Type;

    fn scene() -> Scene {
        Scene::new(
            "p9s",
            r#"{ "tag": "share", "path": "/srv/share", "security_model": "none" }"#,
            r#"
            /libxl/7/device/9pfs/0
                backend = "/local/domain/0/backend/9pfs/7/0"
                path = "/srv/share"
                security_model = "none"
            /local/domain/0/backend/9pfs/7/0
                path = "/srv/share"
                state = "4"
            /local/domain/7/device/9pfs/0
                state = "4"
                tag = "share"
            "#,
        )
    }

    /// The same, of xen-9pfsd.
    fn of_daemon() -> Scene {
        let backend = "/local/domain/0/backend/xen_9pfs/7/0";
        scene()
            .live("backend", backend)
            .live(&format!("{backend}/state"), "4")
            .gone("/local/domain/0/backend/9pfs")
            .live("max-space", "100")
            .live("max-files", "20")
            .live("max-open-files", "5")
            .live("auto-delete", "1")
            .entry(
                r#"{ "type": "xen_9pfsd", "max_space": 100, "max_files": 20, "max_open_files": 5,
                     "auto_delete": true }"#,
            )
    }

    #[test]
    fn a_share_stays() {
        scene().stays();
        of_daemon().stays();
        of_daemon().entry(r#"{ "max_files": null, "type": null }"#).stays();
    }

    #[test]
    fn each_key_of_a_share_changes_its_field() {
        scene().turns("path", "/srv/other", "path", r#"{ "path": "/srv/other" }"#);
        scene().turns(
            "security_model",
            "mapped",
            "security_model",
            r#"{ "security_model": "mapped" }"#,
        );
        scene().turns_without("security_model", "security_model", r#"{ "security_model": null }"#);
        of_daemon().turns("max-space", "7", "max_space", r#"{ "max_space": 7 }"#);
        of_daemon().turns("max-files", "7", "max_files", r#"{ "max_files": 7 }"#);
        of_daemon().turns("max-open-files", "7", "max_open_files", r#"{ "max_open_files": 7 }"#);
        of_daemon().turns("auto-delete", "0", "auto_delete", r#"{ "auto_delete": null }"#);
    }

    #[test]
    fn the_backend_says_what_serves_a_share_only_against_another_word() {
        let outcome = of_daemon().entry(r#"{ "type": "qemu" }"#).merge();
        assert_eq!(outcome.config.p9s[0].p9_type, P9Type::Xen9pfsd);
        assert_eq!(outcome.only().changes[0].field, "type");
    }

    #[test]
    fn the_guests_tag_does_not_count_against_the_template() {
        scene().live("/local/domain/7/device/9pfs/0/tag", "etc").stays();
        scene().live("/local/domain/7/device/9pfs/0/tag", b"\xff").stays();
        scene().gone("/local/domain/7/device/9pfs/0/tag").stays();
    }

    #[test]
    fn a_share_is_built_with_the_guests_tag() {
        scene().is_built_as(
            r#"{ "tag": "share", "path": "/srv/share", "security_model": "none", "devid": 0,
                 "type": "qemu" }"#,
        );
        of_daemon().is_built_as(
            r#"{ "tag": "share", "path": "/srv/share", "security_model": "none", "devid": 0,
                 "type": "xen_9pfsd", "max_space": 100, "max_files": 20, "max_open_files": 5,
                 "auto_delete": true }"#,
        );
        let bad = scene().live("/local/domain/7/device/9pfs/0/tag", b"\xff").entries(&[]).merge();
        assert_eq!(bad.config.p9s[0].path.as_deref(), Some("/srv/share"));
        assert_eq!((bad.config.p9s[0].tag.as_deref(), bad.only().problems.len()), (None, 1));
        assert_eq!(bad.only().problems[0].at, "tag");
    }

    #[test]
    fn what_is_no_value_of_a_share_leaves_the_template() {
        scene().refuses("path", &[]);
        of_daemon().refuses("max-space", &["", "many", "99999999999"]);
        of_daemon().refuses("auto-delete", &["", "true"]);
    }
}
