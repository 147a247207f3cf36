//! What a retrieved configuration is made of: where every value came from, and where the two views disagree.

use std::fmt;

use serde::Serialize;
use xsclient::{Errno, Path};

use super::plan::GUEST_CHILDREN_MAX;
use super::view::BadText;
use crate::template::Revision;

/// The account of one retrieved configuration.
///
/// Everything that was not taken over as it stood is in here: nothing is dropped without a line of its own.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The template, and whether there is one.
    pub template: TemplateSource,
    /// Whether all of the view is of one moment.
    pub consistency: Consistency,
    /// Knobs that are not devices, in the order of the configuration.
    pub knobs: Vec<KnobReport>,
    /// Every device that the template or Xenstore knows.
    pub devices: Vec<DeviceReport>,
    /// What could not be seen or understood beside the knobs and devices.
    pub unseen: Vec<Unseen>,
}

impl Report {
    /// The report of one device, by its class and its name in it (`xvda`, `0`, `0000:03:00.0`).
    pub fn device(&self, class: DeviceClass, id: &str) -> Option<&DeviceReport> {
        self.devices.iter().find(|device| device.class == class && device.id == id)
    }

    /// The report of one knob, by its place in the configuration (`b_info.target_memkb`).
    pub fn knob(&self, field: &str) -> Option<&KnobReport> {
        self.knobs.iter().find(|knob| knob.field == field)
    }

    /// Whether template and Xenstore say the same and everything could be seen, but for what only a hypervisor could
    /// have told.
    ///
    /// This is about the domain. A device that is half attached makes its report unclean, although all of it was seen. Who asks
    /// only whether the configuration can be relied on looks at `template`, `consistency`, `unseen` and every `problem`.
    pub fn is_clean(&self) -> bool {
        let settled = |device: &DeviceReport| {
            device.presence == Presence::Both && device.attachment.is_settled()
                || matches!(device.note, Some(DeviceNote::MadeByLibxl))
        };
        matches!(self.template, TemplateSource::Found { .. })
            && matches!(self.consistency, Consistency::Consistent { .. })
            && self.unseen.iter().all(|unseen| matches!(unseen, Unseen::Hypervisor { .. }))
            && self.knobs.iter().all(|knob| knob.problem.is_none())
            && self.devices.iter().all(|device| settled(device) && device.problems.is_empty())
    }
}

/// Where the template came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "template", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TemplateSource {
    /// The store has it.
    Found {
        /// Its revision.
        revision: Revision,
        /// What its reader noted: every deviation from what libxl writes.
        findings: Vec<String>,
    },
    /// The store has none, so the configuration is built from Xenstore alone.
    Missing,
    /// The store has one for this domid, but of another domain.
    OfAnotherDomain {
        /// The uuids of those there are.
        uuids: Vec<uuid::Uuid>,
    },
    /// The store has one that cannot be used, so the configuration is built from Xenstore alone.
    Unreadable {
        /// Why.
        error: String,
    },
}

/// Whether all that was read of Xenstore is of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "consistency", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Consistency {
    /// Nothing changed while it was read; what the guest itself can write does not count behind a fence.
    Consistent {
        /// How often it had to be read until then.
        attempts: u32,
    },
    /// Something changed in every attempt; the configuration is that of the last.
    Changing {
        /// How often it was read.
        attempts: u32,
        /// What changed during the last.
        changed: Vec<String>,
    },
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// The template.
    Template,
    /// Xenstore, where it differs from what libxl would have written for the template's value.
    Xenstore,
    /// Both, which agree.
    Both,
    /// The hypervisor.
    Hypervisor,
    /// Neither has it.
    Nowhere,
}

/// Where one knob came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct KnobReport {
    /// Its place in the configuration: `b_info.target_memkb`.
    pub field: String,
    /// Where the value came from.
    pub source: Source,
    /// The template's value, if another was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What Xenstore or the hypervisor says, if it was taken or could not be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<String>,
    /// Why the live value could not be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A class of devices: an array of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is named after its array in the configuration")]
pub enum DeviceClass {
    Disk,
    Nic,
    Pci,
    Vfb,
    Vkb,
    Virtio,
    Vtpm,
    P9,
    Pvcalls,
    Vdispl,
    Vsnd,
    Channel,
    Usbctrl,
    Usbdev,
    /// The main console, which has no array.
    Console,
}

