//! What is to be written for the disks asked for, and what speaks against it: a function of the two views.

use std::collections::{BTreeMap, BTreeSet};

use xsclient::{Path, limits};

use super::writes::Change;
use super::{Image, Refusal, ReplacedDisk, Replacement};
use crate::DomainConfig;
use crate::model::{DefBool, Disk, DiskBackend, DiskFormat, DomainType};
use crate::retrieve::Attachment;
use crate::retrieve::disks::{self, LiveDisk, LiveDisks, NoBackend};

/// What the backends' directories have under `params`, by the path of that node.
pub(super) type Params = BTreeMap<Path, Option<Vec<u8>>>;

/// One disk that can be changed.
pub(super) struct Judged {
    pub(super) disk: ReplacedDisk,
    /// Its place in the template's list.
    pub(super) index: usize,
    /// The nodes to write: those that do not have the new value already.
    pub(super) changes: Vec<Change>,
    /// What was read to come to this, and must still stand when it is written.
    pub(super) relied_on: Vec<(Path, Option<Vec<u8>>)>,
}

/// Where the backends of the disks asked for keep what names their images.
pub(super) fn backend_params(asked: &[Replacement], live: &LiveDisks) -> BTreeSet<Path> {
    let numbers = asked.iter().filter_map(|one| disks::number(&one.vdev));
    let found = numbers.flat_map(|number| live.with_number(number));
    found.filter_map(|disk| disk.backend().ok()?.join("params").ok()).collect()
}

/// Judges all disks asked for; every refusal there is.
pub(super) fn judge(
    asked: &[Replacement],
    config: &DomainConfig,
    live: &LiveDisks,
    params: &Params,
) -> (Vec<Judged>, Vec<Refusal>) {
    let views = Views { config, live, params };
    let mut refusals = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut judged = Vec::new();
    for one in asked {
        if disks::number(&one.vdev).is_some_and(|number| !numbers.insert(number)) {
            refusals.push(Refusal::Twice { vdev: one.vdev.clone() });
            continue;
        }
        let before = refusals.len();
        let found = views.one(one, &mut refusals);
        if refusals.len() == before {
            judged.extend(found);
        }
    }
    (judged, refusals)
}

struct Views<'a> {
    config: &'a DomainConfig,
    live: &'a LiveDisks,
    params: &'a Params,
}

impl<'a> Views<'a> {
    /// Goes on after a refusal as far as there is more to say; `None` only with a refusal.
    fn one(&self, asked: &Replacement, refusals: &mut Vec<Refusal>) -> Option<Judged> {
        check_path(asked, refusals);
        let (index, entry, live) = self.find(&asked.vdev).map_err(|no| refusals.push(no)).ok()?;
        let vdev = entry.vdev.clone().unwrap_or_default();
        check_entry(&vdev, entry, &live, refusals);
        let attachment = live.attachment(self.config.c_info.domain_type == DomainType::Hvm);
        if !matches!(
            attachment,
            Attachment::Connected | Attachment::WaitingForFrontend | Attachment::Emulated
        ) {
            refusals.push(Refusal::NotAttached { vdev: vdev.clone(), attachment });
        }
        let is_image = check_backend(&vdev, &asked.image, entry, &live, refusals);
        let places = directories(&vdev, &live).map_err(|no| refusals.push(no)).ok()?;
        if !is_image {
            // What stands under its params is a device.
            return None;
        }
        let values = self.values(&vdev, &live, &places).map_err(|no| refusals.push(no)).ok()?;
        let new = asked.image.params();
        for (path, _) in &values {
            // The node, a NUL, and the value.
            let len = path.as_str().len() + 1 + new.len();
            if len > limits::PAYLOAD_MAX {
                let (node, max) = (path.to_string(), limits::PAYLOAD_MAX);
                refusals.push(Refusal::TooLong { vdev: vdev.clone(), node, len, max });
            }
        }
        let [(_, copy), _] = &values;
        let image = image_of(&vdev, &values[0].0, copy).map_err(|no| refusals.push(no)).ok()?;
        let octets = |(path, text): (Path, Option<String>)| (path, text.map(String::into_bytes));
        let mut relied_on: Vec<_> = live.relied_on().into_iter().map(octets).collect();
        relied_on.extend(values.iter().map(|(path, old)| (path.clone(), Some(old.clone()))));
        let changed = values.into_iter().filter(|(_, old)| old != new.as_bytes());
        let changes = changed.map(|(path, old)| Change { path, old, new: new.clone().into() });
        let template =
            Image::new(entry.pdev_path.clone().unwrap_or_default(), entry.format.clone());
        let disk = ReplacedDisk { vdev, template, live: image, image: asked.image.clone() };
        Some(Judged { disk, index, changes: changes.collect(), relied_on })
    }

    /// The disk in both views.
    fn find(&self, vdev: &str) -> Result<(usize, &'a Disk, LiveDisk<'a>), Refusal> {
        let vdev = vdev.to_owned();
        let Some(number) = disks::number(&vdev) else { return Err(Refusal::NoSuchDisk { vdev }) };
        let is_it = |disk: &Disk| disk.vdev.as_deref().and_then(disks::number) == Some(number);
        let entries: Vec<(usize, &Disk)> =
            self.config.disks.iter().enumerate().filter(|(_, disk)| is_it(disk)).collect();
        let found = self.live.with_number(number);
        let several = |count, place| Refusal::Ambiguous { vdev: vdev.clone(), count, place };
        if entries.len() > 1 {
            return Err(several(entries.len(), "the template"));
        }
        // What the toolstack has removed is no disk of the domain, whatever is left at the two ends.
        let held: Vec<LiveDisk<'a>> =
            found.iter().copied().filter(|disk| disk.toolstack().is_some()).collect();
        if held.len() > 1 {
            return Err(several(held.len(), "Xenstore"));
        }
        let is_hvm = self.config.c_info.domain_type == DomainType::Hvm;
        match (&entries[..], &held[..]) {
            ([(index, entry)], [live]) => Ok((*index, entry, *live)),
            ([_], _) => {
                let attachment =
                    found.first().map_or(Attachment::Absent, |disk| disk.attachment(is_hvm));
                Err(Refusal::TemplateOnly { vdev, attachment })
            }
            (_, [_]) => Err(Refusal::XenstoreOnly { vdev }),
            _ => Err(Refusal::NoSuchDisk { vdev }),
        }
    }

