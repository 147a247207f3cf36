//! What Xenstore says about one domain, sorted by knob and device, with nothing judged yet.

use std::collections::BTreeMap;

use xsclient::{DomId, Errno, Path};

use super::class::ClassInfo;
use super::observed::Observed;
use super::plan::{self, BackendPlace, Place, Trees};

/// A value as text, or why it is none.
///
/// Whatever stands in Xenstore is octets, some of it written by a guest; libxl's values are ASCII text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    Good(String),
    /// Not UTF-8, or with control characters, or longer than any of libxl's values: shown escaped and cut.
    Bad(BadText),
}

/// Why a value is no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadText {
    /// The octets are no UTF-8.
    #[error("not UTF-8: \"{shown}\"")]
    NotUtf8 {
        /// The beginning, escaped.
        shown: String,
    },
    /// A control character inside.
    #[error("control character in \"{shown}\"")]
    Control {
        /// The beginning, escaped.
        shown: String,
    },
    /// Longer than [`VALUE_LEN_MAX`].
    #[error("{len} octets long, where {VALUE_LEN_MAX} are the most that make sense")]
    TooLong {
        /// Octets of the value.
        len: usize,
    },
}

/// Most octets of a value that is taken into a configuration: a path at its longest.
pub const VALUE_LEN_MAX: usize = 4096;

/// How much of a bad value an error shows.
const SHOWN_MAX: usize = 48;

impl Text {
    fn of(octets: &[u8]) -> Self {
        let shown = || octets[..octets.len().min(SHOWN_MAX)].escape_ascii().to_string();
        if octets.len() > VALUE_LEN_MAX {
            return Self::Bad(BadText::TooLong { len: octets.len() });
        }
        match str::from_utf8(octets) {
            Err(_) => Self::Bad(BadText::NotUtf8 { shown: shown() }),
            Ok(text) if text.contains(char::is_control) => {
                Self::Bad(BadText::Control { shown: shown() })
            }
            Ok(text) => Self::Good(text.to_owned()),
        }
    }
}

/// Keys of one directory, by their names; those of directories below it as `DIRECTORY/KEY`.
pub(super) type Keys = BTreeMap<String, Text>;

/// One domain in Xenstore.
#[derive(Clone, Debug, Default)]
pub(super) struct DomainView {
    /// Whether `/local/domain/DOMID` exists.
    pub(super) exists: bool,
    /// Knobs by their key below `/local/domain/DOMID`: `name`, `vm`, `memory/target`, `cpu/0/availability`, ...
    pub(super) knobs: Keys,
    /// Keys of `/libxl/DOMID`.
    pub(super) toolstack: Keys,
    /// Whether there is such a directory.
    pub(super) has_toolstack: bool,
    /// Devices of the kinds this version knows.
    pub(super) devices: Vec<SeenDevice>,
    /// Kinds of devices that this version does not know, with how many there are.
    pub(super) unknown_kinds: BTreeMap<String, usize>,
    /// Directories of the guest's that were too full to be read whole.
    pub(super) crowded: Vec<Path>,
    /// What the server refused to show.
    pub(super) refused: Vec<(Path, Errno)>,
}

/// A device as the three trees show it.
#[derive(Clone, Debug)]
pub(super) struct SeenDevice {
    pub(super) info: &'static ClassInfo,
    pub(super) kind: String,
    pub(super) devid: String,
    /// The toolstack's tree; `None` if the device has no entry there.
    pub(super) toolstack: Option<Keys>,
    pub(super) backend: Option<SeenBackend>,
    /// What the guest can write.
    pub(super) frontend: Option<Keys>,
}

/// The backend's end of a device.
#[derive(Clone, Debug)]
pub(super) struct SeenBackend {
    /// The domain that has it; `None` if the path is not one of a backend.
    pub(super) domid: Option<DomId>,
    /// The directory's name: `vbd`, `qdisk`, `vif`, ...
    pub(super) kind: String,
    /// Empty, if the directory is gone.
    pub(super) keys: Keys,
}

impl SeenDevice {
    /// A value as it was when the device was made: from the tree that only the toolstack writes, else from the backend's.
    pub(super) fn created(&self, key: &str) -> Option<&Text> {
        match &self.toolstack {
            Some(keys) if !self.info.changes_in_backend() => keys.get(key),
            _ => self.backend.as_ref()?.keys.get(key),
        }
    }

