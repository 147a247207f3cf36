//! Paravirtual displays: `vdispl`.
//!
//! All that Xenstore has of them stands in the frontend tree. The keys are the backend's domain's, but the directory around
//! them is the guest's, who can remove it and write others: so they count only where there is no template.

use super::rule::flag;
use super::{Class, ClassInfo, Layout, Live, Rule, Taken, numbered_devices};
use crate::model::{Connector, Vdispl};
use crate::retrieve::report::{BadValue, DeviceClass};

pub(in crate::retrieve) struct Vdispls;

impl Class for Vdispls {
    numbered_devices!(Vdispl, vdispls);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Vdispl,
        kinds: &["vdispl"],
        backend_kinds: &["vdispl"],
        keys: &[],
        frontend_keys: &["be-alloc", "resolution", "unique-id"],
        layout: Layout::Nested(1),
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Vdispl>] = &[];

    fn take_guests_word(vdispl: &mut Vdispl, live: &Live<'_>, taken: &mut Taken) {
        let text = taken.text("be-alloc", live.guests("be-alloc"));
        vdispl.be_alloc =
            text.and_then(|text| taken.good("be-alloc", flag(text))).unwrap_or_default();
        for number in live.numbered("") {
            let mut connector = Connector::default();
            let key = format!("{number}/resolution");
            let text = taken.text(&key, live.guests(&key));
            if let Some(size) = text.and_then(|text| taken.good(&key, resolution(text))) {
                (connector.width, connector.height) = size;
            }
            let key = format!("{number}/unique-id");
            connector.unique_id = taken.text(&key, live.guests(&key)).map(str::to_owned);
            vdispl.connectors.push(connector);
        }
    }
}

/// `WIDTHxHEIGHT`, in pixels.
fn resolution(text: &str) -> Result<(u32, u32), BadValue> {
    let size = text.split_once('x').and_then(|(width, height)| {
        let size = (width.parse().ok()?, height.parse().ok()?);
        (format!("{}x{}", size.0, size.1) == text).then_some(size)
    });
    size.ok_or_else(|| BadValue::not_a(text, "WIDTHxHEIGHT"))
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    const ENTRY: &str = r#"{ "devid": 0, "be_alloc": true, "connectors": [
        { "unique_id": "a", "width": 1920, "height": 1080 },
        { "unique_id": "b", "width": 800, "height": 600 } ] }"#;

    fn scene() -> Scene {
        Scene::new(
            "vdispls",
            ENTRY,
            r#"
            /local/domain/7/device/vdispl/0
                state = "4"
                be-alloc = "1"
                0/resolution = "1920x1080"
                0/unique-id = "a"
                1/resolution = "800x600"
                1/unique-id = "b"
            /libxl/7/device/vdispl/0
                backend = "/local/domain/0/backend/vdispl/7/0"
            /local/domain/0/backend/vdispl/7/0
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_display_stays() {
        scene().stays();
    }

    #[test]
    fn what_the_guest_can_forge_never_counts_against_the_template() {
        for (key, live) in [
            ("be-alloc", "0"),
            ("0/resolution", "1024x768"),
            ("1/unique-id", "c"),
            ("2/unique-id", "d"),
        ] {
            scene().live(key, live).stays();
        }
    }

    #[test]
    fn a_guest_that_removes_keys_takes_nothing_away() {
        scene().gone("0").stays();
        scene().gone("be-alloc").stays();
        scene().gone("/local/domain/7/device").stays();
    }

    #[test]
    fn a_display_is_built() {
        scene().is_built_as(ENTRY);
    }

    #[test]
    fn one_bad_value_is_named_and_the_rest_of_the_display_is_built() {
        for (key, values) in [
            ("be-alloc", &["", "2"][..]),
            ("0/resolution", &["", "x", "800", "800x", "+800x600", "800x600x2", "99999999999x1"]),
        ] {
            for value in values {
                let outcome = scene().entries(&[]).live(key, value).merge();
                assert_eq!(outcome.config.vdispls[0].connectors.len(), 2, "{key} {value}");
                let [problem] = &outcome.only().problems[..] else {
                    panic!("{:#?}", outcome.only())
                };
                assert_eq!(problem.at, key, "{value}");
            }
        }
        let outcome = scene().entries(&[]).live("0/unique-id", b"\xff\x1b").merge();
        assert_eq!(outcome.only().problems[0].at, "0/unique-id");
        assert_eq!(outcome.config.vdispls[0].connectors.len(), 2);
    }
}
