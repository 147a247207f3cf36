//! Virtio devices: `virtio`. Xen 4.17 has none.

use super::rule::{defbool_rule, enum_rule, number_rule};
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
                virtio.base = hexadecimal(live)
                    .ok_or_else(|| BadValue::not_a(live, "a hexadecimal number with 0x"))?;
                Ok(())
            },
            absent: Absence::Keep,
        },
    ];
}

fn hexadecimal(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if all_digits { u64::from_str_radix(digits, 16).ok() } else { None }
}
