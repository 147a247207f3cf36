//! Waiting for a device's ends, by watch.

use std::time::Instant;

use xsclient::{Batch, Client, Nodes, OperationError, Path};

use super::place::{Place, under};

/// What the nodes of a device say about how far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ends {
    /// Whether the toolstack's tree has the device.
    pub(super) toolstack: bool,
    /// Whether there is a backend directory.
    pub(super) backend: bool,
    pub(super) backend_state: Option<u32>,
    pub(super) online: Option<String>,
    pub(super) frontend: bool,
    pub(super) frontend_state: Option<u32>,
    pub(super) hotplug_status: Option<String>,
    pub(super) hotplug_error: Option<String>,
    /// Whether a script has left something behind that it would have to take back.
    pub(super) script_left: bool,
}

impl Ends {
    /// Reads them: not of one moment, unless in a transaction.
    pub(super) fn read(nodes: &mut dyn Nodes, place: &Place) -> Result<Self, OperationError> {
        let (toolstack, frontend, backend) = (place.toolstack(), place.frontend(), place.backend());
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for path in [
            toolstack,
            backend.clone(),
            under(&backend, "state"),
            under(&backend, "online"),
            frontend.clone(),
            under(&frontend, "state"),
            under(&backend, "hotplug-status"),
            under(&backend, "hotplug-error"),
            under(&backend, "physical-device"),
            under(&backend, "node"),
        ] {
            slots.push(batch.read(path));
        }
        let mut replies = nodes.run(batch)?;
        let mut values = Vec::new();
        for slot in slots {
            values.push(replies.take_optional(slot)?);
        }
        let is = |at: usize| values[at].is_some();
        let text = |at: usize| values[at].as_ref().map(|v| String::from_utf8_lossy(v).into_owned());
        let number = |at: usize| text(at)?.parse().ok();
        let hotplug_status = text(6).filter(|status| !status.is_empty());
        Ok(Self {
            toolstack: is(0),
            backend: is(1),
            backend_state: number(2),
            online: text(3),
            frontend: is(4),
            frontend_state: number(5),
            script_left: hotplug_status.is_some() || is(8) || is(9),
            hotplug_status,
            hotplug_error: text(7),
        })
    }

    /// Whether nothing of the device is left.
    pub(super) fn is_gone(&self) -> bool {
        !self.toolstack && !self.backend && !self.frontend
    }
}

/// Looks now and after every change at or below `watched` until there is an answer; `None` if there is none by the deadline.
pub(super) fn until<T>(
    client: &mut Client,
    watched: &Path,
    deadline: Instant,
    mut look: impl FnMut(&mut Client) -> Result<Option<T>, OperationError>,
) -> Result<Option<T>, OperationError> {
    let watch = client.watch(watched.clone(), None)?;
    let answer = loop {
        match look(client) {
            Ok(None) => {}
            other => break other,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        match client.next_event(&watch, left) {
            Ok(Some(_)) => {}
            Ok(None) if left.is_zero() => break Ok(None),
            // Once more, since the event may have been late and not the change.
            Ok(None) => {}
            Err(error) => break Err(error),
        }
    };
    if let Err(error) = client.unwatch(&watch) {
        tracing::debug!(%error, "a watch that is not needed any more was not ended");
    }
    answer
}
