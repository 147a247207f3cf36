//! What acts on nodes, in a transaction or outside.

use xenstore_proto::{Name, Path, PathOrSpecial, Perms, Reply, Request, TxId};

use crate::batch::{Batch, Replies};
use crate::carrier::{ask, ask_for, at_once, reply_for};
use crate::client::Client;
use crate::directory::directory;
use crate::error::{Failure, OperationError};
use crate::from_reply::FromReply;
use crate::run::run;

/// The operations on nodes that are one request each, once for both clients: `$define` makes methods of them.
macro_rules! node_operations {
    ($define:ident) => {
        $define! {
            /// The value of a node.
            read(path: &Path) -> Vec<u8>: Request::Read(path.clone());

            /// Sets the value of a node, creating it and what is missing above it.
            write(path: &Path, value: &[u8]) -> ():
                Request::Write { path: path.clone(), value: value.to_vec() };

            /// Creates a node with an empty value. One that exists is left as it is.
            mkdir(path: &Path) -> (): Request::Mkdir(path.clone());

            /// Removes a node and everything below. If it is missing but the node above it is there, that is no error.
            rm(path: &Path) -> (): Request::Rm(path.clone());

            /// The permissions of a node or of a special name.
            get_perms(path: &PathOrSpecial) -> Perms: Request::GetPerms(path.clone());

            /// Sets the permissions of a node or of a special name.
            set_perms(path: &PathOrSpecial, perms: &Perms) -> ():
                Request::SetPerms { path: path.clone(), perms: perms.clone() };
        }
    };
}
#[cfg(feature = "tokio")]
pub(crate) use node_operations;

macro_rules! blocking_operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $reply:ty: $request:expr;)*) => {
        $($(#[$doc])* fn $name(&mut self, $($arg: $ty),*) -> Result<$reply, OperationError> {
            let request = $request;
            reply_for(&request, self.request(&request))
        })*
    };
}

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

    node_operations!(blocking_operations);

    /// The value of a node, or `None` if there is no such node.
    fn read_optional(&mut self, path: &Path) -> Result<Option<Vec<u8>>, OperationError> {
        if_found(self.read(path))
    }

    /// The value of a node that holds text.
    ///
    /// # Errors
    ///
    /// Also [`Failure::NotText`], if the value is not UTF-8.
    fn read_text(&mut self, path: &Path) -> Result<String, OperationError> {
        as_text(path, self.read(path)?)
    }
}

impl Nodes for Client {
    fn request(&mut self, request: &Request) -> Result<Reply, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(ask(carrier, request, TxId::NONE, deadline))
    }

    fn run(&mut self, batch: Batch) -> Result<Replies, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(run(carrier, batch, TxId::NONE, deadline))
    }

    fn directory(&mut self, path: &Path) -> Result<Vec<Name>, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(directory(carrier, path, TxId::NONE, deadline))
    }
}

impl Client {
    pub(crate) fn ask_for<T: FromReply>(&mut self, request: &Request) -> Result<T, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(ask_for(carrier, request, TxId::NONE, deadline))
    }
}

/// `None` if there is no such node.
pub(crate) fn if_found<T>(found: Result<T, OperationError>) -> Result<Option<T>, OperationError> {
    match found {
        Err(error) if error.is_not_found() => Ok(None),
        found => found.map(Some),
    }
}

/// A value as text.
pub(crate) fn as_text(path: &Path, value: Vec<u8>) -> Result<String, OperationError> {
    String::from_utf8(value).map_err(|error| {
        let failure = Failure::NotText { source: error.utf8_error() };
        OperationError::new(&Request::Read(path.clone()), failure)
    })
}
