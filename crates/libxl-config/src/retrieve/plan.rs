//! What to read of Xenstore for one domain: four levels, each asked at once, whatever devices the domain has.
//!
//! [`wanted`] is a function of what has been read so far, so the levels follow from the tree itself:
//!
//! 1. the knobs, and which kinds of devices there are in the three trees (toolstack, frontend, backend);
//! 2. which devices of each kind there are;
//! 3. which keys each device has, where its backend is, and the states of both ends;
//! 4. the values of the keys.

use std::collections::BTreeSet;

use xsclient::{DomId, Name, Path};

use super::class::{self, ClassInfo, Layout};
use super::observed::{Ask, Observed};

/// How many levels there are.
pub(super) const LEVELS: usize = 4;

/// Most children read in a directory that the guest can fill: connectors of a display, streams of a sound card.
pub(super) const GUEST_CHILDREN_MAX: usize = 16;

/// Most ports of a USB controller, as Linux has it.
const USB_PORTS_MAX: usize = 31;

/// Keys of the backend that say how far attaching or detaching has come.
pub(super) const BACKEND_PROGRESS: [&str; 3] = ["state", "online", "hotplug-status"];

/// Where the trees of one domain are.
#[derive(Clone, Debug)]
pub(super) struct Trees {
    pub(super) domid: DomId,
    /// `/local/domain/DOMID`: the toolstack writes it, but for what the guest may write in it.
    pub(super) domain: Path,
    /// `/local/domain/DOMID/device`: the directories below `KIND/DEVID` belong to the guest.
    pub(super) frontends: Path,
    /// `/libxl/DOMID`: nobody writes it but the toolstack.
    pub(super) toolstack: Path,
    /// `/libxl/DOMID/device`
    pub(super) devices: Path,
    /// `/local/domain/0/backend`: where backends are unless a driver domain has them.
    pub(super) backends: Path,
    /// Whether it is asked how far attaching has come: up to four keys a device, of which no configuration is made.
    pub(super) progress: bool,
}

impl Trees {
    pub(super) fn of(domid: DomId) -> Self {
        let domain = Path::of_domain(domid);
        let toolstack = fixed(&format!("/libxl/{domid}"));
        Self {
            domid,
            frontends: under(&domain, "device"),
            devices: under(&toolstack, "device"),
            backends: fixed("/local/domain/0/backend"),
            domain,
            toolstack,
            progress: true,
        }
    }

    /// Whether the guest can write this node, so that its changes must not keep a read from being consistent: the
    /// directory of a frontend and all in it. It is the toolstack that makes such a directory, so one that was not there
    /// counts.
    pub(super) fn is_guests(&self, path: &Path, seen: &Observed) -> bool {
        let mut names = path.below(&self.frontends).into_iter().flat_map(|below| below.split('/'));
        let (Some(kind), Some(devid)) = (names.next(), names.next()) else { return false };
        let of_kind = seen.children(&under(&self.frontends, kind));
        of_kind.iter().any(|listed| listed.as_str() == devid)
    }
}

/// What has to be read next; nothing, when the view is complete. Everything asked before has been answered.
pub(super) fn wanted(trees: &Trees, seen: &Observed) -> BTreeSet<Ask> {
    let mut asks = Asks { seen, new: BTreeSet::new() };
    knobs(trees, &mut asks);
    for device in devices(trees, seen) {
        device_asks(trees, &device, &mut asks);
    }
    asks.new
}

/// A device that at least one of the three trees knows.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The name of the directory of such devices in the toolstack's and the frontend tree.
    pub(super) kind: Name,
    pub(super) devid: Name,
    /// What this version knows of the kind; `None` for a kind it does not know.
    pub(super) info: Option<&'static ClassInfo>,
    /// Its directory in the toolstack's tree, if it has one.
    pub(super) toolstack: Option<Path>,
    /// Its directory in the frontend tree, if it has one.
    pub(super) frontend: Option<Path>,
    /// Its directory in the backend tree, if it has one or something trustworthy names it.
    pub(super) backend: Option<Path>,
}

