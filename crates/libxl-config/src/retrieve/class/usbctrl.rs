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
