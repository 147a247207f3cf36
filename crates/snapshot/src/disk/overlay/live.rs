//! Overlays for a running domain, all in one transaction.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::BackingName;
use super::graph::{CheckedNode, check_node, holders_of, job_refusals, look, names};
use super::pivot::OverlayIntent;
use super::prepared::{OCTETS_NEEDED, PreparedOverlay};
use crate::CreationLog;
use crate::disk::image::{DEPTH_DEFAULT, ImageFormat, OpenImage};
use crate::disk::qemu_img::QemuImg;
use crate::disk::qmp::{QmpClient, QmpError, QmpNode, TransactionAction};
use crate::disk::target::{Unique, check_target};
use crate::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, LeftReason, PlanError, PlannedDisk, PrepareError, RollbackReport,
    WrongStage,
};

/// How long QEMU has to tell what became of a transaction whose answer was lost, when nothing else is said.
const RECHECK_DEFAULT: Duration = Duration::from_secs(5);

/// New qcow2 overlays over the images that a running QEMU writes: all disks change in one transaction, or none does.
///
/// QEMU's own checks are few. `blockdev-snapshot-sync` truncates a file that is in its way, and an overlay that records another backing
/// file than the one it is put over is taken without a word. So the overlays are made beforehand and checked against the files that
/// the QEMU process has open; QEMU is only asked to put them in place.
///
/// After the commit QEMU writes the overlays, and a rollback changes nothing any more: it reports them as
/// [`LeftReason::Active`]. `qemu-img` or a block job can merge them back.
#[derive(Debug)]
pub struct LiveOverlays {
    socket: PathBuf,
    disks: Vec<LiveOverlay>,
    qemu_img: QemuImg,
    depth: usize,
    recheck: Duration,
    stage: Stage,
}

/// One disk of [`LiveOverlays`].
#[derive(Clone, Debug)]
pub struct LiveOverlay {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The node of the active image. libxl's QEMU has `VDEV-FORMAT`, as `xvda-qcow2`.
    pub node: String,
    /// Where the overlay is to be: an absolute path, since QEMU's directory is another.
    pub overlay: PathBuf,
    /// The node that the overlay is to be.
    pub overlay_node: String,
    /// How the overlay names the image.
    pub backing: BackingName,
}

impl LiveOverlay {
    /// An overlay that names its image by the absolute path.
    pub fn new(
        vdev: impl Into<String>,
        node: impl Into<String>,
        overlay: impl Into<PathBuf>,
        overlay_node: impl Into<String>,
    ) -> Self {
        Self {
            vdev: vdev.into(),
            node: node.into(),
            overlay: overlay.into(),
            overlay_node: overlay_node.into(),
            backing: BackingName::Absolute,
        }
    }

    fn action(&self) -> DiskAction {
        DiskAction::ExternalQcow2 { overlay: self.overlay.clone() }
    }
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Prepared(Vec<Ready>),
    /// Done, or perhaps done: why the overlays stay, as far as a reason can be told again.
    Kept(Vec<PathBuf>, Kept),
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    Active,
    Unknown,
}

/// A disk that is ready for the transaction.
#[derive(Debug)]
struct Ready {
    disk: LiveOverlay,
    checked: CheckedNode,
    overlay: PreparedOverlay,
}

impl LiveOverlays {
    /// Overlays for these disks of the QEMU behind a QMP socket, made by the `qemu-img` in `PATH`.
    pub fn new(socket: impl Into<PathBuf>, disks: Vec<LiveOverlay>) -> Self {
        Self {
            socket: socket.into(),
            disks,
            qemu_img: QemuImg::default(),
            depth: DEPTH_DEFAULT,
            recheck: RECHECK_DEFAULT,
            stage: Stage::Fresh,
        }
    }

    /// With another `qemu-img`.
    #[must_use]
    pub fn with_qemu_img(mut self, qemu_img: QemuImg) -> Self {
        self.qemu_img = qemu_img;
        self
    }

