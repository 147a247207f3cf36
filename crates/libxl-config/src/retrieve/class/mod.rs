//! The classes of devices: for each, a table of its keys in Xenstore and its fields in the configuration.
//!
//! Every module below has the same shape: an [`Class`] implementation whose `INFO` says where such devices are, whose
//! `RULES` say key by key what libxl writes for a field and what field a value goes to, and which says how an entry of
//! the template and a device in Xenstore are known to be the same. All judging is in `merge`.

mod disk;
mod nic;

use super::hypervisor::HypervisorView;
use super::merge::Pass;
use super::report::{Attachment, BadValue, DeviceClass};
use super::view::{SeenDevice, Text};
use crate::DomainConfig;
use crate::model::{ConfigDomid, DevId};

pub(super) use disk::Disks;
pub(super) use nic::Nics;

/// Where the devices of a class are and what is read of them.
#[derive(Debug)]
pub(super) struct ClassInfo {
    pub(super) class: DeviceClass,
    /// Directories under `/libxl/D/device` and `/local/domain/D/device`.
    pub(super) kinds: &'static [&'static str],
    /// Directories under `/local/domain/B/backend`.
    pub(super) backend_kinds: &'static [&'static str],
    /// Keys read where the device was made: the toolstack's tree, else the backend's. A `-` at the end stands for any
    /// number behind it.
    pub(super) keys: &'static [&'static str],
    /// Keys read in the frontend tree, for classes that have part of their configuration there.
    pub(super) frontend_keys: &'static [&'static str],
    pub(super) layout: Layout,
    /// Whether a device that is in the template only is left out of the configuration, as libxl does.
    pub(super) compared: bool,
    /// Kinds of backends that are ready only after a hotplug script.
    pub(super) scripted: &'static [&'static str],
}

/// Where the keys of a device are besides its own directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nowhere.
    Flat,
    /// In `port/N`, of the toolstack's and the backend's tree.
    Ports,
    /// In directories with numbers for names in the frontend tree, so many levels deep.
    Nested(usize),
}

impl ClassInfo {
    pub(super) fn reads(&self, key: &str) -> bool {
        let numbered = |stem: &str| {
            key.strip_prefix(stem).is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit()))
        };
        self.keys
            .iter()
            .any(|wanted| if wanted.ends_with('-') { numbered(wanted) } else { *wanted == key })
    }
}

const ALL: &[&ClassInfo] = &[Disks::INFO, Nics::INFO];

/// Merges every class, in the order of the configuration.
pub(super) fn for_each(pass: &mut Pass<'_, '_>) {
    pass.class::<Disks>();
    pass.class::<Nics>();
}

/// What people call a device that is only known by its directory.
pub(super) fn label_of(device: &SeenDevice) -> String {
    match device.info.class {
        DeviceClass::Disk => Disks::live_identity(&Live::whole(device)).label,
        _ => device.devid.clone(),
    }
}

/// The class whose devices are in a directory of that name.
pub(super) fn of_kind(kind: &str) -> Option<&'static ClassInfo> {
    ALL.iter().copied().find(|info| info.kinds.contains(&kind))
}

/// The class whose backends are in a directory of that name.
pub(super) fn of_backend_kind(kind: &str) -> Option<&'static ClassInfo> {
    ALL.iter().copied().find(|info| info.backend_kinds.contains(&kind))
}

/// How entries of the template and devices in Xenstore meet.
pub(super) trait Class {
    /// The entry in the configuration.
    type Device: Clone + Default + PartialEq + 'static;

    const INFO: &'static ClassInfo;
    /// Key by key, in the order of the configuration.
    const RULES: &'static [Rule<Self::Device>];

    fn list(config: &DomainConfig) -> &Vec<Self::Device>;
    fn list_mut(config: &mut DomainConfig) -> &mut Vec<Self::Device>;

    /// What the template's entry at `position` is called.
    fn identity(device: &Self::Device, position: usize) -> Identity;

    /// The devices of this class in one directory of Xenstore: most often one.
    fn entries(seen: &SeenDevice) -> Vec<Live<'_>> {
        if Self::INFO.kinds.contains(&seen.kind.as_str()) {
            vec![Live::whole(seen)]
        } else {
            Vec::new()
        }
    }

    /// What a device in Xenstore is called.
    fn live_identity(live: &Live<'_>) -> Identity;

    /// An entry for a device that only Xenstore knows, before the rules are applied.
    fn new(
        live: &Live<'_>,
        hypervisor: Option<&dyn HypervisorView>,
    ) -> Result<Self::Device, BadValue>;

    /// The field that says which domain has the backend, and whether the entry names that domain besides; `None` for
    /// classes without it.
    fn backend_domid(device: &mut Self::Device) -> Option<(&mut ConfigDomid, bool)>;

    /// How far attaching has come, for classes that tell it otherwise than by the states of both ends.
    fn judge(_live: &Live<'_>) -> Option<Attachment> {
        None
    }

    /// Whether libxl makes such a device by itself, so that it is no part of a configuration.
    fn is_made_by_libxl(_live: &Live<'_>, _config: &DomainConfig) -> bool {
        false
    }

    /// Takes over what is no single key: lists inside a device. Says what changed.
    fn take_lists(
        _device: &mut Self::Device,
        _live: &Live<'_>,
        _changes: &mut Vec<ListChange>,
    ) -> Result<(), BadValue> {
        Ok(())
    }
}

/// What a device is called: to compare, and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Equal for two names of one device.
    pub(super) key: String,
    /// As people call it.
    pub(super) label: String,
}

