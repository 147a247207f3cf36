//! Virtual TPMs: `vtpm`.

use uuid::Uuid;

use super::{Absence, Class, ClassInfo, Expected, Layout, Rule, numbered_devices};
use crate::model::Vtpm;
use crate::retrieve::report::{BadValue, DeviceClass};

pub(in crate::retrieve) struct Vtpms;

impl Class for Vtpms {
    numbered_devices!(Vtpm, vtpms);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Vtpm,
        kinds: &["vtpm"],
        backend_kinds: &["vtpm"],
        keys: &["uuid"],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: true,
        scripted: &[],
    };

    const RULES: &'static [Rule<Vtpm>] = &[Rule {
        key: "uuid",
        field: "uuid",
        expected: |vtpm, _| {
            if vtpm.uuid.is_nil() { Expected::Anything } else { Expected::text(vtpm.uuid) }
        },
        take: |vtpm, live, _| {
            vtpm.uuid = Uuid::try_parse(live).map_err(|_| BadValue::not_a(live, "a uuid"))?;
            Ok(())
        },
        absent: Absence::Keep,
    }];
}
