//! Paravirtual keyboards and pointers: `vkbd`, served by `vkbd` (QEMU) or `vinput` (another Linux program).

use super::rule::{flag, nonzero_rule, number_rule, set_flag_rule, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Live, Rule, Taken, numbered_devices};
use crate::DomainConfig;
use crate::model::{BuildKind, DefBool, Vkb, VkbBackend};
use crate::retrieve::report::DeviceClass;

/// What QEMU offers of itself stands under the same keys of the backend's tree, so only the toolstack's says what was
/// asked for.
const OFFERED: [&str; 2] = ["feature-abs-pointer", "feature-raw-pointer"];

macro_rules! offered_flag_rule {
    ($key:literal, $field:ident) => {
        Rule {
            key: $key,
            field: stringify!($field),
            expected: |vkb: &Vkb, live| match vkb.$field {
                _ if live.device.toolstack.is_none() => Expected::Anything,
                true => Expected::flag(true),
                false => Expected::Nothing,
            },
            take: |vkb, live, _| {
                vkb.$field = flag(live)?;
                Ok(())
            },
            absent: Absence::Clear(|vkb| vkb.$field = false),
        }
    };
}

pub(in crate::retrieve) struct Vkbs;

impl Class for Vkbs {
    numbered_devices!(Vkb, vkbs, |vkb, live| vkb.backend_type =
        served_by(live).unwrap_or_default());

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Vkb,
        kinds: &["vkbd"],
        backend_kinds: &["vkbd", "vinput"],
        keys: &[
            "unique-id",
            "feature-disable-keyboard",
            "feature-disable-pointer",
            "feature-abs-pointer",
            "feature-raw-pointer",
            "feature-multi-touch",
            "width",
            "height",
            "multi-touch-width",
            "multi-touch-height",
            "multi-touch-num-contacts",
        ],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<Vkb>] = &[
        text_rule!(Vkb, "unique-id", unique_id, "unique_id"),
        set_flag_rule!(
            Vkb,
            "feature-disable-keyboard",
            feature_disable_keyboard,
            "feature_disable_keyboard"
        ),
        set_flag_rule!(
            Vkb,
            "feature-disable-pointer",
            feature_disable_pointer,
            "feature_disable_pointer"
        ),
        offered_flag_rule!("feature-abs-pointer", feature_abs_pointer),
        offered_flag_rule!("feature-raw-pointer", feature_raw_pointer),
        set_flag_rule!(Vkb, "feature-multi-touch", feature_multi_touch, "feature_multi_touch"),
        nonzero_rule!(Vkb, "width", width, "width"),
        nonzero_rule!(Vkb, "height", height, "height"),
        number_rule!(Vkb, "multi-touch-width", multi_touch_width, "multi_touch_width"),
        number_rule!(Vkb, "multi-touch-height", multi_touch_height, "multi_touch_height"),
        number_rule!(
            Vkb,
            "multi-touch-num-contacts",
            multi_touch_num_contacts,
            "multi_touch_num_contacts"
        ),
    ];

    fn is_made_by_libxl(live: &Live<'_>, config: &DomainConfig) -> bool {
        let BuildKind::Hvm(hvm) = &config.b_info.kind else { return false };
        let asked_for = |key: &str| {
            live.value(key).is_some()
                && (live.device.toolstack.is_some() || !OFFERED.contains(&key))
        };
        let is_plain = !Self::INFO.keys.iter().any(|key| asked_for(key));
        hvm.vkb_device != DefBool::False && is_plain && live.backend_kind() == Some("vkbd")
    }

    fn take_lists(vkb: &mut Vkb, live: &Live<'_>, taken: &mut Taken) {
        let Some(serves) = served_by(live) else { return };
        if vkb.backend_type != VkbBackend::Unknown && vkb.backend_type != serves {
            taken.change("backend_type", "backend", vkb.backend_type.name(), serves.name());
            vkb.backend_type = serves;
        }
    }
}

fn served_by(live: &Live<'_>) -> Option<VkbBackend> {
    match live.backend_kind()? {
        "vkbd" => Some(VkbBackend::Qemu),
        "vinput" => Some(VkbBackend::Linux),
        _ => None,
    }
}
