//! What a device is in Xenstore: every key that libxl writes for its entry, and whether it can be plugged at all.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path as FilePath;

use xsclient::{Batch, Client, DomId, Nodes, OperationError, Perms};

use super::claim;
use super::place::{Place, fixed};
use super::refusal::{DeviceModel, Refusal};
use super::script::NicNames;
use super::{Device, DeviceId};
use crate::model::{
    ConfigDomid, DefBool, DevId, Disk, DiskBackend, DiskFormat, DiskSpecification, Mac, Nic,
    NicType, P9, P9Type,
};
use crate::retrieve::{DeviceClass, disks};

/// Where libxl looks for scripts that are given without a path.
pub(super) const SCRIPT_DIRECTORY: &str = "/etc/xen/scripts";

/// The bridge of a nic that names none.
const BRIDGE_DEFAULT: &str = "xenbr0";

/// The MTU of a nic that says none, which only the frontend is told.
const MTU_DEFAULT: i32 = 1500;

/// What decides about a device beside its entry.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) domain_type: Option<String>,
    pub(super) device_model: DeviceModel,
    pub(super) script_directory: String,
}

impl Facts {
    pub(super) fn read(
        client: &mut Client,
        domid: DomId,
        script_directory: &str,
    ) -> Result<Self, OperationError> {
        let mut batch = Batch::new();
        let kind = batch.read(fixed(&format!("/libxl/{domid}/type")));
        let state = batch.read(fixed(&format!("/local/domain/0/device-model/{domid}/state")));
        let pid = batch.read(fixed(&format!("/local/domain/{domid}/image/device-model-pid")));
        let mut replies = client.run(batch)?;
        let text = |value: Option<Vec<u8>>| value.and_then(|value| String::from_utf8(value).ok());
        let kind = text(replies.take_optional(kind)?);
        let state = text(replies.take_optional(state)?);
        let pid = text(replies.take_optional(pid)?).and_then(|pid| pid.parse().ok());
        let device_model = match (state.as_deref(), pid) {
            (Some("running"), Some(pid)) if !claim::is_running(pid) => DeviceModel::Dead { pid },
            (Some("running"), pid) => DeviceModel::Running { pid },
            (Some(state), _) => DeviceModel::NotRunning { state: state.to_owned() },
            (None, _) => DeviceModel::None,
        };
        Ok(Self { domain_type: kind, device_model, script_directory: script_directory.to_owned() })
    }

    /// The path of a script.
    fn script(&self, named: Option<&str>, default: &str) -> String {
        let name = named.unwrap_or(default);
        if name.contains('/') {
            name.to_owned()
        } else {
            format!("{}/{name}", self.script_directory)
        }
    }
}

