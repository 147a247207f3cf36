//! Whether QEMU's nodes rest on what the files record.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::disk::image::{
    Chain, ChainRules, Holders, ImageError, ImageFormat, ImageRef, OpenFiles, OpenImage, Writers,
};
use crate::disk::qmp::{CacheMode, NodeImage, QmpClient, QmpNode};
use crate::disk::{DiskFailure, DiskRefusal, DiskWarning};

/// A node of a running QEMU, whose files are what QEMU has open.
#[derive(Clone, Debug)]
pub(in crate::disk) struct CheckedNode {
    pub(in crate::disk) chain: Chain,
    /// As QEMU tells: where a block device was grown, its header of earlier does not know.
    pub(in crate::disk) virtual_size: u64,
    pub(in crate::disk) cache: CacheMode,
    /// The QEMU, if its descriptors can be seen.
    pub(in crate::disk) qemu: Option<u32>,
    pub(in crate::disk) warnings: Vec<DiskWarning>,
}

/// Checks the node that a disk has: that it can be written, and that each image below it is open, recorded, and the same.
pub(in crate::disk) fn check_node(
    vdev: &str,
    name: &str,
    nodes: &[QmpNode],
    listener: Option<u32>,
    depth: usize,
    files: &OpenFiles,
) -> Result<CheckedNode, Vec<DiskRefusal>> {
    let (vdev, node_name) = (vdev.to_owned(), name.to_owned());
    let Some(node) = nodes.iter().find(|node| node.name == name) else {
        return Err(vec![DiskRefusal::NoNode { vdev, node: node_name }]);
    };
    let mut refusals = Vec::new();
    if node.read_only {
        refusals.push(DiskRefusal::NodeReadOnly { vdev: vdev.clone(), node: node_name.clone() });
    }
    let Some(format) = ImageFormat::from_name(&node.driver) else {
        let driver = node.driver.clone();
        refusals.push(DiskRefusal::NodeDriver { vdev, node: node_name, driver });
        return Err(refusals);
    };
    let open = open_images(&node.image);
    for image in open.iter().filter(|image| path_of(image).is_none()) {
        let (node, filename) = (node_name.clone(), image.filename.clone());
        refusals.push(DiskRefusal::NodeFile { vdev: vdev.clone(), node, filename });
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let chain_refused = |source| DiskRefusal::Chain { vdev: vdev.clone(), source };
    let path = path_of(&node.image).unwrap_or_default();
    let path = path.as_path();
    let looked = OpenImage::open(path.to_owned(), format)
        .and_then(|opened| holders_of(&opened, files))
        .map_err(|error| vec![chain_refused(error.into())])?;
    let (writers, warnings) = match (qemu_among(&looked, listener), looked.unseen) {
        (Some(pid), 0) => (Writers::Only(pid), vec![]),
        (Some(pid), count) => (Writers::Only(pid), vec![DiskWarning::ProcessesUnseen { count }]),
        // Every process can be seen, and none has it open: the name means another file than it did.
        (None, 0) if looked.writing.is_empty() => {
            return Err(vec![DiskRefusal::NotTheOpenFile { vdev, path: path.to_owned() }]);
        }
        // Several write it: the chain's own check tells whom.
        (None, _) if !looked.writing.is_empty() => (Writers::Nobody, vec![]),
        (None, count) => (
            Writers::Anybody,
            vec![DiskWarning::OpenByName, DiskWarning::ProcessesUnseen { count }],
        ),
    };
    let chain = Chain::read_among(path, format, ChainRules { depth, writers }, Some(files))
        .map_err(|broken| broken.into_iter().map(chain_refused).collect::<Vec<_>>())?;
    let recorded = chain.images();
    if recorded.len() != open.len() {
        let (open, recorded) = (open.len(), recorded.len());
        return Err(vec![DiskRefusal::ChainLength { vdev, open, recorded }]);
    }
    for (at, (image, open)) in recorded.iter().zip(&open).enumerate() {
        // What QEMU tells of it is another name.
        if image.path.to_str().is_none() {
            let path = image.path.clone();
            refusals.push(DiskRefusal::NotUtf8 { vdev: vdev.clone(), path });
            continue;
        }
        let is_open = match writers {
            Writers::Only(pid) => chain.holders()[at].is_held_by(pid),
            Writers::Nobody | Writers::Anybody => true,
        };
        if !is_open || !names(open, image) || open.format != image.format.name() {
            let path = image.path.clone();
            refusals.push(DiskRefusal::NotTheOpenFile { vdev: vdev.clone(), path });
        }
    }
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let NodeImage { virtual_size, .. } = node.image;
    let qemu = if let Writers::Only(pid) = writers { Some(pid) } else { None };
    Ok(CheckedNode { chain, virtual_size, cache: node.cache, qemu, warnings })
}

/// Whether a node's file is an image, by device and inode.
pub(in crate::disk) fn names(node: &NodeImage, image: &ImageRef) -> bool {
    let metadata = path_of(node).and_then(|path| std::fs::metadata(path).ok());
    metadata.is_some_and(|metadata| (metadata.dev(), metadata.ino()) == (image.dev, image.ino))
}

/// The nodes with which QEMU writes an image of that format, known by device and inode.
pub(crate) fn nodes_writing<'n>(
    nodes: &'n [QmpNode],
    image: &std::path::Path,
    format: ImageFormat,
) -> Vec<&'n str> {
    let Ok(image) = image.metadata() else { return Vec::new() };
    let is_it = |node: &&QmpNode| {
        let open = path_of(&node.image).and_then(|path| path.metadata().ok());
        !node.read_only
            && ImageFormat::from_name(&node.driver) == Some(format)
            && open.is_some_and(|open| (open.dev(), open.ino()) == (image.dev(), image.ino()))
    };
    nodes.iter().filter(is_it).map(|node| &*node.name).collect()
}

