//! What a toolstack and a guest have in Xenstore for a simulated domain.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use xsclient::{Batch, Client, DomId, Nodes, OperationError, Path, Perms, RetryPolicy};

use crate::control::DomainIdentity;
use crate::simulated::spec::{DiskImage, DiskSpec};

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
        disks: &[DiskSpec],
        boots: bool,
    ) -> Result<(), OperationError> {
        self.write(&nodes(identity, name, disks, boots))?;
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
            format!("/local/domain/0/backend/vbd/{domid}"),
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

fn nodes(identity: DomainIdentity, name: &str, disks: &[DiskSpec], boots: bool) -> Vec<Node> {
    let DomainIdentity { domid, uuid } = identity;
    let domain = format!("/local/domain/{domid}");
    let [toolstacks, guests, private] = [format!("n0,r{domid}"), format!("n{domid}"), "n0".into()];
    let node = |path: String, value: &str, perms: &str| (path, value.to_owned(), perms.to_owned());
    let mut nodes = vec![
        node(domain.clone(), "", &toolstacks),
        node(format!("{domain}/vm"), &format!("/vm/{uuid}"), &toolstacks),
        node(format!("{domain}/name"), name, &toolstacks),
        node(format!("{domain}/domid"), &domid.to_string(), &toolstacks),
        node(format!("{domain}/control"), "", &toolstacks),
        node(format!("{domain}/control/shutdown"), "", &guests),
        node(format!("{domain}/data"), "", &guests),
        node(format!("{domain}/device"), "", &toolstacks),
        node(format!("/vm/{uuid}"), "", &toolstacks),
        node(format!("/vm/{uuid}/uuid"), &uuid.to_string(), &toolstacks),
        node(format!("/vm/{uuid}/name"), name, &toolstacks),
        node(format!("/libxl/{domid}"), "", &private),
        node(format!("/libxl/{domid}/type"), "pv", &private),
    ];
    for feature in ["feature-suspend", "feature-poweroff", "feature-reboot"] {
        let value = if boots { "1" } else { "" };
        nodes.push(node(format!("{domain}/control/{feature}"), value, &guests));
    }
    if boots {
        nodes.push(node(format!("{domain}/data/booted"), &uuid.to_string(), &guests));
    }
    for disk in disks {
        let Some(number) = number_of(&disk.vdev) else { continue };
        let frontend = format!("{domain}/device/vbd/{number}");
        let backend = format!("/local/domain/0/backend/vbd/{domid}/{number}");
        let DiskImage::Raw { path } = &disk.image;
        nodes.extend([
            node(frontend.clone(), "", &format!("n{domid},r0")),
            node(format!("{frontend}/backend"), &backend, &format!("n{domid},r0")),
            node(format!("{frontend}/backend-id"), "0", &format!("n{domid},r0")),
            node(format!("{frontend}/state"), "4", &format!("n{domid},r0")),
            node(backend.clone(), "", &toolstacks),
            node(format!("{backend}/frontend"), &frontend, &toolstacks),
            node(format!("{backend}/frontend-id"), &domid.to_string(), &toolstacks),
            node(format!("{backend}/params"), &path.to_string_lossy(), &toolstacks),
            node(format!("{backend}/dev"), &disk.vdev, &toolstacks),
            node(format!("{backend}/mode"), "w", &toolstacks),
            node(format!("{backend}/online"), "1", &toolstacks),
            node(format!("{backend}/state"), "4", &toolstacks),
        ]);
    }
    nodes
}

/// The number of one of the disks xvda to xvdp, as `xen-vbd-interface` has it; others are left out of Xenstore.
fn number_of(vdev: &str) -> Option<u32> {
    let letter = vdev.strip_prefix("xvd")?;
    match letter.as_bytes() {
        [letter @ b'a'..=b'p'] => Some((202 << 8) + u32::from(letter - b'a') * 16),
        _ => None,
    }
}
