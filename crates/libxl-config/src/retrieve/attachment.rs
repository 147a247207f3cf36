//! How far attaching or detaching a device has come, from the states that the two ends show.

use super::plan::BACKEND_PROGRESS;
use super::report::{Attachment, BackendState, Missing};
use super::view::SeenDevice;

/// Judges one device.
///
/// Both ends count their states from 1 (initialising) over 2 (the backend waits for the frontend) and 3 (the frontend waits
/// for the backend) to 4 (connected), then 5 (closing) and 6 (closed). A backend with a hotplug script is ready only once
/// the script has written `hotplug-status`.
pub(super) fn judge(device: &SeenDevice, is_hvm: bool) -> Attachment {
    let Some(backend) = &device.backend else {
        // A controller that the device model emulates has no backend; a guest's directory alone is what is left of one.
        return if device.toolstack.is_some() { Attachment::Unknown } else { half_detached(None) };
    };
    let gone = BACKEND_PROGRESS.iter().all(|key| !backend.keys.contains_key(*key));
    if gone {
        return half_detached(None);
    }
    let Some(state) = backend_state(device) else { return Attachment::Unknown };
    let unplugging = device.backend_key("online") == Some("0");
    match state {
        BackendState(5 | 6) => half_detached(Some(state)),
        _ if unplugging => half_detached(Some(state)),
        BackendState(4 | 7 | 8) => Attachment::Connected,
        BackendState(1) if is_hvm && backend.kind == "qdisk" => Attachment::Emulated,
        BackendState(1) => half_attached(state, Missing::BackendDriver),
        BackendState(2) => match script_missing(device) {
            Some(missing) => half_attached(state, missing),
            None if is_frontend_ready(device) => half_attached(state, Missing::BackendConnection),
            None => Attachment::WaitingForFrontend,
        },
        BackendState(3) => half_attached(state, Missing::BackendConnection),
        _ => Attachment::Unknown,
    }
}

/// Whether the frontend has made its rings, and not closed them again.
pub(super) fn is_frontend_ready(device: &SeenDevice) -> bool {
    matches!(state_number(device.frontend_key("state")), Some(3 | 4 | 7 | 8))
}

fn half_attached(backend_state: BackendState, missing: Missing) -> Attachment {
    Attachment::HalfAttached { backend_state, missing }
}

fn half_detached(backend_state: Option<BackendState>) -> Attachment {
    Attachment::HalfDetached { backend_state }
}

/// The state of a device's backend; `None` if it shows none.
pub(super) fn backend_state(device: &SeenDevice) -> Option<BackendState> {
    state(device.backend_key("state"))
}

fn state(text: Option<&str>) -> Option<BackendState> {
    state_number(text).map(BackendState)
}

fn state_number(text: Option<&str>) -> Option<u32> {
    text?.parse().ok()
}

/// What is missing of the hotplug script's work, if the backend has one.
fn script_missing(device: &SeenDevice) -> Option<Missing> {
    let backend = device.backend.as_ref()?;
    if !device.info.scripted.contains(&backend.kind.as_str()) {
        return None;
    }
    match device.backend_key("hotplug-status") {
        Some("connected") => None,
        Some("error") => Some(Missing::ScriptFailed(
            device.backend_key("hotplug-error").unwrap_or_default().to_owned(),
        )),
        _ => Some(Missing::Script),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieve::class::{self};
    use crate::retrieve::view::{Keys, SeenBackend, Text};

    fn keys(pairs: &[(&str, &str)]) -> Keys {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Text::Good((*value).to_owned())))
            .collect()
    }

    fn disk(kind: &str, backend: &[(&str, &str)], frontend: &[(&str, &str)]) -> SeenDevice {
        SeenDevice {
            info: class::of_kind("vbd").unwrap(),
            kind: "vbd".into(),
            devid: "51712".into(),
            toolstack: Some(keys(&[("dev", "xvda")])),
            backend: Some(SeenBackend {
                domid: Some("0".parse().unwrap()),
                kind: kind.into(),
                keys: keys(backend),
            }),
            frontend: Some(keys(frontend)),
        }
    }

    #[test]
    fn each_step_of_attaching_and_detaching_is_told_apart() {
        let script = half_attached(BackendState(2), Missing::Script);
        let failed = half_attached(BackendState(2), Missing::ScriptFailed("no loop device".into()));
        let error =
            [("state", "2"), ("hotplug-status", "error"), ("hotplug-error", "no loop device")];
        let driver = half_attached(BackendState(1), Missing::BackendDriver);
        let connection = half_attached(BackendState(2), Missing::BackendConnection);
        for (kind, backend, frontend, expected) in [
            ("vbd", &[("state", "4"), ("online", "1")][..], "4", Attachment::Connected),
            ("vbd", &[("state", "2"), ("online", "1")], "3", script),
            ("vbd", &error, "1", failed),
            (
                "vbd",
                &[("state", "2"), ("hotplug-status", "connected")],
                "1",
                Attachment::WaitingForFrontend,
            ),
            ("vbd", &[("state", "2"), ("hotplug-status", "connected")], "3", connection.clone()),
            // A guest that has closed its end does not wait for the backend.
            ("qdisk", &[("state", "2")], "6", Attachment::WaitingForFrontend),
            ("qdisk", &[("state", "2")], "1", Attachment::WaitingForFrontend),
            ("qdisk", &[("state", "2")], "3", connection),
            ("qdisk", &[("state", "1"), ("online", "1")], "1", driver),
            ("vbd", &[("state", "4"), ("online", "0")], "4", half_detached(Some(BackendState(4)))),
            ("vbd", &[("state", "5"), ("online", "0")], "4", half_detached(Some(BackendState(5)))),
            ("vbd", &[("state", "6")], "6", half_detached(Some(BackendState(6)))),
            ("vbd", &[], "4", half_detached(None)),
            ("vbd", &[("state", "what")], "4", Attachment::Unknown),
        ] {
            let device = disk(kind, backend, &[("state", frontend)]);
            assert_eq!(judge(&device, false), expected, "{kind} {backend:?} {frontend}");
        }
    }

    #[test]
    fn an_hvm_guest_that_boots_from_the_emulated_disk_is_not_half_attached() {
        let device = disk("qdisk", &[("state", "1"), ("online", "1")], &[("state", "1")]);
        assert_eq!(judge(&device, true), Attachment::Emulated);
    }
}