    /// With chains of at most this many images, the overlay included.
    #[must_use]
    pub fn with_depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }

    /// With another time to ask QEMU again, after the answer to the transaction was lost.
    #[must_use]
    pub fn with_recheck(mut self, recheck: Duration) -> Self {
        self.recheck = recheck;
        self
    }

    /// What a commit is going to do, for [`recover_overlays`](super::recover_overlays).
    ///
    /// # Errors
    ///
    /// If it is not prepared, or done already.
    pub fn intents(&self) -> Result<Vec<OverlayIntent>, WrongStage> {
        match &self.stage {
            Stage::Prepared(ready) => Ok(ready.iter().map(Ready::intent).collect()),
            stage => Err(WrongStage { wanted: "telling of the commit", is: stage.name() }),
        }
    }

    fn check(&self, deadline: Instant) -> Result<Vec<CheckedNode>, PlanError> {
        let mut client = QmpClient::connect(&self.socket, deadline).map_err(DiskFailure::from)?;
        let nodes = client.nodes(deadline).map_err(DiskFailure::from)?;
        let mut refusals = job_refusals(&mut client, deadline).map_err(DiskFailure::from)?;
        let files = look()?;
        let (mut unique, mut checked) = (Unique::default(), Vec::new());
        for disk in &self.disks {
            let LiveOverlay { vdev, node, overlay, overlay_node, backing: _ } = disk;
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            unique.check(vdev, format!("the overlay {}", overlay.display()), &mut refusals);
            unique.check(vdev, format!("the node {node}"), &mut refusals);
            unique.check(vdev, format!("the node {overlay_node}"), &mut refusals);
            check_target(vdev, overlay, &mut refusals);
            if overlay.to_str().is_none() {
                let (vdev, path) = (vdev.clone(), overlay.clone());
                refusals.push(DiskRefusal::NotUtf8 { vdev, path });
            }
            if overlay.is_relative() {
                let source = std::io::ErrorKind::InvalidInput.into();
                let (vdev, path) = (vdev.clone(), overlay.clone());
                refusals.push(DiskRefusal::Target { vdev, path, source });
            }
            if nodes.iter().any(|node| node.name == *overlay_node) {
                let (vdev, node) = (vdev.clone(), overlay_node.clone());
                refusals.push(DiskRefusal::NodeTaken { vdev, node });
            }
            let depth = self.depth.saturating_sub(1);
            match check_node(vdev, node, &nodes, client.listener(), depth, &files) {
                Ok(node) => checked.push(node),
                Err(broken) => refusals.extend(broken),
            }
        }
        if refusals.is_empty() { Ok(checked) } else { Err(PlanError::Refused { refusals }) }
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "not prepared",
            Self::Prepared(_) => "prepared",
            Self::Kept(..) => "committed",
            Self::Ended => "ended",
        }
    }
}

impl DiskSnapshotter for LiveOverlays {
    fn describe(&self) -> Description {
        Description {
            kind: "qcow2 overlays, live",
            disks: self.disks.iter().map(|disk| (disk.vdev.clone(), disk.action())).collect(),
            atomic: true,
            live: true,
            reversible: false,
        }
    }

    fn plan(&mut self, deadline: Instant) -> Result<DiskPlan, PlanError> {
        let planned = |(disk, checked): (&LiveOverlay, CheckedNode)| PlannedDisk {
            vdev: disk.vdev.clone(),
            action: disk.action(),
            chain: checked.chain.into_images(),
            octets_needed: OCTETS_NEEDED,
            warnings: checked.warnings,
        };
        let disks = self.disks.iter().zip(self.check(deadline)?).map(planned).collect();
        Ok(DiskPlan { disks })
    }