/// A device that can be plugged, but for the number that it may still need.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) class: DeviceClass,
    pub(super) backend_kind: &'static str,
    pub(super) script: Option<String>,
    pub(super) names: NicNames,
    /// The entry for the template, with what was chosen for it.
    entry: Device,
    /// Keys of the backend behind `frontend`, with the state where libxl has it.
    backend: Vec<(&'static str, Value)>,
    /// Keys of the frontend behind `state`.
    frontend: Vec<(&'static str, Value)>,
    /// Keys in the frontend's directory that the guest may only read.
    read_only: Vec<(&'static str, String)>,
}

#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Domid,
    Devid,
}

/// What to write: a directory, its permissions, its keys.
pub(super) struct Directory {
    pub(super) path: xsclient::Path,
    pub(super) perms: Perms,
    pub(super) keys: Vec<(&'static str, String)>,
}

impl Plan {
    /// Works out what a device becomes.
    ///
    /// # Errors
    /// Everything that speaks against it.
    pub(super) fn of(device: &Device, facts: &Facts) -> Result<Self, Vec<Refusal>> {
        let mut refusals = Vec::new();
        let plan = match device {
            Device::Disk(disk) => disk_plan(disk, facts, &mut refusals),
            Device::Nic(nic) => nic_plan(nic, facts, &mut refusals),
            Device::P9(p9) => p9_plan(p9, facts, &mut refusals),
        };
        if let Some(script) = plan.script.as_deref().filter(|_| refusals.is_empty())
            && !FilePath::new(script).is_file()
        {
            refusals.push(Refusal::NoScript { script: script.to_owned() });
        }
        if refusals.is_empty() { Ok(plan) } else { Err(refusals) }
    }

    /// The same, whatever speaks against it.
    #[cfg(test)]
    pub(super) fn unchecked(device: &Device, facts: &Facts) -> Self {
        let mut refusals = Vec::new();
        match device {
            Device::Disk(disk) => disk_plan(disk, facts, &mut refusals),
            Device::Nic(nic) => nic_plan(nic, facts, &mut refusals),
            Device::P9(p9) => p9_plan(p9, facts, &mut refusals),
        }
    }

    /// The number that the entry says.
    pub(super) fn devid(&self) -> Option<u32> {
        self.entry.devid()
    }

    pub(super) fn place(&self, domid: DomId, id: DeviceId) -> Place {
        Place::new(domid, id, self.backend_kind)
    }

    /// The entry for the template, with its number.
    pub(super) fn entry(&self, id: DeviceId) -> Device {
        let devid = DevId::new(i32::try_from(id.devid).unwrap_or(i32::MAX));
        match self.entry.clone() {
            Device::Nic(nic) => Nic { devid, ..*nic }.into(),
            Device::P9(p9) => Device::P9(P9 { devid, ..p9 }),
            disk @ Device::Disk(_) => disk,
        }
    }

    /// The three directories, as libxl writes them.
    pub(super) fn directories(&self, place: &Place) -> [Directory; 3] {
        let value = |value: &Value| match value {
            Value::Text(text) => text.clone(),
            Value::Domid => place.domid.to_string(),
            Value::Devid => place.id.devid.to_string(),
        };
        let keys = |keys: &[(&'static str, Value)]| -> Vec<(&'static str, String)> {
            keys.iter().map(|(key, text)| (*key, value(text))).collect()
        };
        let (frontend, backend) = (place.frontend(), place.backend());
        let to = |path: &xsclient::Path| path.as_str().to_owned();
        let made = keys(&self.backend);
        let mut of_backend = vec![("frontend", to(&frontend))];
        of_backend.extend(made.clone());
        let mut of_toolstack = vec![("frontend", to(&frontend)), ("backend", to(&backend))];
        of_toolstack.extend(made);
        let mut of_frontend = vec![
            ("backend", to(&backend)),
            ("backend-id", "0".to_owned()),
            ("state", "1".to_owned()),
        ];
        of_frontend.extend(keys(&self.frontend));
        let (guest, host) = (place.domid, DomId::DOM0);
        [
            Directory { path: frontend, perms: perms(guest, Some(host)), keys: of_frontend },
            Directory { path: backend, perms: perms(host, Some(guest)), keys: of_backend },
            Directory { path: place.toolstack(), perms: perms(host, None), keys: of_toolstack },
        ]
    }

    /// The keys that the guest may only read, and their permissions.
    pub(super) fn read_only(&self, place: &Place) -> (Perms, &[(&'static str, String)]) {
        (perms(DomId::DOM0, Some(place.domid)), &self.read_only)
    }
}

/// `nOWNER` or `nOWNER,rREADER`
fn perms(owner: DomId, reader: Option<DomId>) -> Perms {
    let text = reader.map_or_else(|| format!("n{owner}"), |reader| format!("n{owner},r{reader}"));
    text.parse().expect("an owner and a reader")
}

#[expect(clippy::needless_pass_by_value, reason = "most callers have a number or a reference")]
fn text(value: impl ToString) -> Value {
    Value::Text(value.to_string())
}

fn flag(set: bool) -> Value {
    text(u8::from(set))
}

fn refuse_driver_domain(domid: ConfigDomid, name: Option<&str>, refusals: &mut Vec<Refusal>) {
    if domid != ConfigDomid::default() || name.is_some_and(|name| !name.is_empty()) {
        let domain = name.map_or_else(|| domid.get().to_string(), str::to_owned);
        refusals.push(Refusal::DriverDomain { domain });
    }
}

#[expect(clippy::needless_pass_by_value, reason = "most callers have a number or a reference")]
fn unsupported(field: &'static str, value: impl ToString) -> Refusal {
    Refusal::Unsupported { field, value: value.to_string() }
}

fn disk_plan(disk: &Disk, facts: &Facts, refusals: &mut Vec<Refusal>) -> Plan {
    refuse_driver_domain(disk.backend_domid, disk.backend_domname.as_deref(), refusals);
    let vdev = disk.vdev.clone().unwrap_or_default();
    let number = disks::number(&vdev);
    if number.is_none() {
        refusals.push(Refusal::NotAVdev { vdev: vdev.clone() });
    }
    if disk.is_cdrom != 0 || disk.format == DiskFormat::Empty {
        refusals.push(unsupported("is_cdrom", "an exchangeable medium"));
    }
    if disk.specification == DiskSpecification::Virtio {
        refusals.push(unsupported("specification", &disk.specification));
    }
    if disk.colo_enable == DefBool::True || disk.colo_restore_enable == DefBool::True {
        refusals.push(unsupported("colo_enable", "True"));
    }
    let path = disk.pdev_path.clone().unwrap_or_default();
    if path.is_empty() {
        refusals.push(Refusal::Missing { field: "pdev_path" });
    }
    let backend = match &disk.backend {
        DiskBackend::Unknown => chosen_backend(disk),
        chosen => chosen.clone(),
    };
    let is_phy = match backend {
        DiskBackend::Phy => true,
        DiskBackend::Qdisk => false,
        other => {
            refusals.push(unsupported("backend", other));
            true
        }
    };
    if is_phy && !matches!(disk.format, DiskFormat::Raw | DiskFormat::Unknown) {
        refusals.push(Refusal::NotRaw { format: disk.format.to_string() });
    }
    if !is_phy && !facts.device_model.is_running() {
        let found = facts.device_model.clone();
        refusals.push(Refusal::NoDeviceModel {
            served: "a disk of format",
            what: disk.format.to_string(),
            found,
        });
    }
    // A script makes of the path what it likes.
    if disk.script.is_none() && !path.is_empty() {
        refusals.extend(unusable_image(&path));
    }
    let script = is_phy.then(|| facts.script(disk.script.as_deref(), "block"));
    let params = if is_phy { path } else { disks::params(&disk.format, &path) };
    let mut backend = vec![("params", text(params))];
    backend.extend(script.as_deref().map(|script| ("script", text(script))));
    let is_writable = disk.readwrite != 0;
    backend.extend([
        ("frontend-id", Value::Domid),
        ("online", text(1)),
        ("removable", flag(disk.removable != 0)),
        ("bootable", text(1)),
        ("state", text(1)),
        ("dev", text(&vdev)),
        ("type", text(if is_phy { "phy" } else { "qdisk" })),
        ("mode", text(if is_writable { "w" } else { "r" })),
        ("device-type", text("disk")),
    ]);
    if disk.direct_io_safe {
        backend.push(("direct-io-safe", text(1)));
    }
    backend.push(("discard-enable", flag(disk.discard_enable.unwrap_or(is_writable))));
    backend.push(("specification", text("xen")));
    let mut frontend = vec![
        ("virtual-device", Value::Devid),
        ("device-type", text("disk")),
        ("trusted", flag(disk.trusted.unwrap_or(true))),
    ];
    if facts.domain_type.as_deref() == Some("pv") && cfg!(target_arch = "x86_64") {
        // A 32-bit guest writes its own when it connects.
        frontend.push(("protocol", text("x86_64-abi")));
    }
    Plan {
        class: DeviceClass::Disk,
        backend_kind: if is_phy { "vbd" } else { "qdisk" },
        script,
        names: NicNames::default(),
        entry: Device::Disk(disk.clone()),
        backend,
        frontend,
        read_only: Vec::new(),
    }
}

/// What serves a disk that leaves it open: the kernel, if the image is raw, else QEMU.
fn chosen_backend(disk: &Disk) -> DiskBackend {
    match disk.format {
        DiskFormat::Raw | DiskFormat::Unknown => DiskBackend::Phy,
        _ => DiskBackend::Qdisk,
    }
}

fn unusable_image(path: &str) -> Option<Refusal> {
    let image = || path.to_owned();
    match fs::metadata(path) {
        Ok(found) if found.is_file() || found.file_type().is_block_device() => None,
        Ok(_) => Some(Refusal::NotAnImage { path: image() }),
        Err(error) => Some(Refusal::NoImage { path: image(), kind: error.kind() }),
    }
}

fn nic_plan(nic: &Nic, facts: &Facts, refusals: &mut Vec<Refusal>) -> Plan {
    refuse_driver_domain(nic.backend_domid, nic.backend_domname.as_deref(), refusals);
    if nic.nictype == NicType::VifIoemu {
        refusals.push(unsupported("nictype", &nic.nictype));
    }
    if nic.coloft_forwarddev.is_some() {
        refusals.push(unsupported("coloft_forwarddev", "COLO"));
    }
    let mac = if nic.mac == Mac::UNSET { random_mac() } else { Some(nic.mac) };
    let Some(mac) = mac else {
        refusals.push(Refusal::Missing { field: "mac" });
        return nic_of(nic, Mac::UNSET, facts);
    };
    nic_of(nic, mac, facts)
}

fn nic_of(nic: &Nic, mac: Mac, facts: &Facts) -> Plan {
    let script = facts.script(nic.script.as_deref(), "vif-bridge");
    let mut backend = vec![
        ("frontend-id", Value::Domid),
        ("online", text(1)),
        ("state", text(1)),
        ("script", text(&script)),
    ];
    let optional = |key: &'static str, field: &Option<String>| {
        field.as_deref().map(|value| (key, text(value)))
    };
    backend.extend(optional("vifname", &nic.ifname));
    backend.push(("mac", text(mac)));
    backend.extend(optional("ip", &nic.ip));
    backend.extend(optional("gatewaydev", &nic.gatewaydev));
    if nic.rate_interval_usecs > 0 {
        let rate = format!("{},{}", nic.rate_bytes_per_interval, nic.rate_interval_usecs);
        backend.push(("rate", text(rate)));
    }
    let mtu = if nic.mtu == 0 { MTU_DEFAULT } else { nic.mtu };
    if mtu != MTU_DEFAULT {
        backend.push(("mtu", text(mtu)));
    }
    backend.extend(optional("vlan", &nic.vlan));
    backend.extend([
        ("bridge", text(nic.bridge.as_deref().unwrap_or(BRIDGE_DEFAULT))),
        ("handle", Value::Devid),
        ("type", text("vif")),
        ("hotplug-status", text("")),
    ]);
    let frontend = vec![
        ("handle", Value::Devid),
        ("mac", text(mac)),
        ("trusted", flag(nic.trusted.unwrap_or(true))),
    ];
    Plan {
        class: DeviceClass::Nic,
        backend_kind: "vif",
        script: Some(script),
        names: NicNames { ifname: nic.ifname.clone(), gatewaydev: nic.gatewaydev.clone() },
        entry: Nic { mac, nictype: NicType::Vif, ..nic.clone() }.into(),
        backend,
        frontend,
        read_only: vec![("mtu", mtu.to_string())],
    }
}

/// An address in Xen's own range; `None` if the host gives no random numbers.
fn random_mac() -> Option<Mac> {
    let mut octets = [0; 3];
    let mut source = fs::File::open("/dev/urandom").ok()?;
    std::io::Read::read_exact(&mut source, &mut octets).ok()?;
    let [a, b, c] = octets;
    Some(Mac::new([0x00, 0x16, 0x3e, a & 0x7f, b, c]))
}

fn p9_plan(p9: &P9, facts: &Facts, refusals: &mut Vec<Refusal>) -> Plan {
    refuse_driver_domain(p9.backend_domid, p9.backend_domname.as_deref(), refusals);
    if p9.p9_type == P9Type::Xen9pfsd {
        refusals.push(unsupported("type", &p9.p9_type));
    }
    let tag = p9.tag.clone().unwrap_or_default();
    let path = p9.path.clone().unwrap_or_default();
    let model = p9.security_model.clone().unwrap_or_default();
    for (field, value) in [("tag", &tag), ("path", &path), ("security_model", &model)] {
        if value.is_empty() {
            refusals.push(Refusal::Missing { field });
        }
    }
    if !path.is_empty() && !FilePath::new(&path).is_dir() {
        refusals.push(Refusal::NoDirectory { path: path.clone() });
    }
    if !facts.device_model.is_running() {
        let found = facts.device_model.clone();
        refusals.push(Refusal::NoDeviceModel { served: "the share", what: tag.clone(), found });
    }
    Plan {
        class: DeviceClass::P9,
        backend_kind: "9pfs",
        script: None,
        names: NicNames::default(),
        entry: Device::P9(p9.clone()),
        backend: vec![
            ("frontend-id", Value::Domid),
            ("online", text(1)),
            ("state", text(1)),
            ("path", text(path)),
            ("security_model", text(model)),
        ],
        frontend: vec![("tag", text(tag))],
        read_only: Vec::new(),
    }
}
