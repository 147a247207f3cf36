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