    fn prepare(
        &mut self,
        log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        let Stage::Fresh = self.stage else {
            return Err(WrongStage { wanted: "prepare", is: self.stage.name() }.into());
        };
        let mut ready: Vec<Ready> = Vec::new();
        for (disk, checked) in self.disks.iter().zip(self.check(deadline)?) {
            let LiveOverlay { overlay, backing, .. } = disk;
            let (base, size) = (checked.chain.active(), checked.virtual_size);
            match PreparedOverlay::create(
                &self.qemu_img,
                overlay,
                backing,
                base,
                size,
                log,
                deadline,
            ) {
                Ok(overlay) => ready.push(Ready { disk: disk.clone(), checked, overlay }),
                Err(source) => {
                    let mut report = RollbackReport::default();
                    ready.iter().for_each(|ready| ready.overlay.remove(&mut report));
                    let (vdev, left) = (disk.vdev.clone(), report.left);
                    let source = Box::new(source);
                    return Err(PrepareError::Failed { vdev, source, left });
                }
            }
        }
        self.stage = Stage::Prepared(ready);
        Ok(())
    }

    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let Stage::Prepared(ready) = &self.stage else {
            return Err(WrongStage { wanted: "commit", is: self.stage.name() }.into());
        };
        let transaction = Transaction { ready, socket: &self.socket, depth: self.depth };
        let outcome = transaction.run(deadline, self.recheck);
        let overlays = || ready.iter().map(|ready| ready.disk.overlay.clone()).collect();
        match &outcome {
            Ok(_) | Err(CommitError::Unverified(_)) => {
                self.stage = Stage::Kept(overlays(), Kept::Active);
            }
            Err(CommitError::Unknown { .. }) => {
                self.stage = Stage::Kept(overlays(), Kept::Unknown);
            }
            Err(_) => {}
        }
        outcome
    }

    fn rollback(&mut self, _deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Fresh | Stage::Ended => {}
            Stage::Prepared(ready) => {
                ready.iter().for_each(|ready| ready.overlay.remove(&mut report));
            }
            Stage::Kept(overlays, kept) => {
                for overlay in &overlays {
                    let reason = match kept {
                        Kept::Active => LeftReason::Active,
                        Kept::Unknown => LeftReason::Unknown,
                    };
                    report.leave(overlay, reason);
                }
                self.stage = Stage::Kept(overlays, kept);
            }
        }
        report
    }
}

/// The commit of prepared overlays.
struct Transaction<'a> {
    ready: &'a [Ready],
    socket: &'a Path,
    depth: usize,
}