impl DeviceClass {
    /// The name in reports: `disk`, `nic`, ...
    pub const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Nic => "nic",
            Self::Pci => "pci",
            Self::Vfb => "vfb",
            Self::Vkb => "vkb",
            Self::Virtio => "virtio",
            Self::Vtpm => "vtpm",
            Self::P9 => "p9",
            Self::Pvcalls => "pvcalls",
            Self::Vdispl => "vdispl",
            Self::Vsnd => "vsnd",
            Self::Channel => "channel",
            Self::Usbctrl => "usbctrl",
            Self::Usbdev => "usbdev",
            Self::Console => "console",
        }
    }
}

impl fmt::Display for DeviceClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What became of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceReport {
    /// Its class.
    pub class: DeviceClass,
    /// Its name in the class: the vdev of a disk, the devid of a nic, the address of a PCI function.
    pub id: String,
    /// Which views know it.
    pub presence: Presence,
    /// How far attaching or detaching has come.
    pub attachment: Attachment,
    /// Whether it is in the configuration.
    pub in_configuration: bool,
    /// Fields that Xenstore has otherwise than the template.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldChange>,
    /// Values that could not be taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// Why it is in the configuration although only one view knows it, or is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<DeviceNote>,
}

/// Which of the two views know a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// The template and Xenstore.
    Both,
    /// The template only: it was unplugged, or plugging it failed before Xenstore was written.
    TemplateOnly,
    /// Xenstore only: it was plugged in without the template, by another toolstack or by an old libxl.
    XenstoreOnly,
}

/// The state of a backend: Xen's `XenbusState`, unknown numbers kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct BackendState(pub u32);

impl BackendState {
    /// The name in Xen's headers; `None` for an unknown number.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "unknown",
            1 => "initialising",
            2 => "init-wait",
            3 => "initialised",
            4 => "connected",
            5 => "closing",
            6 => "closed",
            7 => "reconfiguring",
            8 => "reconfigured",
            _ => return None,
        })
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0, self.name().unwrap_or("no such state"))
    }
}

/// How far attaching or detaching a device has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "is", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Attachment {
    /// Both ends are connected.
    Connected,
    /// The backend is ready; the guest has no driver for the device, or has not loaded it.
    WaitingForFrontend,
    /// An HVM guest that uses what QEMU emulates, and not the paravirtual device.
    Emulated,
    /// Attaching did not come to its end.
    HalfAttached {
        /// The state of the backend.
        backend_state: BackendState,
        /// What is missing.
        missing: Missing,
    },
    /// Detaching did not come to its end.
    HalfDetached {
        /// The state of the backend; `None` if its directory is gone.
        backend_state: Option<BackendState>,
    },
    /// Not in Xenstore.
    Absent,
    /// There is nothing to tell it by, or nobody asked ([`Retriever::attachments`](super::Retriever::attachments)).
    Unknown,
}

impl Attachment {
    /// Whether nothing is going on and nothing is left undone.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Connected | Self::WaitingForFrontend | Self::Emulated | Self::Unknown)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::WaitingForFrontend => f.write_str("waiting for the frontend"),
            Self::Emulated => f.write_str("emulated"),
            Self::HalfAttached { backend_state, missing } => {
                write!(f, "half attached, backend state {backend_state}: {missing}")
            }
            Self::HalfDetached { backend_state: Some(state) } => {
                write!(f, "half detached, backend state {state}")
            }
            Self::HalfDetached { backend_state: None } => f.write_str("half detached, no backend"),
            Self::Absent => f.write_str("not attached"),
            Self::Unknown => f.write_str("state not known"),
        }
    }
}

/// What is missing in a half-attached device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Missing {
    /// The backend's driver has not begun.
    BackendDriver,
    /// The hotplug script has not finished.
    Script,
    /// The hotplug script failed, with what it said.
    ScriptFailed(String),
    /// The frontend is there, the backend has not connected to it.
    BackendConnection,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BackendDriver => f.write_str("the backend driver has not begun"),
            Self::Script => f.write_str("the hotplug script has not finished"),
            Self::ScriptFailed(said) if said.is_empty() => f.write_str("the hotplug script failed"),
            Self::ScriptFailed(said) => write!(f, "the hotplug script failed: {said}"),
            Self::BackendConnection => f.write_str("the backend has not connected"),
        }
    }
}

