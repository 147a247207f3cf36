//! USB controllers: `vusb`, served by `vusb` (the kernel), `qusb` (QEMU), or emulated with no backend.

use super::rule::{enum_rule, number_rule};
use super::{Class, ClassInfo, Layout, Rule, numbered_devices};
use crate::model::{Usbctrl, UsbctrlType};
use crate::retrieve::report::DeviceClass;

pub(in crate::retrieve) struct Usbctrls;

impl Class for Usbctrls {
    numbered_devices!(Usbctrl, usbctrls);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Usbctrl,
        kinds: &["vusb"],
        backend_kinds: &["vusb", "qusb"],
        keys: &["type", "usb-ver", "num-ports"],
        frontend_keys: &[],
        layout: Layout::Ports,
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Usbctrl>] = &[
        // What `auto` became is libxl's business.
        enum_rule!(
            Usbctrl,
            "type",
            controller,
            "type",
            UsbctrlType { Pv = "pv", Devicemodel = "devicemodel", Qusb = "qusb" },
            "one of pv, devicemodel, qusb"
        ),
        number_rule!(Usbctrl, "usb-ver", version, "version"),
        number_rule!(Usbctrl, "num-ports", ports, "ports"),
    ];
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    fn scene() -> Scene {
        Scene::new(
            "usbctrls",
            r#"{ "type": "pv", "devid": 0, "version": 2, "ports": 8 }"#,
            r#"
            /libxl/7/device/vusb/0
                backend = "/local/domain/0/backend/vusb/7/0"
                type = "pv"
                usb-ver = "2"
                num-ports = "8"
                port/1 = ""
            /local/domain/0/backend/vusb/7/0
                type = "pv"
                usb-ver = "1"
                num-ports = "1"
                port/1 = ""
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_controller_stays_whatever_the_backends_tree_says() {
        scene().stays();
        scene().entry(r#"{ "type": null, "version": null, "ports": null }"#).stays();
    }

    #[test]
    fn each_key_of_a_controller_changes_its_field() {
        scene().turns("type", "qusb", "type", r#"{ "type": "qusb" }"#);
        scene().turns("usb-ver", "1", "version", r#"{ "version": 1 }"#);
        scene().turns("num-ports", "4", "ports", r#"{ "ports": 4 }"#);
    }

    #[test]
    fn a_controller_is_built() {
        scene().is_built_as(r#"{ "type": "pv", "devid": 0, "version": 2, "ports": 8 }"#);
    }

    #[test]
    fn an_emulated_controller_is_built_without_a_backend() {
        let emulated = scene().gone("/local/domain/0").gone("backend").live("type", "devicemodel");
        emulated.is_built_as(r#"{ "type": "devicemodel", "devid": 0, "version": 2, "ports": 8 }"#);
    }

    #[test]
    fn what_is_no_value_of_a_controller_leaves_the_template() {
        scene().refuses("type", &["", "auto", "PV", "xhci"]);
        scene().refuses("usb-ver", &["", "2.0", "99999999999"]);
        scene().refuses("num-ports", &["", "-", "0x8"]);
    }

    #[test]
    fn a_controller_in_the_template_only_is_left_out() {
        let outcome = scene().gone("/libxl/7/device").gone("/local/domain/0").merge();
        assert!(outcome.config.usbctrls.is_empty());
        assert!(!outcome.only().in_configuration);
    }
}