impl Place {
    /// Whether the keys it was made with are to be read in the backend's tree.
    fn is_read_in_backend(&self) -> bool {
        self.toolstack.is_none() || self.info.is_some_and(ClassInfo::changes_in_backend)
    }
}

struct Asks<'a> {
    seen: &'a Observed,
    new: BTreeSet<Ask>,
}

impl Asks<'_> {
    fn want(&mut self, ask: Ask) {
        if !self.seen.is_asked(&ask) {
            self.new.insert(ask);
        }
    }

    fn value(&mut self, directory: &Path, key: &str) {
        if let Ok(path) = directory.join(key) {
            self.want(Ask::Value(path));
        }
    }

    fn children(&mut self, path: &Path) {
        self.want(Ask::Children(path.clone()));
    }
}

fn knobs(trees: &Trees, asks: &mut Asks<'_>) {
    // All of the first level is asked at once, so that one of it stands for the rest.
    if asks.seen.value(&trees.domain).is_none() {
        first_level(trees, asks);
    }
    let cpus = under(&trees.domain, "cpu");
    for cpu in asks.seen.children(&cpus) {
        asks.value(&cpus, &format!("{cpu}/availability"));
    }
    for directory in [&trees.devices, &trees.frontends] {
        for kind in asks.seen.children(directory).iter().filter(|kind| is_device_kind(kind)) {
            asks.children(&under(directory, kind.as_str()));
        }
    }
    for kind in asks.seen.children(&trees.backends) {
        asks.children(&under(&trees.backends, &format!("{kind}/{}", trees.domid)));
    }
}

fn first_level(trees: &Trees, asks: &mut Asks<'_>) {
    asks.want(Ask::Value(trees.domain.clone()));
    for key in ["name", "vm", "memory/target", "memory/static-max", "memory/videoram"] {
        asks.value(&trees.domain, key);
    }
    asks.value(&trees.toolstack, "type");
    asks.children(&under(&trees.domain, "cpu"));
    for directory in [&trees.devices, &trees.frontends, &trees.backends] {
        asks.children(directory);
    }
    // One level earlier than the others', since it is one level deeper.
    asks.children(&under(&trees.frontends, "vsnd"));
}

/// `device/suspend` holds an event channel, not devices.
fn is_device_kind(kind: &Name) -> bool {
    kind.as_str() != "suspend"
}

/// All devices that the listings so far show, in the order of kind and devid.
pub(super) fn devices(trees: &Trees, seen: &Observed) -> Vec<Place> {
    let mut found: Vec<Place> = Vec::new();
    for (directory, toolstack) in [(&trees.devices, true), (&trees.frontends, false)] {
        for kind in seen.children(directory).iter().filter(|kind| is_device_kind(kind)) {
            let of_kind = under(directory, kind.as_str());
            for devid in seen.children(&of_kind) {
                let path = under(&of_kind, devid.as_str());
                let place = entry(&mut found, kind, devid);
                if toolstack {
                    place.toolstack = Some(path);
                } else {
                    place.frontend = Some(path);
                }
            }
        }
    }
    for place in &mut found {
        place.backend = backend_of(trees, seen, place);
    }
    // Backends that neither of the other trees names: kept by a driver that did not clean up, or (PCI) the only record.
    for backend_kind in seen.children(&trees.backends) {
        let of_domain = under(&trees.backends, &format!("{backend_kind}/{}", trees.domid));
        for devid in seen.children(&of_domain) {
            let path = under(&of_domain, devid.as_str());
            let info = class::of_backend_kind(backend_kind.as_str());
            if found.iter().any(|place| place.backend.as_ref() == Some(&path)) {
                continue;
            }
            let kind = info
                .and_then(|info| info.kinds.first()?.parse().ok())
                .unwrap_or_else(|| backend_kind.clone());
            let place = entry(&mut found, &kind, devid);
            if place.backend.is_none() {
                place.backend = Some(path);
            }
        }
    }
    found.sort_by(|a, b| order(a).cmp(&order(b)));
    found
}

fn order(place: &Place) -> (&str, u64, &str) {
    let devid = place.devid.as_str();
    (place.kind.as_str(), devid.parse().unwrap_or(u64::MAX), devid)
}