/// A field that Xenstore has otherwise than the template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FieldChange {
    /// The field of the device: `pdev_path`.
    pub field: &'static str,
    /// The key in Xenstore that says so: `params`.
    pub key: String,
    /// What libxl would have written for the template's value; `None` if nothing.
    pub template: Option<String>,
    /// What stands there; `None` if nothing.
    pub live: Option<String>,
}

/// Why a device is in the configuration although only one view knows it, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceNote {
    /// In the template only, and left out: Xenstore decides in this class.
    LeftOut,
    /// In the template only, and kept: libxl does not compare this class with Xenstore.
    Kept,
    /// In the template only, and kept, since Xenstore could not be seen.
    KeptUnseen,
    /// In Xenstore only, and built from its keys.
    Built,
    /// In Xenstore only, and left out: the template alone was asked for.
    NotAsked,
    /// In Xenstore only, and left out: libxl makes it by itself.
    MadeByLibxl,
    /// In Xenstore only, and left out: the toolstack has removed it, and one of the ends has not gone yet.
    Leftover,
    /// In Xenstore only, and left out: its keys do not say enough for an entry.
    TooLittleKnown,
}

impl fmt::Display for DeviceNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LeftOut => "in the template only, left out",
            Self::Kept => "in the template only, kept",
            Self::KeptUnseen => "in the template only as far as could be seen, kept",
            Self::Built => "in Xenstore only, built from it",
            Self::NotAsked => "in Xenstore only, left out as asked",
            Self::MadeByLibxl => "made by libxl itself, not part of a configuration",
            Self::Leftover => "left over from a device that the toolstack has removed",
            Self::TooLittleKnown => "in Xenstore only, left out: too little is known for an entry",
        })
    }
}

/// A value that could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Problem {
    /// The key in Xenstore, or the place in the configuration.
    pub at: String,
    /// What is wrong with it.
    pub what: String,
}

impl Problem {
    pub(super) fn new(at: impl Into<String>, what: impl fmt::Display) -> Self {
        Self { at: at.into(), what: what.to_string() }
    }
}

/// Something that could not be seen or understood.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "unseen", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Unseen {
    /// The server refused to show it.
    Refused {
        /// What.
        path: String,
        /// With which error.
        error: String,
    },
    /// Devices of a kind this version does not know.
    UnknownKind {
        /// The kind.
        kind: String,
        /// How many there are.
        devices: usize,
    },
    /// What only the hypervisor knows, and nobody told: the template's values stand.
    Hypervisor {
        /// The fields.
        fields: Vec<&'static str>,
    },
    /// There is no `/libxl/DOMID`, so devices were found by their frontends and backends, which others than the
    /// toolstack can write.
    NoToolstackTree,
    /// Not read: it came to light only on the last level, because the tree changed shape meanwhile.
    Unread {
        /// What.
        path: String,
    },
    /// Not all of it read: the guest can write there, and has more than any device needs.
    Crowded {
        /// The directory.
        path: String,
        /// How many of the directories in it were read.
        read: usize,
    },
    /// The hypervisor could not be asked.
    HypervisorFailed {
        /// Why.
        error: String,
    },
}

impl Unseen {
    pub(super) fn crowded(path: &Path) -> Self {
        Self::Crowded { path: path.to_string(), read: GUEST_CHILDREN_MAX }
    }

    pub(super) fn refused(path: &Path, errno: &Errno) -> Self {
        Self::Refused { path: path.to_string(), error: errno.name().to_owned() }
    }
}

/// Why a live value does not fit its field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadValue {
    /// It is no text.
    #[error(transparent)]
    Text(#[from] BadText),
    /// It is no value of that field.
    #[error("\"{value}\" is not {wanted}")]
    NotA {
        /// The value, as text.
        value: String,
        /// What the field takes.
        wanted: &'static str,
    },
    /// Nobody but the guest says that there is such a device.
    #[error("no backend belongs to it, so that only the guest says it exists")]
    NoBackend,
    /// The key is missing, and the field cannot be without it.
    #[error("missing, and the device cannot be described without it")]
    Missing,
}

impl BadValue {
    pub(super) fn not_a(value: &str, wanted: &'static str) -> Self {
        Self::NotA { value: value.to_owned(), wanted }
    }
}
