//! The classes of devices: for each, a table of its keys in Xenstore and its fields in the configuration.
//!
//! Every module below has the same shape: an [`Class`] implementation whose `INFO` says where such devices are, whose
//! `RULES` say key by key what libxl writes for a field and what field a value goes to, and which says how an entry of
//! the template and a device in Xenstore are known to be the same. All judging is in `merge`.

#[cfg(test)]
mod captured;
mod channel;
mod disk;
#[cfg(test)]
mod documented;
#[cfg(test)]
mod hostile;
mod nic;
mod p9;
mod pci;
mod pvcalls;
mod rule;
#[cfg(test)]
mod scene;
mod usbctrl;
mod usbdev;
mod vdispl;
mod vfb;
mod virtio;
mod vkb;
mod vsnd;
mod vtpm;

use std::fmt;

use super::hypervisor::HypervisorView;
use super::merge::Pass;
use super::report::{Attachment, BadValue, DeviceClass, DeviceReport, FieldChange, Problem};
use super::view::{Keys, SeenDevice, Text};
use crate::DomainConfig;
use crate::model::{ConfigDomid, DevId};

use channel::Channels;
use disk::Disks;
pub(super) use disk::{format_name, parse_params};
use nic::Nics;
use p9::P9s;
use pci::Pcis;
use pvcalls::Pvcalls;
pub(super) use rule::{Absence, Expected, Rule};
use usbctrl::Usbctrls;
use usbdev::Usbdevs;
use vdispl::Vdispls;
use vfb::Vfbs;
use virtio::Virtios;
use vkb::Vkbs;
use vsnd::Vsnds;
use vtpm::Vtpms;

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
    /// Whether devices come and go in one directory of the backend's tree, with no record of it in the toolstack's.
    pub(super) fn changes_in_backend(&self) -> bool {
        self.class == DeviceClass::Pci
    }

    pub(super) fn reads(&self, key: &str) -> bool {
        let numbered = |stem: &str| {
            key.strip_prefix(stem).is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit()))
        };
        self.keys
            .iter()
            .any(|wanted| if wanted.ends_with('-') { numbered(wanted) } else { *wanted == key })
    }
}

/// All but USB devices, which are in the directories of their controllers.
const ALL: &[&ClassInfo] = &[
    Disks::INFO,
    Nics::INFO,
    Pcis::INFO,
    Vfbs::INFO,
    Vkbs::INFO,
    Virtios::INFO,
    Vtpms::INFO,
    P9s::INFO,
    Pvcalls::INFO,
    Vdispls::INFO,
    Vsnds::INFO,
    Channels::INFO,
    Usbctrls::INFO,
];

/// Merges every class, in the order of the configuration.
pub(super) fn for_each(pass: &mut Pass<'_, '_>) {
    pass.class::<Disks>();
    pass.class::<Nics>();
    pass.class::<Pcis>();
    pass.class::<Vfbs>();
    pass.class::<Vkbs>();
    pass.class::<Virtios>();
    pass.class::<Vtpms>();
    pass.class::<P9s>();
    pass.class::<Pvcalls>();
    pass.class::<Vdispls>();
    pass.class::<Vsnds>();
    pass.class::<Channels>();
    pass.class::<Usbctrls>();
    pass.class::<Usbdevs>();
}

/// Whether the device is a console that is no channel: libxl makes those by itself.
pub(super) fn is_console(device: &SeenDevice) -> bool {
    device.info.class == DeviceClass::Channel && Channels::entries(device).is_empty()
}

