//! Paravirtual displays: `vdispl`.
//!
//! All that Xenstore has of them stands in the frontend tree, in keys that the backend's domain owns.

use super::rule::flag;
use super::{Absence, Class, ClassInfo, Expected, Layout, Live, Rule, Taken, numbered_devices};
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

    const RULES: &'static [Rule<Vdispl>] = &[Rule {
        key: "be-alloc",
        field: "be_alloc",
        expected: |vdispl, _| Expected::flag(vdispl.be_alloc),
        take: |vdispl, live, _| {
            vdispl.be_alloc = flag(live)?;
            Ok(())
        },
        absent: Absence::Keep,
    }];

    /// Connectors are taken and added, never taken away: the guest can remove their directories.
    fn take_lists(vdispl: &mut Vdispl, live: &Live<'_>, taken: &mut Taken) {
        let before = vdispl.connectors.clone();
        for number in live.numbered("") {
            let mut connector = before.get(number).cloned().unwrap_or_default();
            let key = format!("{number}/resolution");
            let text = taken.text(&key, live.guests(&key));
            if let Some(size) = text.and_then(|text| taken.good(&key, resolution(text))) {
                (connector.width, connector.height) = size;
            }
            let key = format!("{number}/unique-id");
            if let Some(unique_id) = taken.text(&key, live.guests(&key)) {
                connector.unique_id = Some(unique_id.to_owned());
            }
            match vdispl.connectors.get_mut(number) {
                Some(slot) => *slot = connector,
                None => vdispl.connectors.push(connector),
            }
        }
        if vdispl.connectors != before {
            taken.change("connectors", "resolution", &shown(&before), &shown(&vdispl.connectors));
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

/// As xl writes them.
fn shown(connectors: &[Connector]) -> String {
    let one = |connector: &Connector| {
        let unique_id = connector.unique_id.as_deref().unwrap_or_default();
        format!("{unique_id}:{}x{}", connector.width, connector.height)
    };
    connectors.iter().map(one).collect::<Vec<_>>().join(";")
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
    fn each_key_of_a_display_changes_its_field() {
        scene().turns("be-alloc", "0", "be_alloc", r#"{ "be_alloc": null }"#);
        for (key, live, connectors) in [
            (
                "0/resolution",
                "1024x768",
                r#"{ "connectors": [ { "unique_id": "a", "width": 1024, "height": 768 },
                    { "unique_id": "b", "width": 800, "height": 600 } ] }"#,
            ),
            (
                "1/unique-id",
                "c",
                r#"{ "connectors": [ { "unique_id": "a", "width": 1920, "height": 1080 },
                    { "unique_id": "c", "width": 800, "height": 600 } ] }"#,
            ),
        ] {
            let outcome = scene().live(key, live).merge();
            assert_eq!(outcome.config, scene().entry(connectors).live(key, live).merge().config);
            assert_eq!(outcome.only().changes.len(), 1);
            assert_eq!(outcome.only().changes[0].field, "connectors");
        }
        let more = scene().live("2/resolution", "640x480").live("2/unique-id", "c").merge();
        assert_eq!(more.config.vdispls[0].connectors.len(), 3);
        let change = &more.only().changes[0];
        assert_eq!(change.template.as_deref(), Some("a:1920x1080;b:800x600"));
        assert_eq!(change.live.as_deref(), Some("a:1920x1080;b:800x600;c:640x480"));
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
    fn what_is_no_value_of_a_display_leaves_the_template() {
        scene().refuses("be-alloc", &["", "2"]);
        scene().refuses(
            "0/resolution",
            &["", "x", "800", "800x", "+800x600", "800x600x2", "99999999999x1"],
        );
        scene().refuses("0/unique-id", &[]);
    }
}
