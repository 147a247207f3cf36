//! Internal snapshots on a running QEMU, in one transaction.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::check_tag;
use super::recovery::{TagIntent, id_of};
use crate::CreationLog;
use crate::disk::image::{DEPTH_DEFAULT, ImageFormat, ImageRef};
use crate::disk::overlay::{CheckedNode, check_node, job_refusals, look};
use crate::disk::qmp::{QmpClient, QmpError, QmpNode, TransactionAction};
use crate::disk::target::Unique;
use crate::disk::{
    CommitError, Description, DiskAction, DiskFailure, DiskPlan, DiskRefusal, DiskSnapshot,
    DiskSnapshotter, DiskWarning, LeftReason, PlanError, PlannedDisk, PrepareError, RollbackReport,
    WrongStage,
};

/// How long QEMU has to tell what became of a transaction whose answer was lost.
const RECHECK: Duration = Duration::from_secs(5);

/// Snapshots inside the qcow2 images that a running QEMU writes: all in one transaction, or none.
#[derive(Debug)]
pub struct LiveInternal {
    socket: PathBuf,
    disks: Vec<LiveInternalSnapshot>,
    stage: Stage,
}

/// One disk of [`LiveInternal`].
#[derive(Clone, Debug)]
pub struct LiveInternalSnapshot {
    /// The disk as the domain has it, as `xvda`.
    pub vdev: String,
    /// The node of the active image: qcow2.
    pub node: String,
    /// What the snapshot is to be called.
    pub tag: String,
}

#[derive(Debug)]
enum Stage {
    Fresh,
    Prepared(Vec<CheckedNode>),
    Committed(Vec<Made>),
    /// Whether they were made is not known.
    Unknown(Vec<PathBuf>),
    Ended,
}

#[derive(Debug)]
struct Made {
    image: PathBuf,
    node: String,
    id: String,
    tag: String,
}

impl LiveInternal {
    /// Snapshots of these disks of the QEMU behind a QMP socket.
    pub fn new(socket: impl Into<PathBuf>, disks: Vec<LiveInternalSnapshot>) -> Self {
        Self { socket: socket.into(), disks, stage: Stage::Fresh }
    }

    /// What a commit is going to do, for [`recover_internal`](super::recover_internal).
    ///
    /// # Errors
    ///
    /// If it is not prepared, or done already.
    pub fn intents(&self) -> Result<Vec<TagIntent>, WrongStage> {
        let Stage::Prepared(all_checked) = &self.stage else {
            return Err(WrongStage { wanted: "telling of the commit", is: self.stage.name() });
        };
        let intent = |(disk, checked): (&LiveInternalSnapshot, &CheckedNode)| TagIntent {
            vdev: disk.vdev.clone(),
            node: disk.node.clone(),
            image: checked.chain.active().clone(),
            tag: disk.tag.clone(),
        };
        Ok(self.disks.iter().zip(all_checked).map(intent).collect())
    }

    fn check(&self, deadline: Instant) -> Result<Vec<CheckedNode>, PlanError> {
        let mut client = QmpClient::connect(&self.socket, deadline).map_err(DiskFailure::from)?;
        let nodes = client.nodes(deadline).map_err(DiskFailure::from)?;
        let mut refusals = job_refusals(&mut client, deadline).map_err(DiskFailure::from)?;
        let files = look()?;
        let (mut unique, mut all_checked) = (Unique::default(), Vec::new());
        for LiveInternalSnapshot { vdev, node, tag } in &self.disks {
            unique.check(vdev, format!("the name {vdev}"), &mut refusals);
            unique.check(vdev, format!("the node {node}"), &mut refusals);
            match check_node(vdev, node, &nodes, client.listener(), DEPTH_DEFAULT, &files) {
                Ok(checked) if checked.chain.active().format != ImageFormat::Qcow2 => {
                    refusals.push(DiskRefusal::NotQcow2 { vdev: vdev.clone() });
                }
                Ok(checked) => all_checked.push(checked),
                Err(broken) => refusals.extend(broken),
            }
            let snapshots = nodes.iter().filter(|open| open.name == *node);
            let taken = snapshots
                .flat_map(|node| &node.image.snapshots)
                .map(|taken| (&taken.id[..], &taken.name[..]));
            check_tag(vdev, tag, taken, &mut refusals);
        }
        if refusals.is_empty() { Ok(all_checked) } else { Err(PlanError::Refused { refusals }) }
    }

