//! Overlays for a running domain, all in one transaction.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::BackingName;
use super::commit::{Asking, Transaction};
use super::graph::{CheckedNode, check_node, job_refusals, look};
use super::nodes::{Ready, close_overlays, open_overlays};
use super::pivot::OverlayIntent;
use super::prepared::{OCTETS_NEEDED, PreparedOverlay};
use crate::CreationLog;
use crate::disk::image::DEPTH_DEFAULT;
use crate::disk::qemu_img::QemuImg;
use crate::disk::qmp::QmpClient;
use crate::disk::target::{Unique, check_target};
use crate::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, LeftReason, PlanError, PlannedDisk, PrepareError, RollbackReport, WrongStage,
};

/// How long QEMU has to tell what became of a transaction whose answer was lost, when nothing else is said.
const RECHECK_DEFAULT: Duration = Duration::from_secs(5);

/// New qcow2 overlays over the images that a running QEMU writes: all disks change in one transaction, or none does.
///
/// QEMU's own checks are few. `blockdev-snapshot-sync` truncates a file that is in its way, and an overlay that records another backing
/// file than the one it is put over is taken without a word. So the overlays are made beforehand and checked against the files that
/// the QEMU process has open; QEMU is only asked to put them in place.
///
/// QEMU opens the overlays when they are prepared, as nodes that no disk uses: the guest goes on as before, and does not wait for
/// that when it is suspended. A rollback has QEMU close them before it removes their files.
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
    Prepared {
        ready: Vec<Ready>,
        /// QEMU was asked to open them.
        opened: bool,
        /// It was asked ahead of the commit.
        asking: Option<Box<Asking>>,
    },
    /// Done, or perhaps done: why the overlays stay, as far as a reason can be told again.
    Kept(Vec<PathBuf>, Kept),
    Ended,
}

#[derive(Clone, Copy, Debug)]
enum Kept {
    Active,
    Unknown,
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
            Stage::Prepared { ready, .. } => Ok(ready.iter().map(Ready::intent).collect()),
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

    /// Makes the overlays and has QEMU open them. On failure, of which disk: what was made is what the stage says.
    fn make(
        &mut self,
        checked: Vec<CheckedNode>,
        log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), (String, DiskFailure)> {
        let mut ready: Vec<Ready> = Vec::new();
        for (disk, checked) in self.disks.iter().zip(checked) {
            let LiveOverlay { vdev, overlay, backing, .. } = disk;
            let (base, size) = (checked.chain.active(), checked.virtual_size);
            let (qemu_img, log) = (&self.qemu_img, &mut *log);
            match PreparedOverlay::create(qemu_img, overlay, backing, base, size, log, deadline) {
                Ok(overlay) => ready.push(Ready { disk: disk.clone(), checked, overlay }),
                Err(failure) => {
                    self.stage = Stage::Prepared { ready, opened: false, asking: None };
                    return Err((vdev.clone(), failure));
                }
            }
        }
        let intents: Vec<_> = ready.iter().map(Ready::intent).collect();
        let noted = log.opening(&intents).map_err(|source| {
            let first = self.disks.first();
            let path = first.map(|disk| disk.overlay.clone()).unwrap_or_default();
            let step = "note down that QEMU is to open it";
            let vdev = first.map(|disk| disk.vdev.clone()).unwrap_or_default();
            (vdev, DiskFailure::Io { path, step, source })
        });
        let opened = noted.is_ok();
        let outcome = noted.and_then(|()| open_overlays(&self.socket, &mut ready, deadline));
        self.stage = Stage::Prepared { ready, opened, asking: None };
        outcome
    }

    /// Has QEMU close the overlays. Where there is no QEMU, nothing has them open, which removing their files looks for as well.
    fn close(&self, ready: &[Ready], deadline: Instant) -> Result<(), DiskFailure> {
        let intents: Vec<_> = ready.iter().map(Ready::intent).collect();
        match close_overlays(&self.socket, &intents, deadline) {
            Err(DiskFailure::Qmp(error)) if error.is_nobody_there() => Ok(()),
            closed => closed,
        }
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "not prepared",
            Self::Prepared { .. } => "prepared",
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
        let checked = self.check(deadline)?;
        if let Err((vdev, source)) = self.make(checked, log, deadline) {
            // A disk of the guest was not touched.
            let left = self.rollback(deadline.max(Instant::now() + self.recheck)).left;
            return Err(PrepareError::Failed { vdev, source: Box::new(source), left });
        }
        Ok(())
    }

    fn approach(&mut self, deadline: Instant) {
        let Stage::Prepared { ready, opened: true, asking } = &mut self.stage else { return };
        // An earlier one would be in the way.
        *asking = None;
        match Asking::begin(&self.socket, ready, deadline) {
            Ok(begun) => *asking = Some(Box::new(begun)),
            Err(error) => tracing::debug!(%error, "QEMU is asked at the commit again"),
        }
    }

    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let Stage::Prepared { ready, opened: true, asking } = &mut self.stage else {
            return Err(WrongStage { wanted: "commit", is: self.stage.name() }.into());
        };
        let asking = asking.take().map(|asking| *asking);
        let transaction = Transaction { ready, socket: &self.socket, depth: self.depth };
        let outcome = transaction.run(asking, deadline, self.recheck);
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

    /// What QEMU may have open still is left, and a rollback can be tried again.
    fn rollback(&mut self, deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Fresh | Stage::Ended => {}
            Stage::Prepared { ready, opened, asking } => {
                // QEMU serves one client of the socket at a time.
                drop(asking);
                let closed = if opened { self.close(&ready, deadline) } else { Ok(()) };
                match closed {
                    Ok(()) => ready.iter().for_each(|ready| ready.overlay.remove(&mut report)),
                    Err(failure) => ready.iter().for_each(|ready| {
                        let reason = format!("QEMU may have it open: {failure}");
                        report.leave(&ready.disk.overlay, LeftReason::Refused(reason));
                    }),
                }
                if !report.left.is_empty() {
                    self.stage = Stage::Prepared { ready, opened, asking: None };
                }
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
