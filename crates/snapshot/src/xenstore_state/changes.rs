//! The requests that make the changes of a plan.

use xenstore_migration::domain_state::{Change, Plan};
use xsclient::{
    Batch, Failure, MessageType, Nodes, OperationError, Path, PayloadTooLong, Perms, Request,
    RequestId, Slot, TxId,
};

/// Requests in the order of a plan, each of which fits a message.
pub(super) struct Changes(Vec<(Path, Request)>);

/// Why changes were not made, or not all of them.
pub(super) enum ChangesError {
    /// One does not fit a message; none was sent.
    TooLong { operation: MessageType, path: Path, source: PayloadTooLong },
    /// The server refused one. Others may have been made.
    Refused { path: Path, source: OperationError },
    /// Not all were answered.
    NotAnswered(OperationError),
}

impl Changes {
    pub(super) fn of(plan: &Plan, message_max: usize) -> Result<Self, ChangesError> {
        let mut changes = Self(Vec::with_capacity(plan.changes.len() * 2));
        for change in &plan.changes {
            match change {
                Change::Create { path, value, perms } => {
                    changes.write(path, value);
                    changes.set_perms(path, perms);
                }
                Change::SetValue { path, value } => changes.write(path, value),
                Change::SetPerms { path, perms } => changes.set_perms(path, perms),
                Change::Remove { path } => {
                    changes.0.push((path.clone(), Request::Rm(path.clone())));
                }
            }
        }
        let mut message = Vec::new();
        for (path, request) in &changes.0 {
            message.clear();
            let fits = request.encode(RequestId(0), TxId::NONE, message_max, &mut message);
            fits.map_err(|source| ChangesError::TooLong {
                operation: request.message_type(),
                path: path.clone(),
                source,
            })?;
        }
        Ok(changes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends them all in one batch.
    pub(super) fn make(self, nodes: &mut impl Nodes) -> Result<(), ChangesError> {
        let mut batch = Batch::new();
        let push = |(path, request)| (path, batch.push(request));
        let asked: Vec<(Path, Slot<()>)> = self.0.into_iter().map(push).collect();
        let mut replies = nodes.run(batch).map_err(ChangesError::NotAnswered)?;
        for (path, slot) in asked {
            replies.take(slot).map_err(|source| match source.failure() {
                Failure::Refused(_) => ChangesError::Refused { path, source },
                _ => ChangesError::NotAnswered(source),
            })?;
        }
        Ok(())
    }

    fn write(&mut self, path: &Path, value: &[u8]) {
        let request = Request::Write { path: path.clone(), value: value.to_vec() };
        self.0.push((path.clone(), request));
    }

    fn set_perms(&mut self, path: &Path, perms: &Perms) {
        let request = Request::SetPerms { path: path.clone().into(), perms: perms.clone() };
        self.0.push((path.clone(), request));
    }
}
