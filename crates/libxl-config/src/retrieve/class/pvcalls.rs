//! PV calls frontends: `pvcalls`. They have nothing but their number and their backend.

use super::{Class, ClassInfo, Layout, Rule, numbered_devices};
use crate::model::Pvcallsif;
use crate::retrieve::report::DeviceClass;

pub(in crate::retrieve) struct Pvcalls;

impl Class for Pvcalls {
    numbered_devices!(Pvcallsif, pvcallsifs);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Pvcalls,
        kinds: &["pvcalls"],
        backend_kinds: &["pvcalls"],
        keys: &[],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<Pvcallsif>] = &[];
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;

    fn scene() -> Scene {
        Scene::new(
            "pvcallsifs",
            r#"{ "devid": 0 }"#,
            r#"
            /libxl/7/device/pvcalls/0
                backend = "/local/domain/0/backend/pvcalls/7/0"
            /local/domain/0/backend/pvcalls/7/0
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_frontend_stays_or_is_built() {
        scene().stays();
        scene().is_built_as(r#"{ "devid": 0 }"#);
    }

    #[test]
    fn a_frontend_in_the_template_only_is_kept() {
        let kept = scene().gone("/libxl/7/device").gone("/local/domain/0").merge();
        assert_eq!(kept.config.pvcallsifs.len(), 1);
        assert!(kept.only().in_configuration);
    }
}
