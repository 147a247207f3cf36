//! Where the nodes of a device are.

use xsclient::{DomId, Nodes, OperationError, Path};

use super::DeviceId;
use crate::retrieve::DeviceClass;

/// The directories of one device, and that of its claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) domid: DomId,
    pub(super) id: DeviceId,
    /// `vbd`, `vif`, `9pfs`: the directory in the toolstack's and the frontend tree.
    pub(super) kind: &'static str,
    /// `vbd`, `qdisk`, `vif`, `9pfs`: the directory in the backend tree.
    pub(super) backend_kind: &'static str,
}

impl Place {
    pub(super) fn new(domid: DomId, id: DeviceId, backend_kind: &'static str) -> Self {
        Self { domid, id, kind: kind_of(id.class), backend_kind }
    }

    /// `/libxl/DOMID/device/KIND/DEVID`, which nobody but the toolstack writes.
    pub(super) fn toolstack(&self) -> Path {
        fixed(&format!("/libxl/{}/device/{}/{}", self.domid, self.kind, self.id.devid))
    }

    pub(super) fn frontend(&self) -> Path {
        fixed(&format!("/local/domain/{}/device/{}/{}", self.domid, self.kind, self.id.devid))
    }

    pub(super) fn backend(&self) -> Path {
        fixed(&format!("/local/domain/0/{}", self.script_path()))
    }

    /// The backend's directory as hotplug scripts are told it.
    pub(super) fn script_path(&self) -> String {
        format!("backend/{}/{}/{}", self.backend_kind, self.domid, self.id.devid)
    }

    /// Directories that go with the device if they are empty then, innermost first.
    pub(super) fn parents(&self) -> Vec<Path> {
        let backends = format!("/local/domain/0/backend/{}", self.backend_kind);
        vec![
            fixed(&format!("/libxl/{}/device/{}", self.domid, self.kind)),
            fixed(&format!("/local/domain/{}/device/{}", self.domid, self.kind)),
            fixed(&format!("{backends}/{}", self.domid)),
            fixed(&backends),
        ]
    }
}

/// Where frontends and the toolstack's copies of a class are.
pub(super) fn kind_of(class: DeviceClass) -> &'static str {
    match class {
        DeviceClass::Disk => "vbd",
        DeviceClass::Nic => "vif",
        _ => "9pfs",
    }
}

/// Where the backends of a class that this module plugs are.
pub(super) fn backend_kinds(class: DeviceClass) -> &'static [&'static str] {
    match class {
        DeviceClass::Disk => &["vbd", "qdisk"],
        DeviceClass::Nic => &["vif"],
        _ => &["9pfs"],
    }
}

/// What the backend's directory in the toolstack's tree says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// In Dom0, of a kind that is known.
    Here(&'static str),
    /// Somewhere else.
    Elsewhere(String),
    /// The toolstack's tree has no such device.
    Nowhere,
}

/// Where the toolstack's tree has the backend of a device.
pub(super) fn backend_of(
    nodes: &mut dyn Nodes,
    domid: DomId,
    id: DeviceId,
) -> Result<Backend, OperationError> {
    let any = Place::new(domid, id, backend_kinds(id.class)[0]);
    let told = nodes.read_optional(&under(&any.toolstack(), "backend"))?;
    let Some(told) = told else {
        // A device without `backend` is still there.
        return Ok(match nodes.read_optional(&any.toolstack())? {
            Some(_) => Backend::Elsewhere(String::new()),
            None => Backend::Nowhere,
        });
    };
    let told = String::from_utf8_lossy(&told).into_owned();
    for kind in backend_kinds(id.class).iter().copied() {
        if Place::new(domid, id, kind).backend().as_str() == told {
            return Ok(Backend::Here(kind));
        }
    }
    Ok(Backend::Elsewhere(told))
}

/// The kind of a backend directory of a device that the toolstack's tree does not name any more.
pub(super) fn left_backend(
    nodes: &mut dyn Nodes,
    domid: DomId,
    id: DeviceId,
) -> Result<Option<&'static str>, OperationError> {
    for kind in backend_kinds(id.class).iter().copied() {
        if nodes.read_optional(&Place::new(domid, id, kind).backend())?.is_some() {
            return Ok(Some(kind));
        }
    }
    Ok(None)
}

/// A path that is put together from numbers and names written in this module.
pub(super) fn fixed(path: &str) -> Path {
    path.parse().expect("made of numbers and written-out names")
}

/// A key written out in this module, or a number.
pub(super) fn under(directory: &Path, key: &str) -> Path {
    directory.join(key).expect("a written-out key below a short path")
}