    /// What names the image: in the copy of the toolstack's tree, and in the backend's directory.
    fn values(
        &self,
        vdev: &str,
        live: &LiveDisk<'_>,
        [toolstack, backend]: &[Path; 2],
    ) -> Result<[(Path, Vec<u8>); 2], Refusal> {
        let bad = |path: &Path, what: &str| Refusal::BadValue {
            vdev: vdev.to_owned(),
            path: path.to_string(),
            what: what.to_owned(),
        };
        let copy = live
            .value("params")
            .map_err(|text| bad(toolstack, &text.to_string()))?
            .ok_or_else(|| bad(toolstack, MISSING))?;
        let original = self.params.get(backend).and_then(Option::as_ref);
        let original = original.ok_or_else(|| bad(backend, MISSING))?;
        Ok([(toolstack.clone(), copy.into()), (backend.clone(), original.clone())])
    }
}

const MISSING: &str = "missing";

fn check_path(asked: &Replacement, refusals: &mut Vec<Refusal>) {
    let (vdev, path) = (asked.vdev.clone(), asked.image.path.clone());
    if path.contains(char::is_control) {
        refusals.push(Refusal::ControlCharacter { vdev, path });
    } else if !path.starts_with('/') {
        refusals.push(Refusal::NotAbsolute { vdev, path });
    }
}

fn check_entry(vdev: &str, entry: &Disk, live: &LiveDisk<'_>, refusals: &mut Vec<Refusal>) {
    let vdev = vdev.to_owned();
    let is_cdrom = entry.is_cdrom != 0 || live.value("device-type") == Ok(Some("cdrom"));
    let is_empty =
        entry.format == DiskFormat::Empty || entry.pdev_path.as_deref().is_none_or(str::is_empty);
    let is_replicated = entry.colo_enable == DefBool::True
        || entry.colo_restore_enable == DefBool::True
        || live.is_replicated();
    if is_cdrom {
        refusals.push(Refusal::Cdrom { vdev: vdev.clone() });
    } else if is_empty {
        refusals.push(Refusal::Empty { vdev: vdev.clone() });
    }
    if is_replicated {
        refusals.push(Refusal::Replicated { vdev });
    }
}

/// Whether the disk has an image at all; and refuses one that what serves the disk does not read.
fn check_backend(
    vdev: &str,
    image: &Image,
    entry: &Disk,
    live: &LiveDisk<'_>,
    refusals: &mut Vec<Refusal>,
) -> bool {
    let vdev = vdev.to_owned();
    let told = live.value("type").ok().flatten().unwrap_or("nothing known");
    let serves = match told {
        "qdisk" => DiskBackend::Qdisk,
        "tap" | "vbd3" => DiskBackend::Tap,
        other => {
            refusals.push(Refusal::Backend { vdev, backend: other.to_owned() });
            return false;
        }
    };
    if entry.backend != DiskBackend::Unknown && entry.backend != serves {
        let (template, live) = (entry.backend.to_string(), serves.to_string());
        refusals.push(Refusal::OtherBackend { vdev: vdev.clone(), template, live });
    }
    let is_served = match image.format {
        DiskFormat::Raw | DiskFormat::Vhd => true,
        // libxl gives tapdisk no others.
        DiskFormat::Qcow | DiskFormat::Qcow2 | DiskFormat::Qed => serves == DiskBackend::Qdisk,
        _ => false,
    };
    if !is_served {
        let (format, backend) = (image.format.clone(), serves.to_string());
        refusals.push(Refusal::Format { vdev, format, backend });
    }
    true
}

/// The two nodes that name the image.
fn directories(vdev: &str, live: &LiveDisk<'_>) -> Result<[Path; 2], Refusal> {
    let foreign = |told: String| Refusal::ForeignBackend { vdev: vdev.to_owned(), told };
    let backend = live.backend().map_err(|no_backend| match no_backend {
        NoBackend::NotNamed => foreign(String::new()),
        NoBackend::Elsewhere(told) => foreign(told),
    })?;
    let params = |directory: Option<Path>| directory?.join("params").ok();
    match (params(live.toolstack()), params(Some(backend))) {
        (Some(toolstack), Some(backend)) => Ok([toolstack, backend]),
        _ => Err(Refusal::NoSuchDisk { vdev: vdev.to_owned() }),
    }
}

/// The image that a value names.
fn image_of(vdev: &str, path: &Path, value: &[u8]) -> Result<Image, Refusal> {
    let bad =
        |what: String| Refusal::BadValue { vdev: vdev.to_owned(), path: path.to_string(), what };
    let text = str::from_utf8(value).map_err(|error| bad(error.to_string()))?;
    let image = Image::of_params(text).map_err(bad)?;
    if image.format == DiskFormat::Empty {
        return Err(Refusal::Empty { vdev: vdev.to_owned() });
    }
    Ok(image)
}
