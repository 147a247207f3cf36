//! Paravirtual screens: `vfb`.

use super::rule::{defbool_rule, number, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Rule, numbered_devices};
use crate::model::Vfb;
use crate::retrieve::report::DeviceClass;

/// Where a VNC server listens that is told no address.
const DEFAULT_LISTEN: &str = "127.0.0.1";

pub(in crate::retrieve) struct Vfbs;

impl Class for Vfbs {
    numbered_devices!(Vfb, vfbs);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Vfb,
        kinds: &["vfb"],
        backend_kinds: &["vfb"],
        keys: &[
            "vnc",
            "vnclisten",
            "vncpasswd",
            "vncdisplay",
            "vncunused",
            "sdl",
            "opengl",
            "display",
            "xauthority",
        ],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<Vfb>] = &[
        defbool_rule!(Vfb, "vnc", vnc.enable, "vnc.enable", |_| Expected::flag(true)),
        Rule {
            key: "vnclisten",
            field: "vnc.listen",
            expected: |vfb, _| match vfb.vnc.listen.as_deref() {
                None if has_vnc(vfb) => Expected::text(DEFAULT_LISTEN),
                listen => Expected::optional(listen),
            },
            take: |vfb, live, _| {
                vfb.vnc.listen = Some(live.to_owned());
                Ok(())
            },
            absent: Absence::Keep,
        },
        text_rule!(Vfb, "vncpasswd", vnc.passwd, "vnc.passwd"),
        Rule {
            key: "vncdisplay",
            field: "vnc.display",
            expected: |vfb, _| Expected::text(vfb.vnc.display),
            take: |vfb, live, _| {
                vfb.vnc.display = number(live)?;
                Ok(())
            },
            absent: Absence::Keep,
        },
        defbool_rule!(Vfb, "vncunused", vnc.findunused, "vnc.findunused", |vfb: &Vfb| {
            Expected::flag(has_vnc(vfb))
        }),
        defbool_rule!(Vfb, "sdl", sdl.enable, "sdl.enable", |_| Expected::flag(false)),
        defbool_rule!(Vfb, "opengl", sdl.opengl, "sdl.opengl", |_| Expected::flag(false)),
        text_rule!(Vfb, "display", sdl.display, "sdl.display"),
        text_rule!(Vfb, "xauthority", sdl.xauthority, "sdl.xauthority"),
    ];
}

fn has_vnc(vfb: &Vfb) -> bool {
    vfb.vnc.enable.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    fn scene() -> Scene {
        Scene::new(
            "vfbs",
            r#"{ "devid": 0, "vnc": { "listen": "127.0.0.1", "display": 5 }, "sdl": {} }"#,
            r#"
            /libxl/7/device/vfb/0
                backend = "/local/domain/0/backend/vfb/7/0"
                vnc = "1"
                vnclisten = "127.0.0.1"
                vncdisplay = "5"
                vncunused = "1"
                sdl = "0"
                opengl = "0"
            /local/domain/0/backend/vfb/7/0
                vnclisten = "0.0.0.0"
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_screen_stays_with_what_libxl_writes_for_its_defaults() {
        scene().stays();
        scene().entry(r#"{ "vnc": { "listen": null } }"#).stays();
        scene().entry(r#"{ "keymap": "de", "vnc": { "enable": "True" } }"#).stays();
        let without_vnc = scene().entry(r#"{ "vnc": { "enable": "False", "listen": null } }"#);
        without_vnc.live("vnc", "0").live("vncunused", "0").gone("vnclisten").stays();
        let with_password = scene().entry(r#"{ "vnc": { "passwd": "s3cret" } }"#);
        with_password.live("vncpasswd", "s3cret").stays();
    }

    #[test]
    fn each_key_of_a_screen_changes_its_field() {
        let set = scene().entry(r#"{ "vnc": { "findunused": "True" } }"#);
        set.turns("vnc", "0", "vnc.enable", r#"{ "vnc": { "enable": "False" } }"#);
        scene().turns("vnclisten", "::", "vnc.listen", r#"{ "vnc": { "listen": "::" } }"#);
        scene().turns("vncdisplay", "6", "vnc.display", r#"{ "vnc": { "display": 6 } }"#);
        scene().turns(
            "vncunused",
            "0",
            "vnc.findunused",
            r#"{ "vnc": { "findunused": "False" } }"#,
        );
        scene().turns("sdl", "1", "sdl.enable", r#"{ "sdl": { "enable": "True" } }"#);
        scene().turns("opengl", "1", "sdl.opengl", r#"{ "sdl": { "opengl": "True" } }"#);
        scene().turns("display", ":0", "sdl.display", r#"{ "sdl": { "display": ":0" } }"#);
        scene().turns("xauthority", "/x", "sdl.xauthority", r#"{ "sdl": { "xauthority": "/x" } }"#);
    }

    #[test]
    fn a_password_changes_and_does_not_show_in_the_report() {
        let outcome =
            scene().entry(r#"{ "vnc": { "passwd": "old" } }"#).live("vncpasswd", "new").merge();
        assert_eq!(outcome.config.vfbs[0].vnc.passwd.as_deref(), Some("new"));
        let [change] = &outcome.only().changes[..] else { panic!("{:?}", outcome.only()) };
        let hidden = Some("(not shown)".to_owned());
        assert_eq!(
            (change.field, &change.template, &change.live),
            ("vnc.passwd", &hidden, &hidden)
        );
    }

    #[test]
    fn a_password_that_is_no_text_does_not_show_in_the_report() {
        let outcome = scene().live("vncpasswd", b"s3cr\xe9t").merge();
        let [problem] = &outcome.only().problems[..] else { panic!("{:?}", outcome.only()) };
        assert_eq!(problem.at, "vncpasswd");
        assert!(!problem.what.contains("s3cr"), "{problem:?}");
    }

    #[test]
    fn a_screen_is_built() {
        scene().is_built_as(r#"{ "devid": 0, "vnc": { "display": 5 } }"#);
    }

    #[test]
    fn what_is_no_value_of_a_screen_leaves_the_template() {
        for key in ["vnc", "vncunused", "sdl", "opengl"] {
            scene().refuses(key, &["", "2", "yes"]);
        }
        scene().refuses("vncdisplay", &["", "5.0", ":5"]);
        scene().refuses("vnclisten", &[]);
    }
}
