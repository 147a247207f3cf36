//! Many requests in one round trip.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use xenstore_proto::{DomId, Name, Path, PathOrSpecial, Perms, Reply, Request, Token};

use crate::error::{Failure, OperationError};
use crate::from_reply::FromReply;
use crate::nodes::if_found;
use crate::session::Serial;
use crate::watch::{Event, Watch, unique_token};

/// Requests that are sent without waiting for replies in between, by [`crate::Nodes::run`].
///
/// Servers carry out the requests of a connection in their order. Each is carried out or refused by itself: a refused one
/// does not stop those after it (use a [`crate::Transaction`] for that).
///
/// ```no_run
/// # use xsclient::{Batch, Client, Endpoint, Nodes, Options, Path};
/// # let mut client = Client::open(Endpoint::Search, Options::default())?;
/// let base: Path = "/local/domain/7".parse()?;
/// let mut batch = Batch::new();
/// let name = batch.read(base.join("name")?);
/// let devices = batch.directory(base.join("device")?);
/// let mut replies = client.run(batch)?;
/// println!("{}", String::from_utf8_lossy(&replies.take(name)?));
/// println!("{} device classes", replies.take_optional(devices)?.unwrap_or_default().len());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Batch {
    pub(crate) number: u64,
    pub(crate) requests: Vec<Request>,
    pub(crate) fences: Vec<(PathOrSpecial, Token)>,
}

/// Where in a batch a request stands, and what its reply holds.
pub struct Slot<T> {
    batch: u64,
    at: usize,
    reply: PhantomData<fn() -> T>,
}

/// A fence that a batch puts around its requests. Made by [`Batch::fence`].
#[derive(Clone, Copy, Debug)]
pub struct FenceSlot {
    batch: u64,
    at: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { number, requests: Vec::new(), fences: Vec::new() }
    }

    /// Adds a request of any kind.
    ///
    /// The reply is taken as `T`; [`Reply`] itself always fits.
    pub fn push<T: FromReply>(&mut self, request: Request) -> Slot<T> {
        self.requests.push(request);
        Slot { batch: self.number, at: self.requests.len() - 1, reply: PhantomData }
    }

    /// The value of a node.
    pub fn read(&mut self, path: Path) -> Slot<Vec<u8>> {
        self.push(Request::Read(path))
    }

    /// The names of a node's children, however many.
    pub fn directory(&mut self, path: Path) -> Slot<Vec<Name>> {
        self.push(Request::Directory(path))
    }

    /// The permissions of a node or of a special name.
    pub fn get_perms(&mut self, path: impl Into<PathOrSpecial>) -> Slot<Perms> {
        self.push(Request::GetPerms(path.into()))
    }

    /// Sets the value of a node, creating it and what is missing above it.
    pub fn write(&mut self, path: Path, value: impl Into<Vec<u8>>) -> Slot<()> {
        self.push(Request::Write { path, value: value.into() })
    }

    /// Creates a node with an empty value. One that exists is left as it is.
    pub fn mkdir(&mut self, path: Path) -> Slot<()> {
        self.push(Request::Mkdir(path))
    }

    /// Removes a node and everything below.
    pub fn rm(&mut self, path: Path) -> Slot<()> {
        self.push(Request::Rm(path))
    }

    /// Sets the permissions of a node or of a special name.
    pub fn set_perms(&mut self, path: impl Into<PathOrSpecial>, perms: Perms) -> Slot<()> {
        self.push(Request::SetPerms { path: path.into(), perms })
    }

    /// The base path of a domain, whether or not there is one.
    pub fn domain_path(&mut self, domid: DomId) -> Slot<Path> {
        self.push(Request::GetDomainPath(domid))
    }

    /// Whether a domain is connected to the server.
    pub fn is_domain_introduced(&mut self, domid: DomId) -> Slot<bool> {
        self.push(Request::IsDomainIntroduced(domid))
    }

    /// Sets a watch at this point of the batch; [`Replies::take_watch`] gives its handle.
    pub fn watch(&mut self, path: impl Into<PathOrSpecial>, depth: Option<u32>) -> Slot<Watch> {
        self.requests.push(Request::Watch { path: path.into(), token: unique_token(), depth });
        Slot { batch: self.number, at: self.requests.len() - 1, reply: PhantomData }
    }

    /// Ends a watch at this point of the batch. The events that came before it ended are in [`Replies::events`].
    ///
    /// Parts of directories are read after the whole batch, so after this too; [`Batch::fence`] knows about that.
    pub fn unwatch(&mut self, watch: &Watch) -> Slot<()> {
        let (path, token) = (watch.path.clone(), watch.token.clone());
        self.push(Request::Unwatch { path, token })
    }

    /// Watches a path before all requests of the batch and no longer after them; [`Replies::disturbances`] says what
    /// changed in between, at the path or below.
    ///
    /// If nothing did, the reads of the batch saw one state of what lies there. One case escapes: a change of the very node
    /// at `path` (not below it) while the server still holds back the watch's first event, which C xenstored takes for
    /// the same event. Only requests at the start of the batch can be affected; [`crate::Client::fence`] closes that gap for
    /// one round trip more.
    ///
    /// A directory that has to be read in parts is read inside the fence: the batch is sent a second time then, and the
    /// fence taken down only afterwards. So a fenced batch must not write.
    ///
    /// Running the batch fails with [`Failure::UnorderedEvents`] where [`crate::Client::manner`] says that events are not in order
    /// with replies, and inside a transaction, where other changes do not show anyway.
    pub fn fence(&mut self, path: impl Into<PathOrSpecial>) -> FenceSlot {
        self.fences.push((path.into(), unique_token()));
        FenceSlot { batch: self.number, at: self.fences.len() - 1 }
    }

    /// How many requests there are, those of fences not counted.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is no request.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// What a batch was answered.