fn entry<'a>(found: &'a mut Vec<Place>, kind: &Name, devid: &Name) -> &'a mut Place {
    let at = found
        .iter()
        .position(|place| place.kind == *kind && place.devid == *devid)
        .unwrap_or_else(|| {
            let (kind, devid) = (kind.clone(), devid.clone());
            let info = class::of_kind(kind.as_str());
            found.push(Place { kind, devid, info, toolstack: None, frontend: None, backend: None });
            found.len() - 1
        });
    &mut found[at]
}

/// Where the backend of a device is: what the toolstack's tree says; else what dom0's backend directory shows; else what
/// the guest says, if that can only be a backend of this device.
fn backend_of(trees: &Trees, seen: &Observed, place: &Place) -> Option<Path> {
    let pointer =
        |directory: &Path| Path::from_octets(seen.value(&directory.join("backend").ok()?)?).ok();
    if let Some(told) = place.toolstack.as_ref().and_then(pointer) {
        return Some(told);
    }
    let listed = place.info.iter().flat_map(|info| info.backend_kinds).find_map(|kind| {
        let of_domain = under(&trees.backends, &format!("{kind}/{}", trees.domid));
        seen.children(&of_domain)
            .contains(&place.devid)
            .then(|| under(&of_domain, place.devid.as_str()))
    });
    listed.or_else(|| {
        let told = place.frontend.as_ref().and_then(pointer)?;
        let kinds = place.info?.backend_kinds;
        let place_told = BackendPlace::of(&told)?;
        // In a backend of its own, both sides would be the guest's word.
        let fits = kinds.contains(&place_told.kind)
            && place_told.backend_domid != trees.domid
            && place_told.frontend_domid == trees.domid
            && place_told.devid == place.devid.as_str();
        fits.then_some(told)
    })
}

/// The parts of `/local/domain/B/backend/KIND/D/DEVID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BackendPlace<'a> {
    pub(super) backend_domid: DomId,
    pub(super) kind: &'a str,
    pub(super) frontend_domid: DomId,
    pub(super) devid: &'a str,
}

impl<'a> BackendPlace<'a> {
    pub(super) fn of(path: &'a Path) -> Option<Self> {
        let names: Vec<&str> = path.components().collect();
        let ["local", "domain", backend_domid, "backend", kind, frontend_domid, devid] = names[..]
        else {
            return None;
        };
        let (backend_domid, frontend_domid) =
            (backend_domid.parse().ok()?, frontend_domid.parse().ok()?);
        Some(Self { backend_domid, kind, frontend_domid, devid })
    }
}

fn device_asks(trees: &Trees, place: &Place, asks: &mut Asks<'_>) {
    ends(trees, place, asks);
    let Some(info) = place.info else { return };
    created_keys(trees, place, info, asks);
    match info.layout {
        Layout::Flat => {}
        Layout::Ports => ports(trees, place, asks),
        Layout::Nested(depth) => {
            if let Some(frontend) = &place.frontend {
                nested(info, frontend, depth, asks);
            }
        }
    }
}

/// Where the ends of a device are, and their states if those are asked for.
fn ends(trees: &Trees, place: &Place, asks: &mut Asks<'_>) {
    if let Some(toolstack) = &place.toolstack {
        asks.children(toolstack);
        asks.value(toolstack, "backend");
    }
    if let Some(frontend) = &place.frontend {
        if trees.progress {
            asks.value(frontend, "state");
        }
        if place.toolstack.is_none() {
            asks.value(frontend, "backend");
        }
    }
    if let Some(backend) = &place.backend {
        if trees.progress {
            progress(trees, place, backend, asks);
        }
        if place.is_read_in_backend() {
            if !is_far(trees, place) {
                asks.children(backend);
            }
            // A backend that a guest names must name the guest in return.
            asks.value(backend, "frontend");
        }
    }
}

