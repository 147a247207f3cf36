//! Clients on a Unix socket: one thread, whoever is slow.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::embedded::Embedded;
use crate::event_loop::EventLoop;
use crate::listen::ServeError;
use crate::server::ConnectionId;
use crate::serving::{OnFailure, Serving};
use crate::xen::{InFlight, Rings};

/// A Unix socket that serves an [`Embedded`] server. Stopping or dropping it closes its clients' connections and
/// removes the socket.
#[derive(Debug)]
pub struct UnixServer {
    path: PathBuf,
    waker: Arc<LoopWaker>,
    thread: Option<JoinHandle<()>>,
    /// Device and inode of the socket: what another server puts in its place is not ours to remove.
    identity: Option<(u64, u64)>,
}

impl UnixServer {
    pub(crate) fn start(embedded: Embedded, mut serving: Serving) -> Result<Self, ServeError> {
        let path = serving.socket.clone();
        let failed = |action| {
            let path = path.clone();
            move |source| ServeError::Io { action, path, source }
        };
        let on_failure = serving.on_failure.take();
        let mut rings = serving.hypervisor.take().map(Rings::new).transpose()?;
        if let (Some(rings), Some(path)) = (&mut rings, &serving.in_flight) {
            match InFlight::open(path) {
                Ok(in_flight) => rings.keep_in(in_flight),
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "messages in flight are not kept");
                }
            }
        }
        let listener = serving.listener()?;
        // An inherited socket serves those who are connected even where somebody has removed its name.
        let identity = match fs::symlink_metadata(&path) {
            Ok(metadata) => Some((metadata.dev(), metadata.ino())),
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "nobody can connect");
                None
            }
        };
        let (mut event_loop, waker) =
            EventLoop::new(embedded, listener, serving).map_err(failed("watch"))?;
        if let Some(rings) = rings {
            event_loop.serve_rings(rings)?;
        }
        let run = move || {
            let mut on_failure = OnFailure(on_failure);
            if event_loop.run() {
                on_failure.disarm();
            }
        };
        let thread =
            thread::Builder::new().name("xenstored".into()).spawn(run).map_err(failed("serve"))?;
        Ok(Self { path, waker, thread: Some(thread), identity })
    }

    /// Where the socket is.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Closes the clients' connections, removes the socket, and returns when that is done.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for UnixServer {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| Some((metadata.dev(), metadata.ino())) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
        self.waker.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Tells the event loop from other threads what happened.
pub(crate) struct LoopWaker {
    waker: mio::Waker,
    state: Mutex<Wakeup>,
}

#[derive(Default)]
pub(crate) struct Wakeup {
    pub(crate) ready: Vec<ConnectionId>,
    /// Whether there are rings that nobody carries yet.
    pub(crate) rings: bool,
    pub(crate) stop: bool,
    /// Whether the loop waits, and has to be woken.
    pub(crate) asleep: bool,
}

impl LoopWaker {
    pub(crate) fn new(waker: mio::Waker) -> Self {
        Self { waker, state: Mutex::default() }
    }

    pub(crate) fn wake_for(&self, connection: ConnectionId) {
        self.wake(|state| state.ready.push(connection));
    }

    pub(crate) fn wake_for_rings(&self) {
        self.wake(|state| state.rings = true);
    }

    fn stop(&self) {
        self.wake(|state| state.stop = true);
    }

    fn wake(&self, change: impl FnOnce(&mut Wakeup)) {
        let mut state = self.lock();
        change(&mut state);
        if std::mem::take(&mut state.asleep)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "the thread that serves the socket cannot be woken");
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Wakeup> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LoopWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopWaker").finish_non_exhaustive()
    }
}
