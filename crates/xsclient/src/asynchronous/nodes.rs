//! What acts on nodes, in a transaction or outside, without blocking.

use xenstore_proto::{Name, Path, PathOrSpecial, Perms, Reply, Request};

use super::replies::Replies;
use crate::batch::Batch;
use crate::carrier::reply_for;
use crate::error::OperationError;
use crate::nodes::{as_text, if_found, node_operations};

macro_rules! awaiting_operations {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $ty:ty),*) -> $reply:ty: $request:expr;)*) => {
        $($(#[$doc])* fn $name(
            &self,
            $($arg: $ty),*
        ) -> impl Future<Output = Result<$reply, OperationError>> + Send {
            let request = $request;
            async move { reply_for(&request, self.request(&request).await) }
        })*
    };
}

/// Operations on nodes, as in [`crate::Nodes`]: of a [`super::Client`], outside any transaction, and of a
/// [`super::Transaction`], inside it.
///
/// All of these are cancel-safe: a request that was not sent when the future is dropped has no effect; one that was is
/// carried out, and its reply discarded. Of a batch, each request by itself is one or the other, and a watch that it sets
/// is ended again.
pub trait Nodes: Sync {
    /// Sends one request of any kind and gives its reply, which is never [`Reply::Error`].
    ///
    /// # Errors
    ///
    /// If the server refuses, the deadline passes, or the connection is lost. So for all of these operations.
    fn request(
        &self,
        request: &Request,
    ) -> impl Future<Output = Result<Reply, OperationError>> + Send;

    /// Sends all requests of a batch without waiting in between, and collects the replies.
    ///
    /// Directories too big for one reply are read in parts afterwards.
    ///
    /// # Errors
    ///
    /// If not all requests were answered, about the first that was not. What the server refused is in the replies.
    fn run(&self, batch: Batch) -> impl Future<Output = Result<Replies, OperationError>> + Send;

    /// The names of a node's children, in parts if the server says that they do not fit one reply.
    ///
    /// # Errors
    ///
    /// Also [`crate::Failure::NoParts`], [`crate::Failure::DirectoryChanging`], [`crate::Failure::DirectoryTooLong`].
    fn directory(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<Vec<Name>, OperationError>> + Send;

    node_operations!(awaiting_operations);

    /// The value of a node, or `None` if there is no such node.
    fn read_optional(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, OperationError>> + Send {
        async move { if_found(self.read(path).await) }
    }

    /// The value of a node that holds text.
    ///
    /// # Errors
    ///
    /// Also [`crate::Failure::NotText`], if the value is not UTF-8.
    fn read_text(
        &self,
        path: &Path,
    ) -> impl Future<Output = Result<String, OperationError>> + Send {
        async move { as_text(path, self.read(path).await?) }
    }
}
