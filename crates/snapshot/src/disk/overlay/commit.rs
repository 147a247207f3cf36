//! The transaction that puts overlays in their places, while the guest waits for it.
//!
//! QEMU reads what it is asked one octet at a time, so it is given everything as early as can be: it reads while the domain's
//! configuration is read, and only the last octet of the transaction is sent once all else is done and looked at.

use std::path::Path;
use std::time::{Duration, Instant};

use super::graph::{check_node, look};
use super::nodes::{Ready, close_with};
use super::pivot::OverlayIntent;
use crate::disk::image::OpenFiles;
use crate::disk::qmp::{Asked, Held, QmpClient, QmpError, QmpNode};
use crate::disk::{CommitError, DiskFailure, DiskSnapshot, DiskWarning};
use crate::journal::steps;

/// What QEMU was asked while the guest stands still: how its nodes are, and all of the transaction but its end. QEMU serves nobody
/// else on the socket meanwhile, and forgets the transaction with the connection.
#[derive(Debug)]
pub(super) struct Asking {
    client: QmpClient,
    nodes: Asked,
    held: Held,
}

impl Asking {
    /// Asks, and waits for nothing.
    pub(super) fn begin(
        socket: &Path,
        ready: &[Ready],
        deadline: Instant,
    ) -> Result<Self, QmpError> {
        let mut client = QmpClient::begin(socket, deadline)?;
        let nodes = client.ask_nodes(deadline)?;
        let actions: Vec<_> = ready.iter().map(Ready::to_action).collect();
        let held = client.hold_transaction(&actions, deadline)?;
        Ok(Self { client, nodes, held })
    }
}

/// The commit of prepared overlays.
pub(super) struct Transaction<'a> {
    pub(super) ready: &'a [Ready],
    pub(super) socket: &'a Path,
    pub(super) depth: usize,
}

impl Transaction<'_> {
    pub(super) fn run(
        &self,
        asking: Option<Asking>,
        deadline: Instant,
        recheck: Duration,
    ) -> Result<Vec<DiskSnapshot>, CommitError> {
        let unasked = |error: QmpError| CommitError::Unchanged(error.into());
        let asking = asking.map_or_else(|| Asking::begin(self.socket, self.ready, deadline), Ok);
        let Asking { mut client, nodes, held } = asking.map_err(unasked)?;
        let files = look().map_err(CommitError::Unchanged)?;
        let nodes: Vec<QmpNode> = client.answer(nodes, deadline).map_err(unasked)?;
        self.check(&nodes, client.listener(), &files).map_err(CommitError::Unchanged)?;
        steps::reached("before transaction");
        let asked = match client.release(held, deadline) {
            Ok(asked) => asked,
            Err(error) => return self.is_lost(client, error, later(recheck)),
        };
        // It is told at once how the disks are then. If that cannot be asked, nor can the answer be read.
        let nodes = client.ask_nodes(deadline);
        match client.answer::<serde_json::Value>(asked, deadline) {
            Ok(_) => {
                let until = deadline.max(later(recheck));
                let nodes = nodes.and_then(|nodes| client.answer::<Vec<QmpNode>>(nodes, until));
                let nodes = nodes.map_err(|error| CommitError::Unverified(error.into()))?;
                self.results(&nodes, false).map_err(CommitError::Unverified)
            }
            Err(error) if error.is_refusal() => Err(CommitError::Unchanged(error.into())),
            Err(error) => self.is_lost(client, error, later(recheck)),
        }
    }

    /// I6, I7: what was prepared rests on what is open now, and QEMU has open what was prepared, as it was then. Nobody else writes
    /// to any of it.
    fn check(
        &self,
        nodes: &[QmpNode],
        listener: Option<u32>,
        files: &OpenFiles,
    ) -> Result<(), DiskFailure> {
        for ready @ Ready { disk, checked, overlay } in self.ready {
            let depth = self.depth.saturating_sub(1);
            match check_node(&disk.vdev, &disk.node, nodes, listener, depth, files) {
                Ok(now) if now.chain.is_same_files(&checked.chain) => {}
                Ok(_) => return Err(ready.intent().not_shown()),
                Err(refusals) => return Err(DiskFailure::Refused { refusals }),
            }
            overlay.verify(checked.chain.active())?;
            ready.is_open(nodes, files)?;
        }
        Ok(())
    }

    /// The answer is lost. QEMU executes the commands of a socket one after another, so that it knows when it answers again.
    fn is_lost(
        &self,
        client: QmpClient,
        lost: QmpError,
        deadline: Instant,
    ) -> Result<Vec<DiskSnapshot>, CommitError> {
        // QEMU serves one client of the socket at a time.
        drop(client);
        let source = DiskFailure::from(lost);
        let asked = QmpClient::connect(self.socket, deadline)
            .and_then(|mut client| client.nodes(deadline).map(|nodes| (client, nodes)));
        let (mut client, nodes) = match asked {
            Ok(asked) => asked,
            Err(error) => {
                return Err(CommitError::Unknown { source, asked: Box::new(error.into()) });
            }
        };
        let intents: Vec<OverlayIntent> = self.ready.iter().map(Ready::intent).collect();
        let pivoted = intents.iter().filter(|intent| intent.is_pivoted(&nodes)).count();
        if pivoted == self.ready.len() {
            return self.results(&nodes, true).map_err(CommitError::Unverified);
        }
        // Once the nodes are closed, no transaction can use them any more: that makes sure.
        let closed = if pivoted == 0 {
            close_with(&mut client, &intents, deadline)
        } else {
            Err(self.ready[0].intent().not_shown())
        };
        match closed {
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

fn later(after: Duration) -> Instant {
    Instant::now() + after
}