/// What people call a device that is only known by its directory.
pub(super) fn label_of(device: &SeenDevice) -> String {
    match device.info.class {
        DeviceClass::Disk => Disks::live_identity(&Live::whole(device)).label,
        DeviceClass::Channel => Channels::live_identity(&Live::whole(device)).label,
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
    fn judge(_live: &Live<'_>, _is_hvm: bool) -> Option<Attachment> {
        None
    }

    /// Whether libxl makes such a device by itself, so that it is no part of a configuration.
    fn is_made_by_libxl(_live: &Live<'_>, _config: &DomainConfig) -> bool {
        false
    }

    /// Takes over what is no single key: lists inside a device, and what the kind of the backend says.
    fn take_lists(_device: &mut Self::Device, _live: &Live<'_>, _taken: &mut Taken) {}

    /// Takes into an entry that is built from Xenstore what only the guest says: its word counts where there is no
    /// template, and never against one.
    fn take_guests_word(_device: &mut Self::Device, _live: &Live<'_>, _taken: &mut Taken) {}

    /// Whether the device may be the one of an entry that left its place to libxl; never, if the entry says the place.
    fn may_be(_device: &Self::Device, _live: &Live<'_>) -> bool {
        false
    }
}

/// The functions of [`Class`] that are alike in all classes whose devices have a number in `devid` and a domain for the
/// backend; `$finish` completes the entry for a device that only Xenstore knows.
macro_rules! numbered_devices {
    ($device:ident, $list:ident) => {
        numbered_devices!($device, $list, |_, _| {});
    };
    ($device:ident, $list:ident, $finish:expr) => {
        type Device = $device;

        fn list_mut(config: &mut $crate::DomainConfig) -> &mut Vec<$device> {
            &mut config.$list
        }

        fn identity(device: &$device, position: usize) -> $crate::retrieve::class::Identity {
            $crate::retrieve::class::Identity::devid(device.devid, position)
        }

        fn live_identity(
            live: &$crate::retrieve::class::Live<'_>,
        ) -> $crate::retrieve::class::Identity {
            $crate::retrieve::class::Identity::plain(&live.device.devid)
        }

        fn new(
            live: &$crate::retrieve::class::Live<'_>,
            _hypervisor: Option<&dyn $crate::retrieve::hypervisor::HypervisorView>,
        ) -> Result<$device, $crate::retrieve::report::BadValue> {
            let finish: fn(&mut $device, &$crate::retrieve::class::Live<'_>) = $finish;
            let mut device = $device {
                devid: $crate::retrieve::class::directory_number(live)?,
                ..$device::default()
            };
            finish(&mut device, live);
            Ok(device)
        }

        fn backend_domid(device: &mut $device) -> Option<(&mut $crate::model::ConfigDomid, bool)> {
            Some((&mut device.backend_domid, device.backend_domname.is_some()))
        }
    };
}
use numbered_devices;

/// What a device is called: to compare, and to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Equal for two names of one device.
    pub(super) key: String,
    /// As people call it.
    pub(super) label: String,
}

impl Identity {
    #[expect(clippy::needless_pass_by_value, reason = "most callers have a number or a reference")]
    pub(super) fn plain(name: impl ToString) -> Self {
        Self { key: name.to_string(), label: name.to_string() }
    }

    /// A device with a number, or with the number that libxl gives it for its place in the list.
    pub(super) fn devid(devid: DevId, position: usize) -> Self {
        devid.get().map_or_else(|| Self::plain(position), Self::plain)
    }
}

/// What was taken into an entry beside the rules, and what could not be.
#[derive(Default)]
pub(super) struct Taken {
    changes: Vec<FieldChange>,
    problems: Vec<Problem>,
}

impl Taken {
    pub(super) fn change(&mut self, field: &'static str, key: &str, template: &str, live: &str) {
        let (template, live) = (Some(template.to_owned()), Some(live.to_owned()));
        self.changes.push(FieldChange { field, key: key.to_owned(), template, live });
    }

    pub(super) fn problem(&mut self, key: &str, what: impl fmt::Display) {
        self.problems.push(Problem::new(key, what));
    }

    /// The text of a value, if it is there and is text.
    pub(super) fn text<'t>(&mut self, key: &str, value: Option<&'t Text>) -> Option<&'t str> {
        match value? {
            Text::Good(text) => Some(text),
            Text::Bad(bad) => {
                self.problem(key, bad);
                None
            }
        }
    }

    /// What was parsed, if it could be.
    pub(super) fn good<T>(&mut self, key: &str, parsed: Result<T, BadValue>) -> Option<T> {
        parsed.map_err(|bad| self.problem(key, bad)).ok()
    }

    /// What serves the device, as the kind of its backend says, unless the entry leaves it open.
    pub(super) fn server<T: PartialEq + fmt::Display + Default>(
        &mut self,
        field: &'static str,
        ours: &mut T,
        serves: Option<T>,
    ) {
        if let Some(serves) = serves.filter(|serves| *ours != T::default() && serves != ours) {
            self.change(field, "backend", &ours.to_string(), &serves.to_string());
            *ours = serves;
        }
    }

    pub(super) fn into_report(self, report: &mut DeviceReport) {
        report.changes.extend(self.changes);
        report.problems.extend(self.problems);
    }
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

    /// A value as it was when the device was made, or as the toolstack changed it since; for the keys that the class has
    /// in the frontend tree, the value there.
    pub(super) fn value(&self, key: &str) -> Option<&'a Text> {
        if self.device.info.frontend_keys.contains(&key) {
            return self.guests(key);
        }
        self.device.created(&self.key(key))
    }

    /// A value of the frontend tree, which is the guest's.
    pub(super) fn guests(&self, key: &str) -> Option<&'a Text> {
        self.device.frontend.as_ref()?.get(key)
    }

    /// The directories with numbers for names below one of the frontend tree, `directory` being empty or ending in `/`.
    pub(super) fn numbered(&self, directory: &str) -> Vec<usize> {
        let keys = self.device.frontend.iter().flat_map(Keys::keys);
        let below = keys.filter_map(|key| key.strip_prefix(directory)?.split_once('/'));
        let mut numbers: Vec<usize> = below
            .filter(|(name, _)| is_number(name))
            .filter_map(|(name, _)| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The kind of the backend: `vbd`, `qdisk`, ...
    pub(super) fn backend_kind(&self) -> Option<&'a str> {
        Some(self.device.backend.as_ref()?.kind.as_str())
    }

    /// The same, if it is good text.
    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Text::Good(text) => Some(text),
            Text::Bad(_) => None,
        }
    }
}

/// The number that names a device's directory.
pub(super) fn directory_number(live: &Live<'_>) -> Result<DevId, BadValue> {
    let number = live.device.devid.parse().ok().filter(|number| *number >= 0);
    number
        .map(DevId::new)
        .ok_or_else(|| BadValue::not_a(&live.device.devid, "the number of a device"))
}

/// A number as libxl writes one: no sign, no leading zero.
fn is_number(name: &str) -> bool {
    name.bytes().all(|c| c.is_ascii_digit()) && (name == "0" || !name.starts_with('0'))
}