    /// A value of the backend as it is now.
    pub(super) fn backend_key(&self, key: &str) -> Option<&str> {
        good(self.backend.as_ref()?.keys.get(key))
    }

    /// A value of the frontend: the guest's word.
    pub(super) fn frontend_key(&self, key: &str) -> Option<&str> {
        good(self.frontend.as_ref()?.get(key))
    }

    /// The number that names the device, where its name is one.
    pub(super) fn number(&self) -> Option<u32> {
        self.devid.parse().ok()
    }
}

fn good(text: Option<&Text>) -> Option<&str> {
    match text? {
        Text::Good(text) => Some(text),
        Text::Bad(_) => None,
    }
}

impl DomainView {
    pub(super) fn of(trees: &Trees, seen: &Observed) -> Self {
        let mut view = Self {
            exists: seen.value(&trees.domain).is_some() || seen.is_directory(&trees.frontends),
            knobs: keys_below(seen, &trees.domain, |key| {
                !key.starts_with("device/") && !key.starts_with("backend/")
            }),
            toolstack: keys_below(seen, &trees.toolstack, |key| !key.starts_with("device/")),
            refused: seen.refused().map(|(path, errno)| (path.clone(), errno.clone())).collect(),
            ..Self::default()
        };
        // Not every toolstack writes the key that is read here.
        view.has_toolstack = !view.toolstack.is_empty() || seen.is_directory(&trees.devices);
        for place in plan::devices(trees, seen) {
            view.crowded.extend(plan::crowded(seen, &place));
            match place.info {
                Some(info) => view.devices.extend(seen_device(trees, seen, info, &place)),
                None => *view.unknown_kinds.entry(place.kind.to_string()).or_default() += 1,
            }
        }
        view
    }

    /// A knob's text, if it is one.
    pub(super) fn knob(&self, key: &str) -> Option<&str> {
        good(self.knobs.get(key))
    }

    /// A key of the toolstack's directory.
    pub(super) fn toolstack_key(&self, key: &str) -> Option<&str> {
        good(self.toolstack.get(key))
    }
}

fn seen_device(
    trees: &Trees,
    seen: &Observed,
    info: &'static ClassInfo,
    place: &Place,
) -> Option<SeenDevice> {
    let keys = |path: &Path| keys_below(seen, path, |_| true);
    let backend = place.backend.as_ref().map(|path| {
        let told = BackendPlace::of(path);
        SeenBackend {
            domid: told.map(|told| told.backend_domid),
            kind: told.map(|told| told.kind.to_owned()).unwrap_or_default(),
            keys: keys(path),
        }
    });
    let device = SeenDevice {
        info,
        kind: place.kind.to_string(),
        devid: place.devid.to_string(),
        toolstack: place.toolstack.as_ref().map(keys),
        backend: backend
            .filter(|backend| place.toolstack.is_some() || names_back(trees, place, backend)),
        frontend: place.frontend.as_ref().map(keys),
    };
    let found = device.toolstack.is_some() || device.backend.is_some() || device.frontend.is_some();
    found.then_some(device)
}

/// Whether a backend found without the toolstack's word is one of this domain: its own `frontend` key says so. What dom0
/// lists under the domain's id needs no such key, unless it names another.
fn names_back(trees: &Trees, place: &Place, backend: &SeenBackend) -> bool {
    let Some(frontend) = good(backend.keys.get("frontend")) else {
        return !plan::is_far(trees, place);
    };
    let frontend: Result<Path, _> = frontend.parse();
    frontend.is_ok_and(|frontend| frontend.is_at_or_below(&trees.domain))
}

/// All values read below a directory, by their path from there.
fn keys_below(seen: &Observed, directory: &Path, wanted: impl Fn(&str) -> bool) -> Keys {
    let values = seen.values_below(directory);
    values
        .filter(|(key, _)| !key.is_empty() && wanted(key))
        .map(|(key, value)| (key.to_owned(), Text::of(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_text_are_named_not_taken() {
        assert_eq!(Text::of(b"/tmp/a"), Text::Good("/tmp/a".into()));
        assert!(matches!(Text::of(b"\xff\xfe"), Text::Bad(BadText::NotUtf8 { .. })));
        assert!(matches!(Text::of(b"a\0b"), Text::Bad(BadText::Control { .. })));
        assert!(matches!(
            Text::of(&[b'x'; VALUE_LEN_MAX + 1]),
            Text::Bad(BadText::TooLong { len: 4097 })
        ));
    }
}
