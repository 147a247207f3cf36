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
                _ if live.device.toolstack.is_none() => Expected::Foreign,
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
        taken.server("backend_type", &mut vkb.backend_type, served_by(live));
    }
}

fn served_by(live: &Live<'_>) -> Option<VkbBackend> {
    match live.backend_kind()? {
        "vkbd" => Some(VkbBackend::Qemu),
        "vinput" => Some(VkbBackend::Linux),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use crate::model::{BuildKind, VkbBackend};
    use crate::retrieve::report::DeviceNote;

    fn scene() -> Scene {
        Scene::new(
            "vkbs",
            r#"{ "devid": 0 }"#,
            r#"
            /libxl/7/device/vkbd/0
                backend = "/local/domain/0/backend/vkbd/7/0"
                state = "1"
            /local/domain/0/backend/vkbd/7/0
                feature-abs-pointer = "1"
                feature-raw-pointer = "1"
                state = "4"
            "#,
        )
    }

    fn touch() -> Scene {
        scene()
            .entry(
                r#"{ "feature_multi_touch": true, "multi_touch_width": 800,
                     "multi_touch_height": 600, "multi_touch_num_contacts": 10,
                     "width": 640, "height": 480, "unique_id": "touch0" }"#,
            )
            .live("feature-multi-touch", "1")
            .live("multi-touch-width", "800")
            .live("multi-touch-height", "600")
            .live("multi-touch-num-contacts", "10")
            .live("width", "640")
            .live("height", "480")
            .live("unique-id", "touch0")
    }

    #[test]
    fn a_keyboard_stays_whatever_qemu_offers() {
        scene().stays();
        touch().stays();
        scene().gone("/libxl").stays();
    }

    #[test]
    fn each_key_of_a_keyboard_changes_its_field() {
        for (key, field) in [
            ("feature-disable-keyboard", "feature_disable_keyboard"),
            ("feature-disable-pointer", "feature_disable_pointer"),
            ("feature-abs-pointer", "feature_abs_pointer"),
            ("feature-raw-pointer", "feature_raw_pointer"),
            ("feature-multi-touch", "feature_multi_touch"),
        ] {
            scene().turns(key, "1", field, &format!(r#"{{ "{field}": true }}"#));
            let set = scene().entry(&format!(r#"{{ "{field}": true }}"#)).live(key, "1");
            set.turns_without(key, field, &format!(r#"{{ "{field}": null }}"#));
            set.refuses(key, &["", "2", "true"]);
        }
        for (key, field) in [
            ("multi-touch-width", "multi_touch_width"),
            ("multi-touch-height", "multi_touch_height"),
            ("multi-touch-num-contacts", "multi_touch_num_contacts"),
            ("width", "width"),
            ("height", "height"),
        ] {
            touch().turns(key, "3", field, &format!(r#"{{ "{field}": 3 }}"#));
            touch().refuses(key, &["", "-1", "wide"]);
        }
        touch().turns_without("width", "width", r#"{ "width": null }"#);
        touch().turns("unique-id", "b", "unique_id", r#"{ "unique_id": "b" }"#);
        touch().refuses("unique-id", &[]);
    }

    #[test]
    fn the_backend_says_what_serves_a_keyboard() {
        let outcome = scene().entry(r#"{ "backend_type": "linux" }"#).merge();
        assert_eq!(outcome.config.vkbs[0].backend_type, VkbBackend::Qemu);
        assert_eq!(outcome.only().changes[0].field, "backend_type");
    }

    #[test]
    fn a_keyboard_that_only_xenstore_has_is_built() {
        scene().is_built_as(r#"{ "devid": 0, "backend_type": "qemu" }"#);
        scene().gone("/libxl").is_built_as(r#"{ "devid": 0, "backend_type": "qemu" }"#);
        touch().hvm().is_built_as(
            r#"{ "devid": 0, "backend_type": "qemu", "unique_id": "touch0",
                 "feature_multi_touch": true, "multi_touch_width": 800, "multi_touch_height": 600,
                 "multi_touch_num_contacts": 10, "width": 640, "height": 480 }"#,
        );
    }

    #[test]
    fn the_keyboard_that_libxl_gives_every_hvm_domain_is_no_part_of_the_configuration() {
        let outcome = scene().entries(&[]).hvm().merge();
        assert!(outcome.config.vkbs.is_empty());
        assert_eq!(outcome.only().note, Some(DeviceNote::MadeByLibxl));
        assert!(matches!(outcome.config.b_info.kind, BuildKind::Hvm(_)));
    }
}
