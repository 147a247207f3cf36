//! Virtio devices: `virtio`. Xen 4.17 has none.

use super::rule::{defbool_rule, enum_rule, hexadecimal, number_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Rule, numbered_devices};
use crate::model::{Virtio, VirtioTransport};
use crate::retrieve::report::{BadValue, DeviceClass};

/// What the type of every virtio device starts with; libxl takes no other.
const TYPE_PREFIX: &str = "virtio,device";

pub(in crate::retrieve) struct Virtios;

impl Class for Virtios {
    numbered_devices!(Virtio, virtios);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Virtio,
        kinds: &["virtio"],
        backend_kinds: &["virtio"],
        keys: &["type", "transport", "grant_usage", "irq", "base"],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<Virtio>] = &[
        Rule {
            key: "type",
            field: "type",
            expected: |virtio, _| Expected::optional(virtio.device.as_deref()),
            take: |virtio, live, _| {
                if !live.starts_with(TYPE_PREFIX) {
                    return Err(BadValue::not_a(live, "a type that starts with virtio,device"));
                }
                virtio.device = Some(live.to_owned());
                Ok(())
            },
            absent: Absence::Keep,
        },
        enum_rule!(
            Virtio,
            "transport",
            transport,
            "transport",
            VirtioTransport { Mmio = "mmio" },
            "mmio"
        ),
        defbool_rule!(Virtio, "grant_usage", grant_usage, "grant_usage", |_| Expected::Anything),
        number_rule!(Virtio, "irq", irq, "irq"),
        Rule {
            key: "base",
            field: "base",
            expected: |virtio, _| match virtio.base {
                0 => Expected::Anything,
                base => Expected::text(format_args!("{base:#x}")),
            },
            take: |virtio, live, _| {
                virtio.base = live
                    .strip_prefix("0x")
                    .and_then(hexadecimal)
                    .ok_or_else(|| BadValue::not_a(live, "a hexadecimal number with 0x"))?;
                Ok(())
            },
            absent: Absence::Keep,
        },
    ];
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    fn scene() -> Scene {
        Scene::new(
            "virtios",
            r#"{ "devid": 0, "type": "virtio,device22", "transport": "mmio", "irq": 34, "base": 33554944 }"#,
            r#"
            /libxl/7/device/virtio/0
                backend = "/local/domain/0/backend/virtio/7/0"
                type = "virtio,device22"
                transport = "mmio"
                irq = "34"
                base = "0x2000200"
                grant_usage = "0"
            /local/domain/0/backend/virtio/7/0
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_virtio_device_stays() {
        scene().stays();
        scene().entry(r#"{ "transport": null, "irq": null, "base": null }"#).stays();
        scene().entry(r#"{ "grant_usage": "False" }"#).stays();
    }

    #[test]
    fn each_key_of_a_virtio_device_changes_its_field() {
        scene().turns("type", "virtio,device26", "type", r#"{ "type": "virtio,device26" }"#);
        scene().turns("irq", "35", "irq", r#"{ "irq": 35 }"#);
        scene().turns("base", "0x2000400", "base", r#"{ "base": 33555456 }"#);
        let granted = scene().entry(r#"{ "grant_usage": "False" }"#);
        granted.turns("grant_usage", "1", "grant_usage", r#"{ "grant_usage": "True" }"#);
    }

    #[test]
    fn a_virtio_device_is_built() {
        scene().is_built_as(
            r#"{ "devid": 0, "type": "virtio,device22", "transport": "mmio", "irq": 34,
                 "base": 33554944, "grant_usage": "False" }"#,
        );
    }

    #[test]
    fn what_is_no_value_of_a_virtio_device_leaves_the_template() {
        scene().refuses("type", &["", "pci", "virtio"]);
        scene().refuses("transport", &["", "pci"]);
        scene().refuses("irq", &["", "-1", "4294967296"]);
        scene().refuses("base", &["", "512", "0x", "0x+1", "0x11112222333344445"]);
        scene().entry(r#"{ "grant_usage": "False" }"#).refuses("grant_usage", &["", "2", "yes"]);
    }
}
