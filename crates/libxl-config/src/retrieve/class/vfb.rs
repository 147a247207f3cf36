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