/// The file of a node, if it is one with an absolute path and nothing is in between.
///
/// Where a plain name would not open the same, as for an overlay that is opened without its backing file, QEMU tells a description.
/// What has only a descriptor set, a protocol or a path relative to QEMU's directory has no path here.
pub(in crate::disk) fn path_of(node: &NodeImage) -> Option<PathBuf> {
    let is_path = |path: &str| path.starts_with('/') && !path.starts_with("/dev/fdset/");
    let Some(description) = node.filename.strip_prefix("json:") else {
        return is_path(&node.filename).then(|| PathBuf::from(&node.filename));
    };
    let description: serde_json::Value = serde_json::from_str(description).ok()?;
    let file = &description["file"];
    let direct = description["driver"] == *node.format && file["driver"] == "file";
    let path = file["filename"].as_str().filter(|path| direct && is_path(path));
    path.map(PathBuf::from)
}

/// Everything about the graph that concerns all disks.
pub(in crate::disk) fn job_refusals(
    client: &mut QmpClient,
    deadline: std::time::Instant,
) -> Result<Vec<DiskRefusal>, crate::disk::qmp::QmpError> {
    let jobs = client.block_jobs(deadline)?;
    // Which nodes a job works on, QEMU tells in no version: any job is one too many.
    Ok(jobs
        .into_iter()
        .map(|job| DiskRefusal::BlockJob { device: job.device, kind: job.kind })
        .collect())
}

/// Looks who has what open: once for all disks, since the guest may be waiting.
pub(in crate::disk) fn look() -> Result<OpenFiles, DiskFailure> {
    let failed =
        |source| DiskFailure::Io { path: "/proc".into(), step: "look who has what open", source };
    OpenFiles::look().map_err(failed)
}

pub(super) fn holders_of(opened: &OpenImage, files: &OpenFiles) -> Result<Holders, ImageError> {
    files
        .holders(&opened.file)
        .map_err(|source| ImageError::Read { path: opened.image.path.clone(), source })
}

/// The QEMU that writes the image: who listens on its socket, or else the only one who writes.
fn qemu_among(holders: &Holders, listener: Option<u32>) -> Option<u32> {
    match (listener, &holders.writing[..]) {
        (Some(pid), writing) if writing.contains(&pid) => Some(pid),
        (_, [pid]) => Some(*pid),
        _ => None,
    }
}

fn open_images(top: &NodeImage) -> Vec<&NodeImage> {
    std::iter::successors(Some(top), |image| image.backing.as_deref()).collect()
}