/// How far the backend has come.
fn progress(trees: &Trees, place: &Place, backend: &Path, asks: &mut Asks<'_>) {
    for key in BACKEND_PROGRESS {
        asks.value(backend, key);
    }
    // No level is left to read a driver domain's once its status is known.
    let scripted_far =
        is_far(trees, place) && place.info.is_some_and(|info| !info.scripted.is_empty());
    let failed = asks.seen.value(&under(backend, "hotplug-status")) == Some(b"error");
    if failed || scripted_far {
        asks.value(backend, "hotplug-error");
    }
}

/// The keys as they were created stand in the toolstack's tree; where there is none, in the backend's.
fn created_keys(trees: &Trees, place: &Place, info: &ClassInfo, asks: &mut Asks<'_>) {
    let toolstack = place.toolstack.as_ref().filter(|_| !place.is_read_in_backend());
    let Some(created) = toolstack.or(place.backend.as_ref()) else { return };
    if toolstack.is_none() && is_far(trees, place) {
        // Found one level later than others: no level is left to list the keys before reading them.
        info.keys.iter().for_each(|key| asks.value(created, key));
    }
    for key in asks.seen.children(created) {
        if info.reads(key.as_str()) {
            asks.value(created, key.as_str());
        }
    }
}

/// What is in the ports of a USB controller.
fn ports(trees: &Trees, place: &Place, asks: &mut Asks<'_>) {
    for directory in [&place.toolstack, &place.backend].into_iter().flatten() {
        let ports = under(directory, "port");
        if is_far(trees, place) && Some(directory) == place.backend.as_ref() {
            (1..=USB_PORTS_MAX).for_each(|port| asks.value(&ports, &port.to_string()));
            continue;
        }
        asks.children(&ports);
        for port in asks.seen.children(&ports) {
            asks.value(&ports, port.as_str());
        }
    }
}

/// Whether the backend is a driver domain's, so that only the third level tells where.
pub(super) fn is_far(trees: &Trees, place: &Place) -> bool {
    place.backend.as_ref().is_some_and(|backend| !backend.is_at_or_below(&trees.backends))
}

/// Keys in the frontend tree, and in directories of it that have numbers for names, down to `depth`.
fn nested(info: &ClassInfo, directory: &Path, depth: usize, asks: &mut Asks<'_>) {
    if depth > 0 {
        asks.children(directory);
    }
    let listed = asks.seen.children(directory);
    for key in info.frontend_keys {
        if depth == 0 || listed.iter().any(|name| name.as_str() == *key) {
            asks.value(directory, key);
        }
    }
    if depth > 0 {
        for below in numbered(asks.seen, directory).take(GUEST_CHILDREN_MAX) {
            nested(info, &below, depth - 1, asks);
        }
    }
}

/// The directories of guests that hold more than [`GUEST_CHILDREN_MAX`] others, of which only so many were read.
pub(super) fn crowded(seen: &Observed, place: &Place) -> Vec<Path> {
    let Some(Layout::Nested(depth)) = place.info.map(|info| info.layout) else { return Vec::new() };
    let mut level: Vec<Path> = place.frontend.iter().cloned().collect();
    let mut crowded = Vec::new();
    for _ in 0..depth {
        let full = level.iter().filter(|path| numbered(seen, path).count() > GUEST_CHILDREN_MAX);
        crowded.extend(full.cloned());
        level =
            level.iter().flat_map(|path| numbered(seen, path).take(GUEST_CHILDREN_MAX)).collect();
    }
    crowded
}

/// The directories in a directory that have numbers for names.
fn numbered<'a>(seen: &'a Observed, directory: &'a Path) -> impl Iterator<Item = Path> + 'a {
    let is_number = |name: &&Name| name.as_str().bytes().all(|c| c.is_ascii_digit());
    seen.children(directory).iter().filter(is_number).map(|name| under(directory, name.as_str()))
}

/// A path below one that exists, by names that are no longer than what a path may hold; the root of the directory itself
/// if they were, which asks for nothing new.
pub(super) fn under(directory: &Path, below: &str) -> Path {
    directory.join(below).unwrap_or_else(|_| directory.clone())
}

fn fixed(path: &str) -> Path {
    path.parse().expect("written out here, with a domain id that is a number")
}