    fn results(
        &self,
        all_checked: &[CheckedNode],
        nodes: &[QmpNode],
        lost: bool,
    ) -> Result<(Vec<Made>, Vec<DiskSnapshot>), DiskFailure> {
        let (mut all_made, mut done) = (Vec::new(), Vec::new());
        for (disk, checked) in self.disks.iter().zip(all_checked) {
            let image = checked.chain.active();
            let Some(id) = disk.id_in(nodes, image) else {
                let (path, tag) = (image.path.clone(), disk.tag.clone());
                return Err(DiskFailure::NoSnapshot { path, tag });
            };
            let frozen = ImageRef::read(&image.path, ImageFormat::Qcow2)?;
            let mut images = checked.chain.images().to_vec();
            images[0] = frozen.clone();
            let mut warnings = checked.warnings.clone();
            warnings.extend(lost.then_some(DiskWarning::QmpLost));
            let LiveInternalSnapshot { vdev, node, tag } = disk.clone();
            all_made.push(Made { image: image.path.clone(), node, id, tag });
            done.push(DiskSnapshot {
                vdev,
                action: disk.action(),
                active: frozen.clone(),
                frozen,
                chain: images,
                digest: None,
                warnings,
            });
        }
        Ok((all_made, done))
    }

    fn run(
        &self,
        all_checked: &[CheckedNode],
        deadline: Instant,
    ) -> Result<(Vec<Made>, Vec<DiskSnapshot>), CommitError> {
        let unchanged = |error: QmpError| CommitError::Unchanged(error.into());
        let again = self.check(deadline).map_err(|error| {
            CommitError::Unchanged(match error {
                PlanError::Failed(failure) => failure,
                PlanError::Refused { refusals } => DiskFailure::Refused { refusals },
                PlanError::Stage(stage) => DiskFailure::Hook(Box::new(stage)),
            })
        })?;
        for (before, now) in all_checked.iter().zip(&again) {
            if !now.chain.is_same_files(&before.chain) {
                let path = before.chain.active().path.clone();
                let changes = vec![crate::disk::image::ImageChange::OtherFile];
                return Err(CommitError::Unchanged(DiskFailure::Changed { path, changes }));
            }
        }
        let mut client = QmpClient::connect(&self.socket, deadline).map_err(unchanged)?;
        let actions: Vec<_> = self.disks.iter().map(LiveInternalSnapshot::to_action).collect();
        let lost = match client.transaction(&actions, deadline) {
            Ok(()) => None,
            Err(error) if error.is_refusal() => return Err(unchanged(error)),
            Err(error) => Some(error),
        };
        let later = deadline.max(Instant::now() + RECHECK);
        let nodes = if lost.is_some() {
            // QEMU serves one client of the socket at a time.
            drop(client);
            QmpClient::connect(&self.socket, later).and_then(|mut client| client.nodes(later))
        } else {
            client.nodes(later)
        };
        match (lost, nodes) {
            (None, Err(error)) => Err(CommitError::Unverified(error.into())),
            (None, Ok(nodes)) => {
                self.results(all_checked, &nodes, false).map_err(CommitError::Unverified)
            }
            (Some(lost), Err(asked)) => {
                Err(CommitError::Unknown { source: lost.into(), asked: Box::new(asked.into()) })
            }
            (Some(lost), Ok(nodes)) => {
                let made = self.disks.iter().zip(all_checked);
                let made =
                    made.filter(|(disk, node)| disk.id_in(&nodes, node.chain.active()).is_some());
                if made.count() == 0 {
                    // The commands of a socket are executed one after another: it was not, and will not be.
                    return Err(unchanged(lost));
                }
                self.results(all_checked, &nodes, true).map_err(CommitError::Unverified)
            }
        }
    }
}