impl Transaction<'_> {
    fn run(&self, deadline: Instant, recheck: Duration) -> Result<Vec<DiskSnapshot>, CommitError> {
        let unchanged = CommitError::Unchanged;
        let mut client =
            QmpClient::connect(self.socket, deadline).map_err(|error| unchanged(error.into()))?;
        let mut added = 0;
        if let Err(source) = self.add_overlays(&mut client, &mut added, deadline) {
            // Nothing has been put over anything: nodes of their own change no disk. A node that stays keeps its file open, which
            // keeps the rollback from removing it.
            if let Err(error) = self.delete_nodes(&mut client, added, deadline.max(later(recheck)))
            {
                tracing::warn!(%error, "QEMU keeps nodes of a snapshot that is not made");
            }
            return Err(unchanged(source));
        }
        let actions: Vec<_> = self.ready.iter().map(Ready::to_action).collect();
        match client.transaction(&actions, deadline) {
            Ok(()) => {
                let nodes = client.nodes(deadline.max(later(recheck)));
                let nodes = nodes.map_err(|error| CommitError::Unverified(error.into()))?;
                self.results(&nodes, false).map_err(CommitError::Unverified)
            }
            Err(error) if error.is_refusal() => {
                if let Err(error) = self.delete_nodes(&mut client, added, later(recheck)) {
                    tracing::warn!(%error, "QEMU keeps nodes of a snapshot that is not made");
                }
                Err(unchanged(error.into()))
            }
            Err(error) => {
                // QEMU serves one client of the socket at a time.
                drop(client);
                self.ask_again(error, later(recheck))
            }
        }
    }

    /// I6: what was prepared rests on what is open now, and QEMU opens what was prepared.
    fn add_overlays(
        &self,
        client: &mut QmpClient,
        added: &mut usize,
        deadline: Instant,
    ) -> Result<(), DiskFailure> {
        let nodes = client.nodes(deadline)?;
        let files = look()?;
        for ready @ Ready { disk, checked, overlay } in self.ready {
            let base = checked.chain.active();
            let now = check_node(
                &disk.vdev,
                &disk.node,
                &nodes,
                client.listener(),
                self.depth.saturating_sub(1),
                &files,
            );
            match now {
                Ok(now) if now.chain.is_same_files(&checked.chain) => {}
                Ok(_) => return Err(ready.intent().not_shown()),
                Err(refusals) => return Err(DiskFailure::Refused { refusals }),
            }
            overlay.verify(base)?;
        }
        for Ready { disk, checked, .. } in self.ready {
            let path = disk.overlay.to_str().unwrap_or_default();
            client.add_overlay(&disk.overlay_node, path, checked.cache, deadline)?;
            *added += 1;
        }
        let files = look()?;
        for ready @ Ready { disk, checked, overlay } in self.ready {
            // Opening it for writing may mark it as in use, in its header; that it is the same file is what counts.
            let now = OpenImage::open(disk.overlay.clone(), ImageFormat::Qcow2)?;
            if !now.image.is_same_file(&overlay.image) {
                let changes = now.image.changes_since(&overlay.image);
                return Err(DiskFailure::Changed { path: disk.overlay.clone(), changes });
            }
            // The name may have meant another file at the moment when QEMU opened it.
            let writing = holders_of(&now, &files)?.writing;
            if checked.qemu.is_some_and(|qemu| writing != [qemu]) {
                return Err(ready.intent().not_shown());
            }
        }
        let nodes = client.nodes(deadline)?;
        for ready @ Ready { disk, checked, overlay } in self.ready {
            let node = nodes.iter().find(|node| node.name == disk.overlay_node);
            let right = node.is_some_and(|node| {
                names(&node.image, &overlay.image)
                    && node.image.virtual_size == checked.virtual_size
                    && !node.read_only
            });
            if !right {
                return Err(ready.intent().not_shown());
            }
        }
        Ok(())
    }

    fn delete_nodes(
        &self,
        client: &mut QmpClient,
        added: usize,
        deadline: Instant,
    ) -> Result<(), QmpError> {
        self.ready
            .iter()
            .take(added)
            .try_for_each(|ready| client.delete_node(&ready.disk.overlay_node, deadline))
    }

    /// The answer is lost. QEMU executes the commands of a socket one after another, so that it knows when it answers again.
    fn ask_again(
        &self,
        lost: QmpError,
        deadline: Instant,
    ) -> Result<Vec<DiskSnapshot>, CommitError> {
        let source = DiskFailure::from(lost);
        let asked = QmpClient::connect(self.socket, deadline)
            .and_then(|mut client| client.nodes(deadline).map(|nodes| (client, nodes)));
        let (mut client, nodes) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                return Err(CommitError::Unknown { source, asked: Box::new(error.into()) });
            }
        };
        let pivoted = self.ready.iter().filter(|ready| ready.intent().is_pivoted(&nodes)).count();
        if pivoted == self.ready.len() {
            return self.results(&nodes, true).map_err(CommitError::Unverified);
        }
        // Once the nodes are deleted, no transaction can use them any more: that makes sure.
        let deleted = if pivoted == 0 {
            self.delete_nodes(&mut client, self.ready.len(), deadline).map_err(DiskFailure::from)
        } else {
            Err(self.ready[0].intent().not_shown())
        };
        match deleted {
            Ok(()) => Err(CommitError::Unchanged(source)),
            Err(asked) => Err(CommitError::Unknown { source, asked: Box::new(asked) }),
        }
    }

    fn results(&self, nodes: &[QmpNode], lost: bool) -> Result<Vec<DiskSnapshot>, DiskFailure> {
        let result = |ready: &Ready| {
            let intent = ready.intent();
            if !intent.is_pivoted(nodes) {
                return Err(intent.not_shown());
            }
            let mut warnings = ready.checked.warnings.clone();
            warnings.extend(lost.then_some(DiskWarning::QmpLost));
            intent.snapshot(nodes, self.depth, warnings)
        };
        self.ready.iter().map(result).collect()
    }
}

impl Ready {
    fn to_action(&self) -> TransactionAction {
        TransactionAction::Snapshot {
            node: self.disk.node.clone(),
            overlay: self.disk.overlay_node.clone(),
        }
    }

    fn intent(&self) -> OverlayIntent {
        OverlayIntent {
            vdev: self.disk.vdev.clone(),
            node: self.disk.node.clone(),
            overlay: self.overlay.image.clone(),
            overlay_node: self.disk.overlay_node.clone(),
            base: self.checked.chain.active().clone(),
        }
    }
}

fn later(after: Duration) -> Instant {
    Instant::now() + after
}
