//! What a toolstack and a guest have in Xenstore for a simulated domain.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use libxl_config::DomainConfig;
use libxl_config::model::{Disk, DiskFormat};
use xsclient::{Batch, Client, DomId, Nodes, OperationError, Path, Perms, RetryPolicy};

use crate::control::DomainIdentity;

/// The Xenstore that a simulated host keeps its domains in.
#[derive(Debug)]
pub struct HostXenstore {
    client: Mutex<Client>,
    socket: PathBuf,
}

/// A path and what it holds. None of those that are made here is refused.
type Node = (String, String, String);

impl HostXenstore {
    /// `client` is privileged. `socket` is told to the host's clients: where they reach the same Xenstore.
    pub fn new(client: Client, socket: impl Into<PathBuf>) -> Self {
        Self { client: Mutex::new(client), socket: socket.into() }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone()
    }

    /// The nodes of a new domain. A guest that boots writes some more; one that was restored does not, and finds those that
    /// the toolstack makes for it empty.
    pub(super) fn create(
        &self,
        identity: DomainIdentity,
        name: &str,
        config: &DomainConfig,
        boots: bool,
    ) -> Result<(), OperationError> {
        self.write(&nodes(identity, name, config, boots))?;
        self.lock().introduce(identity.domid, 0, 1)
    }

    pub(super) fn rename(
        &self,
        identity: DomainIdentity,
        name: &str,
    ) -> Result<(), OperationError> {
        let DomainIdentity { domid, uuid } = identity;
        let perms = format!("n0,r{domid}");
        self.write(&[
            (format!("/local/domain/{domid}/name"), name.to_owned(), perms.clone()),
            (format!("/vm/{uuid}/name"), name.to_owned(), perms),
        ])
    }

    /// Watches on the domain's shutdown fire again.
    pub(super) fn resume(&self, domid: DomId) -> Result<(), OperationError> {
        self.lock().resume(domid)
    }

    /// Nothing of the domain is left. `/vm/UUID` stays while another domain has that uuid.
    pub(super) fn remove(
        &self,
        identity: DomainIdentity,
        shared: bool,
    ) -> Result<(), OperationError> {
        let DomainIdentity { domid, uuid } = identity;
        let mut roots = vec![
            format!("/local/domain/{domid}"),
            format!("/local/domain/0/backend/qdisk/{domid}"),
            format!("/libxl/{domid}"),
        ];
        roots.extend((!shared).then(|| format!("/vm/{uuid}")));
        self.lock().release(domid)?;
        self.lock().transact(&RetryPolicy::default(), |transaction| {
            let mut batch = Batch::new();
            let slots: Vec<_> = roots
                .iter()
                .filter_map(|root| root.parse().ok())
                .map(|root| batch.rm(root))
                .collect();
            let mut replies = transaction.run(batch)?;
            slots.into_iter().try_for_each(|slot| replies.take_optional(slot).map(drop))
        })
    }

