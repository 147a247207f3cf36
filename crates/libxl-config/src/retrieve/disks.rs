//! The disks of one domain for whoever changes them: where their keys are, by the same rules of trust as a retrieve.

use uuid::Uuid;
use xsclient::{Client, DomId, Errno, OperationError, Path};

use super::attachment;
use super::class::{self, Live};
use super::consistent::{self, Means};
use super::knobs;
use super::plan::{BACKEND_PROGRESS, BackendPlace, Trees, under};
use super::report::{Attachment, DeviceClass};
use super::vdev;
use super::view::{BadText, DomainView, Keys, SeenDevice, Text};
use crate::model::DiskFormat;

/// The keys of the toolstack's tree that a change of an image is decided by, beside `params` itself.
const DECIDING: [&str; 5] = ["backend", "type", "device-type", "colo-host", "active-disk"];

/// What Xenstore shows of a domain and its disks.
pub(crate) struct LiveDisks {
    domid: DomId,
    view: DomainView,
}

impl LiveDisks {
    /// Reads them, in at most four round trips.
    ///
    /// They need not be of one moment: whoever writes must see in the transaction that what is
    /// [relied on](LiveDisk::relied_on) still stands.
    pub(crate) fn read(client: &mut Client, domid: DomId) -> Result<Self, OperationError> {
        let trees = Trees::of(domid);
        let reads = consistent::read(client, std::slice::from_ref(&trees), Means::default())?;
        let view = reads.first().map(|read| DomainView::of(&trees, &read.seen));
        Ok(Self { domid, view: view.unwrap_or_default() })
    }

    /// Whether there is such a domain.
    pub(crate) fn exists(&self) -> bool {
        self.view.exists
    }

    /// What the server refused to show.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (&Path, &Errno)> {
        self.view.refused.iter().map(|(path, errno)| (path, errno))
    }

    /// The value of `/local/domain/DOMID/vm`, and where it is.
    pub(crate) fn vm(&self) -> (Path, Option<&str>) {
        (vm_path(self.domid), self.view.knob("vm"))
    }

    /// The disks with this number.
    pub(crate) fn with_number(&self, number: u32) -> Vec<LiveDisk<'_>> {
        let devid = number.to_string();
        let disks = self
            .view
            .devices
            .iter()
            .filter(|device| device.info.class == DeviceClass::Disk && device.devid == devid);
        disks.map(|device| LiveDisk { domid: self.domid, device }).collect()
    }
}

/// One disk.
#[derive(Clone, Copy)]
pub(crate) struct LiveDisk<'v> {
    domid: DomId,
    device: &'v SeenDevice,
}

/// Why the backend that the toolstack's tree names is not taken for the disk's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoBackend {
    /// It names none.
    NotNamed,
    /// What it names is not the place of a backend of this disk.
    Elsewhere(String),
}

impl<'v> LiveDisk<'v> {
    /// How far attaching has come.
    pub(crate) fn attachment(&self, is_hvm: bool) -> Attachment {
        attachment::judge(self.device, is_hvm)
    }

    /// Its directory in the toolstack's tree; `None` if it has none, and then what others say of it does not count.
    pub(crate) fn toolstack(&self) -> Option<Path> {
        self.device.toolstack.as_ref()?;
        let SeenDevice { kind, devid, .. } = self.device;
        Some(under(&Trees::of(self.domid).devices, &format!("{kind}/{devid}")))
    }

    /// A value of the toolstack's tree.
    pub(crate) fn value(&self, key: &str) -> Result<Option<&'v str>, &'v BadText> {
        match self.device.toolstack.as_ref().and_then(|keys| keys.get(key)) {
            None => Ok(None),
            Some(Text::Good(text)) => Ok(Some(text)),
            Some(Text::Bad(bad)) => Err(bad),
        }
    }

    /// The directory of its backend, as the toolstack's tree names it; only a place that can be no other device's.
    pub(crate) fn backend(&self) -> Result<Path, NoBackend> {
        let told = self.value("backend").map_err(|bad| NoBackend::Elsewhere(bad.to_string()))?;
        let told = told.ok_or(NoBackend::NotNamed)?;
        let elsewhere = || NoBackend::Elsewhere(told.to_owned());
        let path: Path = told.parse().map_err(|_| elsewhere())?;
        let place = BackendPlace::of(&path).ok_or_else(elsewhere)?;
        let fits = self.device.info.backend_kinds.contains(&place.kind)
            && place.frontend_domid == self.domid
            && (place.backend_domid != self.domid || self.domid == DomId::DOM0)
            && place.devid == self.device.devid;
        if fits { Ok(path) } else { Err(elsewhere()) }
    }

    /// The nodes that say what the disk is and how far attaching has come, with what was read; not those that the guest
    /// can write.
    pub(crate) fn relied_on(&self) -> Vec<(Path, Option<String>)> {
        let mut nodes = Vec::new();
        let mut rely = |directory: &Path, keys: Option<&Keys>, key: &str| {
            // A value that is no text is refused, or decides nothing.
            match keys.and_then(|keys| keys.get(key)) {
                Some(Text::Good(text)) => nodes.push((under(directory, key), Some(text.clone()))),
                Some(Text::Bad(_)) => {}
                None => nodes.push((under(directory, key), None)),
            }
        };
        if let Some(directory) = self.toolstack() {
            for key in DECIDING {
                rely(&directory, self.device.toolstack.as_ref(), key);
            }
        }
        if let Ok(directory) = self.backend() {
            let keys = self.device.backend.as_ref().map(|backend| &backend.keys);
            for key in BACKEND_PROGRESS {
                rely(&directory, keys, key);
            }
        }
        nodes
    }

    /// Whether keys of COLO replication stand there.
    pub(crate) fn is_replicated(&self) -> bool {
        let live = Live::whole(self.device);
        live.value("colo-host").is_some() || live.value("active-disk").is_some()
    }
}

/// Where a domain's uuid is told.
pub(crate) fn vm_path(domid: DomId) -> Path {
    under(&Path::of_domain(domid), "vm")
}

/// The uuid in a value of `/local/domain/DOMID/vm`.
pub(crate) fn uuid_of_vm(vm: &str) -> Option<Uuid> {
    knobs::uuid_of_vm(vm)
}

/// The number of a vdev: of `xvda`, `hdc`, or a plain number. `None` for what is no vdev.
pub(crate) fn number(vdev: &str) -> Option<u32> {
    vdev::number(vdev)
}

/// The name of a vdev's number; `None` for a number of no known kind.
pub(crate) fn name(number: u32) -> Option<String> {
    vdev::name(number)
}

/// The `params` of an image that QEMU or tapdisk serves.
pub(crate) fn params(format: &DiskFormat, path: &str) -> String {
    format!("{}:{path}", class::format_name(format))
}

/// Format and path of such `params`.
///
/// # Errors
/// What they should have been.
pub(crate) fn parse_params(params: &str) -> Result<(DiskFormat, &str), String> {
    class::parse_params(params).map_err(|bad| bad.to_string())
}
