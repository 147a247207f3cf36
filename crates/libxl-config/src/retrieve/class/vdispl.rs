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