    fn write(&self, nodes: &[Node]) -> Result<(), OperationError> {
        self.lock().transact(&RetryPolicy::default(), |transaction| {
            let mut batch = Batch::new();
            let mut slots = Vec::new();
            for (path, value, perms) in nodes {
                if let (Ok(path), Ok(perms)) = (path.parse::<Path>(), perms.parse::<Perms>()) {
                    slots.push(batch.write(path.clone(), value.as_bytes()));
                    slots.push(batch.set_perms(path, perms));
                }
            }
            let mut replies = transaction.run(batch)?;
            slots.into_iter().try_for_each(|slot| replies.take(slot))
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What libxl writes for a PV domain whose disks QEMU serves, and what the two ends write when they are connected.
fn nodes(identity: DomainIdentity, name: &str, config: &DomainConfig, boots: bool) -> Vec<Node> {
    let DomainIdentity { domid, uuid } = identity;
    let domain = format!("/local/domain/{domid}");
    let [toolstacks, guests, private] = [format!("n0,r{domid}"), format!("n{domid}"), "n0".into()];
    let node = |path: String, value: &str, perms: &str| (path, value.to_owned(), perms.to_owned());
    let mut nodes = vec![
        node(domain.clone(), "", &toolstacks),
        node(format!("{domain}/vm"), &format!("/vm/{uuid}"), &toolstacks),
        node(format!("{domain}/name"), name, &toolstacks),
        node(format!("{domain}/domid"), &domid.to_string(), &toolstacks),
        node(format!("{domain}/cpu"), "", &toolstacks),
        node(format!("{domain}/memory"), "", &toolstacks),
        node(format!("{domain}/control"), "", &toolstacks),
        node(format!("{domain}/control/shutdown"), "", &guests),
        node(format!("{domain}/data"), "", &guests),
        node(format!("{domain}/device"), "", &toolstacks),
        node(format!("{domain}/device/vbd"), "", &toolstacks),
        node(format!("/vm/{uuid}"), "", &toolstacks),
        node(format!("/vm/{uuid}/uuid"), &uuid.to_string(), &toolstacks),
        node(format!("/vm/{uuid}/name"), name, &toolstacks),
        node(format!("/libxl/{domid}"), "", &private),
        node(format!("/libxl/{domid}/type"), "pv", &private),
        node(format!("/libxl/{domid}/device"), "", &private),
        node(format!("/libxl/{domid}/device/vbd"), "", &private),
    ];
    let memory = [("static-max", config.b_info.max_memkb), ("target", config.b_info.target_memkb)];
    for (key, kib) in memory {
        let kib = kib.get().unwrap_or_default().to_string();
        nodes.push(node(format!("{domain}/memory/{key}"), &kib, &toolstacks));
    }
    for cpu in 0..u32::try_from(config.b_info.max_vcpus).unwrap_or_default() {
        let online = if config.b_info.avail_vcpus.contains(cpu) { "online" } else { "offline" };
        nodes.push(node(format!("{domain}/cpu/{cpu}"), "", &toolstacks));
        nodes.push(node(format!("{domain}/cpu/{cpu}/availability"), online, &toolstacks));
    }
    for feature in ["feature-suspend", "feature-poweroff", "feature-reboot"] {
        let value = if boots { "1" } else { "" };
        nodes.push(node(format!("{domain}/control/{feature}"), value, &guests));
    }
    if boots {
        nodes.push(node(format!("{domain}/data/booted"), &uuid.to_string(), &guests));
    }
    nodes.extend(config.disks.iter().flat_map(|disk| disk_nodes(domid, disk)));
    nodes
}

fn disk_nodes(domid: DomId, disk: &Disk) -> Vec<Node> {
    let (Some(vdev), Some(path)) = (&disk.vdev, &disk.pdev_path) else { return Vec::new() };
    let Some(number) = number_of(vdev) else { return Vec::new() };
    let frontend = format!("/local/domain/{domid}/device/vbd/{number}");
    let backend = format!("/local/domain/0/backend/qdisk/{domid}/{number}");
    let toolstacks = format!("/libxl/{domid}/device/vbd/{number}");
    let format = if disk.format == DiskFormat::Qcow2 { "qcow2" } else { "aio" };
    let flag = |flag: bool| if flag { "1" } else { "0" }.to_owned();
    let can_write = disk.readwrite != 0;
    let keys = [
        ("frontend", frontend.clone()),
        ("params", format!("{format}:{path}")),
        ("frontend-id", domid.to_string()),
        ("online", "1".to_owned()),
        ("removable", flag(disk.removable != 0)),
        ("bootable", "1".to_owned()),
        ("dev", vdev.clone()),
        ("type", "qdisk".to_owned()),
        ("mode", if can_write { "w" } else { "r" }.to_owned()),
        ("device-type", if disk.is_cdrom != 0 { "cdrom" } else { "disk" }.to_owned()),
        ("discard-enable", flag(disk.discard_enable.unwrap_or(can_write))),
        ("specification", "xen".to_owned()),
    ];
    // libxl's copy has the backend's path as well, and the state in which it made the backend.
    let copy =
        keys.clone().into_iter().chain([("backend", backend.clone()), ("state", "1".into())]);
    let ends = [
        (toolstacks, "n0".to_owned(), copy.collect::<Vec<_>>()),
        (
            backend.clone(),
            format!("n0,r{domid}"),
            keys.into_iter().chain([("state", "4".into())]).collect(),
        ),
        (
            frontend,
            format!("n{domid},r0"),
            vec![
                ("backend", backend),
                ("backend-id", "0".into()),
                ("state", "4".into()),
                ("virtual-device", number.to_string()),
                ("device-type", "disk".into()),
            ],
        ),
    ];
    ends.into_iter()
        .flat_map(|(directory, perms, keys)| {
            let entries = keys.into_iter().map({
                let (directory, perms) = (directory.clone(), perms.clone());
                move |(key, value)| (format!("{directory}/{key}"), value, perms.clone())
            });
            std::iter::once((directory, String::new(), perms)).chain(entries).collect::<Vec<_>>()
        })
        .collect()
}

/// The number of one of the disks xvda to xvdp, as `xen-vbd-interface` has it; others are left out of Xenstore.
fn number_of(vdev: &str) -> Option<u32> {
    let letter = vdev.strip_prefix("xvd")?;
    match letter.as_bytes() {
        [letter @ b'a'..=b'p'] => Some((202 << 8) + u32::from(letter - b'a') * 16),
        _ => None,
    }
}
