//! 9pfs shares: `9pfs`, served by `9pfs` (QEMU) or `xen_9pfs` (xen-9pfsd).

use super::rule::{flag, number_rule, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Live, Rule, Taken, numbered_devices};
use crate::model::{P9, P9Type};
use crate::retrieve::report::{BadValue, DeviceClass};

pub(in crate::retrieve) struct P9s;

impl Class for P9s {
    numbered_devices!(P9, p9s, |p9, live| p9.p9_type = served_by(live).unwrap_or_default());

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::P9,
        kinds: &["9pfs"],
        backend_kinds: &["9pfs", "xen_9pfs"],
        keys: &[
            "path",
            "security_model",
            "max-space",
            "max-files",
            "max-open-files",
            "auto-delete",
        ],
        frontend_keys: &["tag"],
        layout: Layout::Nested(0),
        compared: false,
        scripted: &[],
    };

    const RULES: &'static [Rule<P9>] = &[
        text_rule!(P9, "path", path),
        text_rule!(P9, "security_model", security_model),
        number_rule!(P9, "max-space", max_space, "max_space"),
        number_rule!(P9, "max-files", max_files, "max_files"),
        number_rule!(P9, "max-open-files", max_open_files, "max_open_files"),
        Rule {
            key: "auto-delete",
            field: "auto_delete",
            expected: |p9, _| Expected::flag(p9.auto_delete),
            take: |p9, live, _| {
                p9.auto_delete = flag(live)?;
                Ok(())
            },
            // Only xen-9pfsd's has it.
            absent: Absence::Keep,
        },
    ];

    fn take_lists(p9: &mut P9, live: &Live<'_>, taken: &mut Taken) {
        let Some(serves) = served_by(live) else { return };
        if p9.p9_type != P9Type::Unknown && p9.p9_type != serves {
            taken.change("type", "backend", p9.p9_type.name(), serves.name());
            p9.p9_type = serves;
        }
    }

    /// The tag stands in the guest's tree only.
    fn take_guests_word(p9: &mut P9, live: &Live<'_>, taken: &mut Taken) {
        p9.tag = taken.text("tag", live.guests("tag")).map(str::to_owned);
        if live.guests("tag").is_none() {
            taken.problem("tag", BadValue::Missing);
        }
    }
}

fn served_by(live: &Live<'_>) -> Option<P9Type> {
    match live.backend_kind()? {
        "9pfs" => Some(P9Type::Qemu),
        "xen_9pfs" => Some(P9Type::Xen9pfsd),
        _ => None,
    }
}
