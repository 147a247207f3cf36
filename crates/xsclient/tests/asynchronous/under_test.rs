//! The client that the suite tests here: the asynchronous one, each of whose futures is waited for.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use xsclient::asynchronous::{self, Fence, Nodes as _, Replies, Watch};
use xsclient::{
    Batch, Commit, ConnectionLost, DomId, Endpoint, Event, Features, Name, OpenError,
    OperationError, Options, Path, PathOrSpecial, Perms, QuotaName, Reply, Request, RetryPolicy,
    Statistics, Token, TxId, UnixSocket,
};

/// Waits where the blocking client would. The runtime, and the connection with it, ends with the client.
#[derive(Debug)]
pub(crate) struct Client {
    inner: asynchronous::Client,
    runtime: Arc<Runtime>,
}

#[derive(Debug)]
pub(crate) struct Transaction {
    inner: asynchronous::Transaction,
    runtime: Arc<Runtime>,
}

fn runtime() -> Arc<Runtime> {
    Arc::new(Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

pub(crate) fn over(stream: UnixStream, options: Options) -> Client {
    let runtime = runtime();
    let entered = runtime.enter();
    let inner = asynchronous::Client::over(UnixSocket::over(stream).unwrap(), options).unwrap();
    drop(entered);
    Client { inner, runtime }
}

/// Methods of the same name that wait.
macro_rules! waiting {
    ($($name:ident($($arg:ident: $ty:ty),*) -> $output:ty;)*) => {
        $(pub(crate) fn $name(&mut self, $($arg: $ty),*) -> Result<$output, OperationError> {
            self.runtime.block_on(self.inner.$name($($arg),*))
        })*
    };
}

impl Client {
    waiting! {
        request(request: &Request) -> Reply;
        run(batch: Batch) -> Replies;
        directory(path: &Path) -> Vec<Name>;
        read(path: &Path) -> Vec<u8>;
        read_optional(path: &Path) -> Option<Vec<u8>>;
        read_text(path: &Path) -> String;
        write(path: &Path, value: &[u8]) -> ();
        mkdir(path: &Path) -> ();
        rm(path: &Path) -> ();
        get_perms(path: &PathOrSpecial) -> Perms;
        set_perms(path: &PathOrSpecial, perms: &Perms) -> ();
        watch(path: impl Into<PathOrSpecial>, depth: Option<u32>) -> Watch;
        watch_with_token(path: impl Into<PathOrSpecial>, token: Token, depth: Option<u32>) -> Watch;
        unwatch(watch: &Watch) -> ();
        next_event_any(timeout: Duration) -> Option<Event>;
        fence(paths: impl IntoIterator<Item = PathOrSpecial>) -> Fence;
        lower(fence: Fence) -> Vec<Event>;
        domain_path(domid: DomId) -> Path;
        is_domain_introduced(domid: DomId) -> bool;
        introduce(domid: DomId, gfn: u64, event_channel: u32) -> ();
        release(domid: DomId) -> ();
        resume(domid: DomId) -> ();
        set_target(domid: DomId, target: DomId) -> ();
        reset_watches() -> ();
        control(words: &[&str]) -> Vec<u8>;
        features(domid: Option<DomId>) -> Features;
        set_features(domid: DomId, features: Features) -> ();
        quota_names() -> Vec<QuotaName>;
        quota(domid: Option<DomId>, quota: &QuotaName) -> u32;
        set_quota(domid: Option<DomId>, quota: &QuotaName, value: u32) -> ();
    }

    pub(crate) fn open(endpoint: Endpoint, options: Options) -> Result<Self, OpenError> {
        let runtime = runtime();
        let inner = runtime.block_on(asynchronous::Client::open(endpoint, options))?;
        Ok(Self { inner, runtime })
    }

    pub(crate) fn with_deadline(&mut self, deadline: Instant) -> Self {
        self.around(self.inner.with_deadline(deadline))
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.inner.statistics()
    }

    pub(crate) fn lost(&self) -> Option<ConnectionLost> {
        self.inner.lost()
    }

    pub(crate) fn next_event(
        &mut self,
        watch: &Watch,
        timeout: Duration,
    ) -> Result<Option<Event>, OperationError> {
        self.runtime.block_on(watch.next_event(timeout))
    }

    pub(crate) fn events(
        &mut self,
        watch: &Watch,
        timeout: Duration,
    ) -> impl Iterator<Item = Result<Event, OperationError>> {
        let mut ended = false;
        std::iter::from_fn(move || {
            let next = if ended { None } else { self.next_event(watch, timeout).transpose() };
            ended = !matches!(next, Some(Ok(_)));
            next
        })
    }

    pub(crate) fn transaction(&mut self) -> Result<Transaction, OperationError> {
        let inner = self.runtime.block_on(self.inner.transaction())?;
        Ok(Transaction { inner, runtime: Arc::clone(&self.runtime) })
    }

    pub(crate) fn transaction_with(
        &mut self,
        batch: Batch,
    ) -> Result<(Transaction, Replies), OperationError> {
        let (inner, replies) = self.runtime.block_on(self.inner.transaction_with(batch))?;
        Ok((Transaction { inner, runtime: Arc::clone(&self.runtime) }, replies))
    }

    pub(crate) fn transact<T, E: From<OperationError>>(
        &mut self,
        policy: &RetryPolicy,
        mut body: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, E> {
        let runtime = &self.runtime;
        runtime.block_on(self.inner.transact(policy, |inner| {
            let mut transaction = Transaction { inner, runtime: Arc::clone(runtime) };
            // The body blocks, and its requests are answered meanwhile.
            let value = tokio::task::block_in_place(|| body(&mut transaction));
            std::future::ready(value.map(|value| (transaction.inner, value)))
        }))
    }

    fn around(&self, inner: asynchronous::Client) -> Self {
        Self { inner, runtime: Arc::clone(&self.runtime) }
    }
}

impl Transaction {
    waiting! {
        run(batch: Batch) -> Replies;
        directory(path: &Path) -> Vec<Name>;
        read(path: &Path) -> Vec<u8>;
        read_text(path: &Path) -> String;
        write(path: &Path, value: &[u8]) -> ();
        rm(path: &Path) -> ();
    }

    pub(crate) fn id(&self) -> TxId {
        self.inner.id()
    }

    pub(crate) fn commit(self) -> Result<Commit, OperationError> {
        self.runtime.block_on(self.inner.commit())
    }

    pub(crate) fn commit_with(self, batch: Batch) -> Result<(Commit, Replies), OperationError> {
        self.runtime.block_on(self.inner.commit_with(batch))
    }

    pub(crate) fn abort(self) -> Result<(), OperationError> {
        self.runtime.block_on(self.inner.abort())
    }
}