impl LiveInternalSnapshot {
    fn action(&self) -> DiskAction {
        DiskAction::InternalQcow2 { tag: self.tag.clone() }
    }

    fn to_action(&self) -> TransactionAction {
        TransactionAction::InternalSnapshot { node: self.node.clone(), tag: self.tag.clone() }
    }

    fn id_in(&self, nodes: &[QmpNode], image: &ImageRef) -> Option<String> {
        id_of(&self.tag, &self.node, image, nodes)
    }
}

impl Stage {
    fn name(&self) -> &'static str {
        match self {
            Self::Fresh => "not prepared",
            Self::Prepared(_) => "prepared",
            Self::Committed(_) | Self::Unknown(_) => "committed",
            Self::Ended => "ended",
        }
    }
}

impl DiskSnapshotter for LiveInternal {
    fn describe(&self) -> Description {
        let disks = self.disks.iter().map(|disk| (disk.vdev.clone(), disk.action())).collect();
        let kind = "internal qcow2 snapshots, live";
        Description { kind, disks, atomic: true, live: true, reversible: true }
    }

    fn plan(&mut self, deadline: Instant) -> Result<DiskPlan, PlanError> {
        let planned = |(disk, checked): (&LiveInternalSnapshot, CheckedNode)| PlannedDisk {
            vdev: disk.vdev.clone(),
            action: disk.action(),
            // Copies of the tables that map the content, and the reference counts for them.
            octets_needed: checked.virtual_size.div_ceil(8192) + (256 << 10),
            warnings: checked.warnings,
            chain: checked.chain.into_images(),
        };
        let disks = self.disks.iter().zip(self.check(deadline)?).map(planned).collect();
        Ok(DiskPlan { disks })
    }

    fn prepare(
        &mut self,
        _log: &mut dyn CreationLog,
        deadline: Instant,
    ) -> Result<(), PrepareError> {
        let Stage::Fresh = self.stage else {
            return Err(WrongStage { wanted: "prepare", is: self.stage.name() }.into());
        };
        self.stage = Stage::Prepared(self.check(deadline)?);
        Ok(())
    }

    fn commit(&mut self, deadline: Instant) -> Result<Vec<DiskSnapshot>, CommitError> {
        let Stage::Prepared(all_checked) = &self.stage else {
            return Err(WrongStage { wanted: "commit", is: self.stage.name() }.into());
        };
        let images = || all_checked.iter().map(|node| node.chain.active().path.clone()).collect();
        let outcome = self.run(all_checked, deadline);
        self.stage = match &outcome {
            Err(CommitError::Unknown { .. } | CommitError::Unverified(_)) => {
                Stage::Unknown(images())
            }
            _ => Stage::Ended,
        };
        let (all_made, done) = outcome?;
        self.stage = Stage::Committed(all_made);
        Ok(done)
    }

    fn rollback(&mut self, deadline: Instant) -> RollbackReport {
        let mut report = RollbackReport::default();
        match std::mem::replace(&mut self.stage, Stage::Ended) {
            Stage::Fresh | Stage::Prepared(_) | Stage::Ended => {}
            Stage::Unknown(images) => {
                images.iter().for_each(|image| report.leave(image, LeftReason::Unknown));
            }
            Stage::Committed(all_made) => {
                let refused = |error: &QmpError| LeftReason::Refused(error.to_string());
                let mut client = QmpClient::connect(&self.socket, deadline);
                for Made { image, node, id, tag } in &all_made {
                    let deleted = match &mut client {
                        Ok(client) => client
                            .delete_internal_snapshot(node, id, tag, deadline)
                            .map_err(|error| refused(&error)),
                        Err(error) => Err(refused(error)),
                    };
                    if let Err(reason) = deleted {
                        report.leave(image, reason);
                    }
                }
            }
        }
        report
    }
}