impl Identity {
    pub(super) fn plain(name: impl ToString) -> Self {
        Self { key: name.to_string(), label: name.to_string() }
    }

    /// A device with a number, or with the number that libxl gives it for its place in the list.
    pub(super) fn devid(devid: DevId, position: usize) -> Self {
        devid.get().map_or_else(|| Self::plain(position), Self::plain)
    }
}

/// A list inside a device that Xenstore has otherwise than the template.
pub(super) struct ListChange {
    pub(super) field: &'static str,
    pub(super) template: String,
    pub(super) live: String,
}

/// One device in Xenstore: a directory, or one of several in a directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live<'a> {
    pub(super) device: &'a SeenDevice,
    /// The number of the device in its directory, for classes that put several in one.
    pub(super) slot: Option<u32>,
}

impl<'a> Live<'a> {
    pub(super) fn whole(device: &'a SeenDevice) -> Self {
        Self { device, slot: None }
    }

    /// The name of a key of this device: `dev` is `dev-3` in slot 3.
    pub(super) fn key(&self, key: &str) -> String {
        self.slot.map_or_else(|| key.to_owned(), |slot| format!("{key}-{slot}"))
    }

    /// A value as it was when the device was made, or as the toolstack changed it since.
    pub(super) fn value(&self, key: &str) -> Option<&'a Text> {
        self.device.created(&self.key(key))
    }

    /// The same, if it is good text.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Text::Good(text) => Some(text),
            Text::Bad(_) => None,
        }
    }
}

/// How one key and one field belong together.
pub(super) struct Rule<D: 'static> {
    pub(super) key: &'static str,
    /// The field's name in JSON.
    pub(super) field: &'static str,
    /// What libxl would have written under the key for this entry.
    pub(super) expected: fn(&D, &Live<'_>) -> Expected,
    /// Takes the value of the key into the entry.
    pub(super) take: fn(&mut D, &str, &Live<'_>) -> Result<(), BadValue>,
    /// What it means that the key is not there although it was expected.
    pub(super) absent: Absence<D>,
}

/// What libxl would have written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// Whatever stands there: the entry leaves it to libxl.
    Anything,
    /// No such key.
    Nothing,
    Text(String),
    /// A name that libxl completes to a path in its directory of scripts, which is the host's own.
    Script(String),
}

impl Expected {
    pub(super) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// A key that is written only if the field is set.
    pub(super) fn optional(field: Option<&str>) -> Self {
        field.map_or(Self::Nothing, Self::text)
    }

    pub(super) fn flag(set: bool) -> Self {
        Self::text(u8::from(set))
    }

    pub(super) fn is_met_by(&self, live: Option<&str>) -> bool {
        match (self, live) {
            (Self::Anything, _) | (Self::Nothing, None) => true,
            (Self::Text(text), Some(live)) => text == live,
            (Self::Script(name), Some(live)) => {
                live == name || live.rsplit('/').next() == Some(name)
            }
            _ => false,
        }
    }

    /// As text for a report.
    pub(super) fn shown(&self) -> Option<String> {
        match self {
            Self::Anything | Self::Nothing => None,
            Self::Text(text) | Self::Script(text) => Some(text.clone()),
        }
    }
}

/// A key that holds the text of a field, and is there only if the field is set.
macro_rules! text_rule {
    ($device:ty, $key:literal, $field:ident) => {
        text_rule!($device, $key, $field, $key)
    };
    ($device:ty, $key:literal, $field:ident, $name:literal) => {
        Rule {
            key: $key,
            field: $name,
            expected: |device: &$device, _| Expected::optional(device.$field.as_deref()),
            take: |device, live, _| {
                device.$field = Some(live.to_owned());
                Ok(())
            },
            absent: Absence::Clear(|device| device.$field = None),
        }
    };
}
use text_rule;

/// What it means that an expected key is not there.
pub(super) enum Absence<D> {
    /// Nothing: not every version writes it.
    Keep,
    /// The field has this value.
    Clear(fn(&mut D)),
}

/// A path to a hotplug script as the template would have it: the bare name, if libxl's directory completes it.
pub(super) fn script_name(live: &str) -> String {
    live.strip_prefix(SCRIPT_DIRECTORY)
        .filter(|name| !name.contains('/'))
        .unwrap_or(live)
        .to_owned()
}

/// Where libxl looks for scripts that are given without a path, unless built otherwise.
const SCRIPT_DIRECTORY: &str = "/etc/xen/scripts/";

/// A script: given by path or by name, or the class's default.
pub(super) fn expected_script(field: Option<&str>, default: &'static str) -> Expected {
    match field {
        Some(path) if path.starts_with('/') => Expected::text(path),
        Some(name) => Expected::Script(name.to_owned()),
        None => Expected::Script(default.to_owned()),
    }
}

/// Reads a number of Xenstore.
pub(super) fn number<N: std::str::FromStr>(text: &str) -> Result<N, BadValue> {
    text.parse().map_err(|_| BadValue::not_a(text, "a number that fits"))
}

/// Reads `0` or `1`.
pub(super) fn flag(text: &str) -> Result<bool, BadValue> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(BadValue::not_a(text, "0 or 1")),
    }
}

/// The number that names a device's directory.
pub(super) fn directory_number(live: &Live<'_>) -> Result<DevId, BadValue> {
    let number = live.device.devid.parse().ok().filter(|number| *number >= 0);
    number
        .map(DevId::new)
        .ok_or_else(|| BadValue::not_a(&live.device.devid, "the number of a device"))
}
