//! What acts on nodes, in a transaction or outside.

use xenstore_proto::{Name, Path, PathOrSpecial, Perms, Reply, Request, TxId};

use crate::batch::{Batch, Replies};
use crate::client::Client;
use crate::error::{Failure, OperationError};
use crate::from_reply::FromReply;

/// Operations on nodes: of a [`Client`], outside any transaction, and of a [`crate::Transaction`], inside it.
///
/// Code that takes `&mut dyn Nodes` works in both. A path that is relative is relative to `/local/domain/DOMID` of the
/// caller's own domain. Values are octets, at most 4096 with the path (2048 on oxenstored); names are in the server's own order.
///
/// Each call is one round trip; [`Nodes::run`] sends many requests in one.
pub trait Nodes {
    /// Sends one request of any kind and gives its reply, which is never [`Reply::Error`].
    ///
    /// # Errors
    ///
    /// If the server refuses, the deadline passes, or the connection is lost. So for all of these operations.
    fn request(&mut self, request: &Request) -> Result<Reply, OperationError>;

    /// Sends all requests of a batch without waiting in between, and collects the replies.
    ///
    /// Directories too big for one reply are read in parts afterwards.
    ///
    /// # Errors
    ///
    /// If not all requests were answered, about the first that was not. What the server refused is in the replies.
    fn run(&mut self, batch: Batch) -> Result<Replies, OperationError>;

    /// The names of a node's children, in parts if the server says that they do not fit one reply.
    ///
    /// # Errors
    ///
    /// Also [`Failure::NoParts`], [`Failure::DirectoryChanging`], [`Failure::DirectoryTooLong`].
    fn directory(&mut self, path: &Path) -> Result<Vec<Name>, OperationError>;

    /// The value of a node.
    fn read(&mut self, path: &Path) -> Result<Vec<u8>, OperationError> {
        ask(self, &Request::Read(path.clone()))
    }

    /// The value of a node, or `None` if there is no such node.
    fn read_optional(&mut self, path: &Path) -> Result<Option<Vec<u8>>, OperationError> {
        match self.read(path) {
            Err(error) if error.is_not_found() => Ok(None),
            read => read.map(Some),
        }
    }

    /// The value of a node that holds text.
    ///
    /// # Errors
    ///
    /// Also [`Failure::NotText`], if the value is not UTF-8.
    fn read_text(&mut self, path: &Path) -> Result<String, OperationError> {
        String::from_utf8(self.read(path)?).map_err(|error| {
            let failure = Failure::NotText { source: error.utf8_error() };
            OperationError::new(&Request::Read(path.clone()), failure)
        })
    }

    /// Sets the value of a node, creating it and what is missing above it.
    fn write(&mut self, path: &Path, value: &[u8]) -> Result<(), OperationError> {
        ask(self, &Request::Write { path: path.clone(), value: value.to_vec() })
    }

    /// Creates a node with an empty value. One that exists is left as it is.
    fn mkdir(&mut self, path: &Path) -> Result<(), OperationError> {
        ask(self, &Request::Mkdir(path.clone()))
    }

    /// Removes a node and everything below. If it is missing but the node above it is there, that is no error.
    fn rm(&mut self, path: &Path) -> Result<(), OperationError> {
        ask(self, &Request::Rm(path.clone()))
    }

    /// The permissions of a node or of a special name.
    fn get_perms(&mut self, path: &PathOrSpecial) -> Result<Perms, OperationError> {
        ask(self, &Request::GetPerms(path.clone()))
    }

    /// Sets the permissions of a node or of a special name.
    fn set_perms(&mut self, path: &PathOrSpecial, perms: &Perms) -> Result<(), OperationError> {
        ask(self, &Request::SetPerms { path: path.clone(), perms: perms.clone() })
    }
}

impl Nodes for Client {
    fn request(&mut self, request: &Request) -> Result<Reply, OperationError> {
        self.ask(request, TxId::NONE)
    }

    fn run(&mut self, batch: Batch) -> Result<Replies, OperationError> {
        self.run_in(batch, TxId::NONE)
    }

    fn directory(&mut self, path: &Path) -> Result<Vec<Name>, OperationError> {
        self.directory_in(path, TxId::NONE)
    }
}

impl Client {
    /// One request and its reply: one round trip.
    pub(crate) fn ask(&mut self, request: &Request, tx_id: TxId) -> Result<Reply, OperationError> {
        let deadline = self.deadline();
        self.link.statistics.round_trips += 1;
        let results = self.exchange(std::slice::from_ref(request), tx_id, deadline);
        if let Request::Unwatch { token, .. } = request {
            self.watches.drop_ended(token);
        }
        let reply = results?.pop().unwrap_or(Err(Failure::NoSuchSlot));
        reply.map_err(|failure| OperationError::new(request, failure))
    }

    pub(crate) fn ask_for<T: FromReply>(
        &mut self,
        request: &Request,
        tx_id: TxId,
    ) -> Result<T, OperationError> {
        let reply = self.ask(request, tx_id)?;
        T::from_reply(reply).map_err(|failure| OperationError::new(request, failure))
    }
}

fn ask<T: FromReply>(
    nodes: &mut (impl Nodes + ?Sized),
    request: &Request,
) -> Result<T, OperationError> {
    let reply = nodes.request(request)?;
    T::from_reply(reply).map_err(|failure| OperationError::new(request, failure))
}
