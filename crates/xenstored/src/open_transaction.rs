//! Transactions of the program that the server is embedded in.

use std::fmt;

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};

use crate::embedded::Embedded;
use crate::server::ConnectionId;

/// A transaction of an [`Embedded`] server, without a client between: dropped unless it is committed.
///
/// Others can be started inside it, one after the other or side by side: they start from what it sees, and are seen by
/// nobody else until they are committed into it; only when it is committed itself does everything become real, at once.
/// What was read and changed in one that was committed into another counts as the other's.
///
/// ```
/// use xenstore_proto::{DomId, Path, Reply, Request};
/// use xenstored::{Embedded, Store};
/// let xenstore = Embedded::new(Store::new());
/// let write = |at: &str| -> Result<_, xenstore_proto::PathError> {
///     Ok(Request::Write { path: at.parse()?, value: b"1".to_vec() })
/// };
/// let outer = xenstore.transaction(DomId::DOM0)?;
/// outer.ask(write("/device/frontend")?);
///
/// let tried = outer.nested()?;
/// tried.ask(write("/device/first-try")?);
/// drop(tried);
///
/// let again = outer.nested()?;
/// again.ask(write("/device/backend")?);
/// again.commit()?;
/// assert!(!xenstore.snapshot().exists(&"/device".parse()?));
///
/// outer.commit()?;
/// assert_eq!(xenstore.snapshot().children(&"/device".parse()?), Some(vec!["frontend", "backend"]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct OpenTransaction<'a> {
    embedded: &'a Embedded,
    connection: ConnectionId,
    tx: TxId,
    nested: bool,
    /// Whether the server has it still.
    open: bool,
}

impl<'a> OpenTransaction<'a> {
    pub(crate) fn start(embedded: &'a Embedded, domid: DomId) -> Result<Self, RefusedError> {
        embedded.with(|server| {
            let connection = server.connect(domid);
            match server.ask(connection, TxId::NONE, Request::TransactionStart) {
                Reply::Transaction(tx) => {
                    Ok(Self { embedded, connection, tx, nested: false, open: true })
                }
                other => {
                    server.disconnect(connection);
                    Err(RefusedError::of(other))
                }
            }
        })
    }

    /// Carries a request out in the transaction.
    ///
    /// Those that end transactions, or start others, and those about watches are answered with EINVAL.
    pub fn ask(&self, request: Request) -> Reply {
        match request {
            Request::TransactionStart | Request::TransactionEnd { .. } | Request::ResetWatches => {
                Reply::Error(Errno::EINVAL)
            }
            request => self.embedded.with(|server| server.ask(self.connection, self.tx, request)),
        }
    }

    /// Starts a transaction inside this one: [`Server::start_nested`](crate::Server::start_nested).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn nested(&self) -> Result<OpenTransaction<'_>, RefusedError> {
        let (embedded, connection) = (self.embedded, self.connection);
        let started = embedded.with(|server| server.start_nested(connection, self.tx));
        let tx = started.map_err(|errno| RefusedError { errno })?;
        Ok(OpenTransaction { embedded, connection, tx, nested: true, open: true })
    }

    /// Makes the changes real, or part of the transaction around this one: all, or on an error none.
    ///
    /// # Errors
    ///
    /// [`RefusedError::is_conflict`] if somebody else has changed what it depends on: do it again, with what is there
    /// now. ENOSPC if the domain would have too much, EIO if the store cannot be kept.
    pub fn commit(mut self) -> Result<(), RefusedError> {
        self.end(true)
    }

    /// Drops the transaction with what it has changed.
    pub fn abort(self) {
        drop(self);
    }

    fn end(&mut self, commit: bool) -> Result<(), RefusedError> {
        self.open = false;
        self.embedded.with(|server| {
            let end = Request::TransactionEnd { commit };
            let reply = server.ask(self.connection, self.tx, end);
            if !self.nested {
                server.disconnect(self.connection);
            }
            if reply == Reply::Ok { Ok(()) } else { Err(RefusedError::of(reply)) }
        })
    }
}

impl Drop for OpenTransaction<'_> {
    fn drop(&mut self) {
        if self.open {
            // There is nothing to be done about one that is gone already.
            let _ = self.end(false);
        }
    }
}

impl fmt::Debug for OpenTransaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenTransaction")
            .field("connection", &self.connection)
            .field("tx", &self.tx)
            .finish_non_exhaustive()
    }
}

/// A transaction that cannot be started or committed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("transaction refused: {errno}")]
pub struct RefusedError {
    /// The server's answer.
    pub errno: Errno,
}

impl RefusedError {
    /// Whether somebody else was faster, and the same may succeed the next time.
    pub fn is_conflict(&self) -> bool {
        self.errno == Errno::EAGAIN
    }

    fn of(reply: Reply) -> Self {
        match reply {
            Reply::Error(errno) => Self { errno },
            _ => Self { errno: Errno::EIO },
        }
    }
}
