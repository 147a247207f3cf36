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

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    fn scene() -> Scene {
        Scene::new(
            "vtpms",
            r#"{ "devid": 0, "backend_domid": 2, "uuid": "0f7f9f14-7b4b-4d56-9a13-0c0e3d7c5a01" }"#,
            r#"
            /libxl/7/device/vtpm/0
                frontend = "/local/domain/7/device/vtpm/0"
                backend = "/local/domain/2/backend/vtpm/7/0"
                handle = "0"
                uuid = "0f7f9f14-7b4b-4d56-9a13-0c0e3d7c5a01"
                resume = "False"
            /local/domain/2/backend/vtpm/7/0
                frontend = "/local/domain/7/device/vtpm/0"
                uuid = "ffffffff-ffff-ffff-ffff-ffffffffffff"
                state = "4"
            /local/domain/7/device/vtpm/0
                handle = "0"
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_tpm_stays_whatever_its_driver_domain_writes() {
        scene().stays();
        scene().entry(r#"{ "uuid": null }"#).stays();
        scene().entry(r#"{ "devid": null }"#).stays();
        scene().entry(r#"{ "backend_domid": null, "backend_domname": "tpm" }"#).stays();
    }

    #[test]
    fn a_tpms_uuid_and_backend_follow_the_toolstack() {
        scene().turns(
            "uuid",
            "00000000-0000-0000-0000-000000000001",
            "uuid",
            r#"{ "uuid": "00000000-0000-0000-0000-000000000001" }"#,
        );
        let moved = scene().entry(r#"{ "backend_domid": 3 }"#).merge();
        assert_eq!(moved.config.vtpms[0].backend_domid.get(), 2);
        assert_eq!(moved.only().changes[0].field, "backend_domid");
    }

    #[test]
    fn a_tpm_is_built_with_its_backend() {
        scene().is_built_as(
            r#"{ "devid": 0, "backend_domid": 2, "uuid": "0f7f9f14-7b4b-4d56-9a13-0c0e3d7c5a01" }"#,
        );
    }

    #[test]
    fn a_uuid_that_is_none_leaves_the_template() {
        scene().refuses("uuid", &["", "0f7f9f14", "no"]);
    }
}
