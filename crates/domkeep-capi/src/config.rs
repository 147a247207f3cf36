//! Configurations as texts, without any domain.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use libxl_config::json::Value;
use libxl_config::{DomainConfig, Layout as Emitted, Mode, ReadConfig, diff};
use serde::Serialize;

use crate::arguments::{empty, text};
use crate::boundary::call;
use crate::outcome::{give_json, give_text};
use crate::problem::{Error, Problem};
use crate::status::Status;

/// How a configuration is laid out.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// As libxl with yajl prints it: every libxl up to 4.20.
    Yajl = 0,
    /// As libxl with json-c prints it.
    JsonC = 1,
}

/// Reads a configuration as libxl would, and says what is odd about it.
///
/// `*findings` becomes a JSON array of objects with "path", "severity" ("note", "warning" or "error"), "message" and "position"
/// ("offset", "line", "column"), in the order of the text: empty if libxl reads the text as it says. It is freed with free().
///
/// The call succeeds whatever is found. It fails with DK_STATUS_INVALID_DATA for what is no JSON at all, or beyond the limits.
///
/// # Safety
///
/// `json` ends with a NUL. `findings` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_config_check(
    json: *const c_char,
    findings: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_config_check", error, || {
        let place = empty(findings, "findings")?;
        // SAFETY: as this function's own contract.
        let json = unsafe { text(json, "json") }?;
        give_json(place, &read(json)?.findings)
    })
}

/// Reads a configuration as libxl would or more leniently, and prints it as libxl does. Keys that libxl does not know stay.
///
/// `layout` is one of DK_LAYOUT_YAJL and DK_LAYOUT_JSON_C. `*printed` is freed with free().
///
/// # Safety
///
/// `json` ends with a NUL. `printed` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_config_print(
    json: *const c_char,
    layout: i32,
    printed: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_config_print", error, || {
        let place = empty(printed, "printed")?;
        // SAFETY: as this function's own contract.
        let json = unsafe { text(json, "json") }?;
        let layout = chosen!(layout, "dk_layout", {
            Layout::Yajl => Emitted::Yajl,
            Layout::JsonC => Emitted::JsonC,
        })?;
        give_text(place, &read(json)?.config.to_json(layout))
    })
}

#[derive(Serialize)]
struct Difference {
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// What is different between two configurations, by meaning: what one text leaves out and the other says to be the default is the
/// same.
///
/// `*differences` becomes a JSON array of objects with "path", "before" and "after", null where there is none. It is freed with
/// free().
///
/// # Safety
///
/// Both texts end with a NUL. `differences` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_config_diff(
    before: *const c_char,
    after: *const c_char,
    differences: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_config_diff", error, || {
        let place = empty(differences, "differences")?;
        // SAFETY: as this function's own contract.
        let (before, after) = unsafe { (text(before, "before")?, text(after, "after")?) };
        let changes = diff(&read(before)?.config, &read(after)?.config);
        let differences: Vec<_> = changes
            .into_iter()
            .map(|change| Difference {
                path: change.path.to_string(),
                before: change.before,
                after: change.after,
            })
            .collect();
        give_json(place, &differences)
    })
}

/// Reads a configuration leniently.
pub(crate) fn read(json: &str) -> Result<ReadConfig, Problem> {
    DomainConfig::read(json.as_bytes(), Mode::Lenient)
        .map_err(|error| Problem::of(Status::InvalidData, &error))
}