#[derive(Debug)]
pub struct Replies {
    pub(crate) number: u64,
    pub(crate) requests: Arc<[Request]>,
    /// Which request of the connection each was.
    pub(crate) serials: Vec<Serial>,
    pub(crate) results: Vec<Option<Result<Reply, Failure>>>,
    pub(crate) fences: Vec<Result<Vec<Event>, OperationError>>,
    pub(crate) ended: Vec<(Token, Vec<Event>)>,
}

impl Replies {
    /// Takes the reply of one request.
    ///
    /// # Errors
    ///
    /// If the server refused this request, or it does not fit a message, or the slot is not of this batch.
    pub fn take<T: FromReply>(&mut self, slot: Slot<T>) -> Result<T, OperationError> {
        let reply = self.take_reply(slot.batch, slot.at)?;
        T::from_reply(reply).map_err(|failure| self.error(slot.at, failure))
    }

    /// Takes the reply of one request; `None` if there is no such node.
    ///
    /// # Errors
    ///
    /// As [`Replies::take`].
    pub fn take_optional<T: FromReply>(
        &mut self,
        slot: Slot<T>,
    ) -> Result<Option<T>, OperationError> {
        if_found(self.take(slot))
    }

    /// Takes the handle of a watch that the batch has set.
    ///
    /// # Errors
    ///
    /// As [`Replies::take`].
    pub fn take_watch(&mut self, slot: Slot<Watch>) -> Result<Watch, OperationError> {
        self.take_reply(slot.batch, slot.at)?;
        self.watch_at(slot.at).ok_or_else(|| self.error(slot.at, Failure::NoSuchSlot))
    }

    /// The watches that the batch has set and nobody has taken.
    #[cfg(feature = "tokio")]
    pub(crate) fn watches_not_taken(&self) -> impl Iterator<Item = Watch> {
        let set = self.results.iter().enumerate().filter(|(_, it)| matches!(it, Some(Ok(_))));
        set.filter_map(|(at, _)| self.watch_at(at))
    }

    fn watch_at(&self, at: usize) -> Option<Watch> {
        Watch::set_by(&self.requests[at], self.serials[at])
    }

    /// Takes the reply of one request, and what tells that request from others.
    pub(crate) fn take_serial<T: FromReply>(
        &mut self,
        slot: Slot<T>,
    ) -> Result<(T, Serial), OperationError> {
        // A slot that can be taken is of this batch.
        self.take(slot).map(|reply| (reply, self.serials[slot.at]))
    }

    /// The events, the first included, that came before the batch ended a watch with [`Batch::unwatch`] and that nobody
    /// took before. Empty for a watch that the batch did not end.
    pub fn events(&self, watch: &Watch) -> &[Event] {
        let ended = self.ended.iter().find(|(token, _)| *token == watch.token);
        ended.map_or(&[], |(_, events)| events)
    }

    /// What changed at or below the path of a fence while the batch was carried out; the watch's first event is not among
    /// them. Empty: the reads saw one state.
    ///
    /// # Errors
    ///
    /// If the server refused the watch, so that nothing is known.
    pub fn disturbances(&self, fence: FenceSlot) -> Result<&[Event], OperationError> {
        match self.fences.get(fence.at).filter(|_| fence.batch == self.number) {
            Some(Ok(events)) => Ok(events),
            Some(Err(error)) => Err(error.clone()),
            None => Err(OperationError::of_watch("a fence", Failure::NoSuchSlot)),
        }
    }

    /// The replies not taken yet, in the order of the requests.
    pub fn into_results(self) -> impl Iterator<Item = Result<Reply, OperationError>> {
        self.results.into_iter().enumerate().filter_map(move |(at, result)| {
            Some(result?.map_err(|failure| OperationError::new(&self.requests[at], failure)))
        })
    }

    fn take_reply(&mut self, batch: u64, at: usize) -> Result<Reply, OperationError> {
        let of_this_batch = batch == self.number;
        let taken = self.results.get_mut(at).filter(|_| of_this_batch).and_then(Option::take);
        taken.unwrap_or(Err(Failure::NoSuchSlot)).map_err(|failure| self.error(at, failure))
    }

    fn error(&self, at: usize, failure: Failure) -> OperationError {
        match self.requests.get(at) {
            Some(request) => OperationError::new(request, failure),
            None => OperationError::of_watch("a slot of another batch", failure),
        }
    }
}

impl<T> Clone for Slot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Slot<T> {}

impl<T> std::fmt::Debug for Slot<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({} of batch {})", self.at, self.batch)
    }
}
