//! What a toolstack writes into Xenstore for a PV domain and its disks: the part of libxl's nodes that `retrieve` reads.

use std::error::Error;
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use libxl_config::hotplug::Device;
use libxl_config::model::{Disk, DiskFormat};
use snapshot::control::DomainIdentity;
use xsclient::{Client, DomId, Nodes, OperationError, Path, Perms, RetryPolicy};

/// How long the ends of a device may take to connect.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);

/// Paths, what they hold, and who may do what: the toolstack's, readable by the guest, or the guest's own.
pub(crate) struct ToWrite(Vec<(Path, String, Perms)>);

/// The nodes of a domain without its devices.
pub(crate) fn of_domain(
    domain: DomainIdentity,
    config: &DomainConfig,
) -> Result<ToWrite, Box<dyn Error>> {
    let DomainIdentity { domid, uuid } = domain;
    let local = format!("/local/domain/{domid}");
    let name = config.c_info.name.clone().unwrap_or_default();
    let kib = |field: Option<u64>| field.unwrap_or_default().to_string();
    let mut nodes = ToWrite(Vec::new());
    nodes.add(
        &format!("n0,r{domid}"),
        [
            (local.clone(), String::new()),
            (format!("{local}/vm"), format!("/vm/{uuid}")),
            (format!("{local}/name"), name),
            (format!("{local}/memory/static-max"), kib(config.b_info.max_memkb.get())),
            (format!("{local}/memory/target"), kib(config.b_info.target_memkb.get())),
            (format!("{local}/cpu/0/availability"), "online".to_owned()),
            // A disk of QEMU's is only plugged where a QEMU serves the domain. Here it is this process.
            (format!("{local}/image/device-model-pid"), std::process::id().to_string()),
            (format!("/local/domain/0/device-model/{domid}/state"), "running".to_owned()),
            (format!("/libxl/{domid}/type"), "pv".to_owned()),
        ],
    )?;
    nodes.add(&format!("n{domid}"), [(format!("{local}/data"), String::new())])?;
    Ok(nodes)
}

/// The three directories of a disk: the backend's, the frontend's, and the toolstack's copy, which no guest can write.
pub(crate) fn of_disk(domid: DomId, disk: &Disk) -> Result<ToWrite, Box<dyn Error>> {
    let [backend, frontend, copy] = places(domid, disk)?;
    let format = if disk.format == DiskFormat::Qcow2 { "qcow2" } else { "aio" };
    let image = disk.pdev_path.as_deref().unwrap_or_default();
    let vdev = disk.vdev.as_deref().unwrap_or_default();
    let mut nodes = ToWrite(Vec::new());
    for (directory, perms) in [(&backend, format!("n0,r{domid}")), (&copy, "n0".to_owned())] {
        nodes.add(
            &perms,
            [
                (directory.clone(), String::new()),
                (format!("{directory}/frontend"), frontend.clone()),
                (format!("{directory}/frontend-id"), domid.to_string()),
                (format!("{directory}/params"), format!("{format}:{image}")),
                (format!("{directory}/dev"), vdev.to_owned()),
                (format!("{directory}/type"), "qdisk".to_owned()),
                (format!("{directory}/mode"), "w".to_owned()),
                (format!("{directory}/device-type"), "disk".to_owned()),
                (format!("{directory}/discard-enable"), "1".to_owned()),
                (format!("{directory}/bootable"), "1".to_owned()),
                (format!("{directory}/removable"), "0".to_owned()),
                (format!("{directory}/specification"), "xen".to_owned()),
                (format!("{directory}/online"), "1".to_owned()),
            ],
        )?;
    }
    nodes.add("n0", [(format!("{copy}/backend"), backend.clone())])?;
    nodes.add(
        &format!("n{domid},r0"),
        [
            (frontend.clone(), String::new()),
            (format!("{frontend}/backend"), backend.clone()),
            (format!("{frontend}/backend-id"), "0".to_owned()),
            (format!("{frontend}/device-type"), "disk".to_owned()),
            (format!("{frontend}/virtual-device"), devid(disk)?.to_string()),
            (format!("{frontend}/state"), "1".to_owned()),
        ],
    )?;
    // Drivers begin with a backend when they hear of its state, so all else is there before.
    nodes.add(&format!("n0,r{domid}"), [(format!("{backend}/state"), "1".to_owned())])?;
    Ok(nodes)
}

impl ToWrite {
    fn add<const N: usize>(
        &mut self,
        perms: &str,
        nodes: [(String, String); N],
    ) -> Result<(), Box<dyn Error>> {
        let perms: Perms = perms.parse()?;
        for (path, value) in nodes {
            self.0.push((path.parse()?, value, perms.clone()));
        }
        Ok(())
    }

    /// Writes all of it in one transaction: nobody ever sees half a domain, or half a device.
    pub(crate) fn write(&self, client: &mut Client) -> Result<(), OperationError> {
        client.transact(&RetryPolicy::default(), |transaction| {
            for (path, value, perms) in &self.0 {
                transaction.write(path, value.as_bytes())?;
                transaction.set_perms(&path.clone().into(), perms)?;
            }
            Ok(())
        })
    }
}

/// Waits by watch until a disk's backend says that it is connected.
pub(crate) fn await_connected(
    client: &mut Client,
    domid: DomId,
    disk: &Disk,
) -> Result<(), Box<dyn Error>> {
    let state: Path = format!("{}/state", places(domid, disk)?[0]).parse()?;
    let watch = client.watch(state.clone(), None)?;
    let deadline = Instant::now() + CONNECT_LIMIT;
    // A watch's first event comes at once, so that nothing that happened before it is missed.
    while client.next_event(&watch, deadline.saturating_duration_since(Instant::now()))?.is_some() {
        if client.read(&state)? == b"4" {
            return Ok(client.unwatch(&watch)?);
        }
    }
    Err(format!("{state}: not connected after {CONNECT_LIMIT:?}").into())
}

/// Backend, frontend, and the toolstack's copy.
fn places(domid: DomId, disk: &Disk) -> Result<[String; 3], Box<dyn Error>> {
    let devid = devid(disk)?;
    Ok([
        format!("/local/domain/0/backend/qdisk/{domid}/{devid}"),
        format!("/local/domain/{domid}/device/vbd/{devid}"),
        format!("/libxl/{domid}/device/vbd/{devid}"),
    ])
}

/// The number of a disk's directories: 51712 for `xvda`.
fn devid(disk: &Disk) -> Result<u32, Box<dyn Error>> {
    Device::from(disk.clone()).devid().ok_or_else(|| "a disk without a vdev".into())
}
