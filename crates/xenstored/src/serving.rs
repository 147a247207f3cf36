//! What a server is reached by, and what it takes over.

use std::fmt;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path as FsPath, PathBuf};

use rustix::fs::FileType;

use crate::embedded::Embedded;
use crate::link::Link;
use crate::listen::{ServeError, listen};
use crate::live_update::{Inherited, LinkPlace, LinkState, LiveUpdate, RestoreError, Restored};
use crate::server::Server;
use crate::unix::UnixServer;
use crate::xen::Hypervisor;

/// How clients reach a server: a Unix socket, and what goes with it.
///
/// ```no_run
/// use xenstored::{Embedded, Serving, Store};
/// let served = Serving::new("/run/xenstored/socket").start(&Embedded::new(Store::new()))?;
/// # drop(served);
/// # Ok::<(), xenstored::ServeError>(())
/// ```
pub struct Serving {
    pub(crate) socket: PathBuf,
    pub(crate) live_update: Option<LiveUpdate>,
    pub(crate) inherited: Option<Inheritance>,
    pub(crate) hypervisor: Option<Box<dyn Hypervisor>>,
    pub(crate) own_ring: bool,
    pub(crate) in_flight: Option<PathBuf>,
    pub(crate) on_failure: Option<Act>,
}

/// Acts when it is dropped, unless it is disarmed before: also when the thread that has it panics.
pub(crate) struct OnFailure(pub(crate) Option<Act>);

type Act = Box<dyn FnOnce() + Send>;

impl OnFailure {
    /// The loop has ended in order.
    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for OnFailure {
    fn drop(&mut self) {
        if let Some(act) = self.0.take() {
            act();
        }
    }
}

/// What a predecessor has left: to be served from the moment on at which it stopped.
#[derive(Debug)]
pub struct Inheritance {
    pub(crate) listener: Option<OwnedFd>,
    pub(crate) event_channels: Option<OwnedFd>,
    pub(crate) links: Vec<(Link, LinkState)>,
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Serving {
    /// Clients on a Unix socket at `path`, which can be reached by this user only. One that a dead server left there is
    /// replaced.
    pub fn new(path: impl AsRef<FsPath>) -> Self {
        Self {
            socket: path.as_ref().to_owned(),
            live_update: None,
            inherited: None,
            hypervisor: None,
            own_ring: true,
            in_flight: None,
            on_failure: None,
        }
    }

    /// Makes live updates when CONTROL `live-update` asks for one: the process then executes its successor.
    #[must_use]
    pub fn live_update(mut self, live_update: LiveUpdate) -> Self {
        self.live_update = Some(live_update);
        self
    }

    /// Has `act` called, on the thread that serves, if that ends although nobody has stopped it: a fault of ours, or of the system. A
    /// daemon ends its process then, lest it hold its clients and serve none.
    #[must_use]
    pub fn on_failure(mut self, act: impl FnOnce() + Send + 'static) -> Self {
        self.on_failure = Some(Box::new(act));
        self
    }

    /// Goes on with the clients of a predecessor.
    #[must_use]
    pub fn inherited(mut self, inheritance: Inheritance) -> Self {
        self.inherited = Some(inheritance);
        self
    }

    /// Serves domains on their rings as well: INTRODUCE opens a domain's ring, and the hypervisor tells of its end.
    ///
    /// If nothing is inherited, domains that wait for a server since theirs has died are gone on with as they are found.
    ///
    /// ```
    /// use xenstored::xen::SimulatedXen;
    /// use xenstored::{Embedded, Serving};
    /// # let dir = tempfile::tempdir()?;
    /// # let socket = dir.path().join("socket");
    /// let xen = SimulatedXen::new();
    /// let served = Serving::new(&socket).rings(xen.hypervisor()).start(&Embedded::default())?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn rings(mut self, hypervisor: impl Hypervisor + 'static) -> Self {
        self.hypervisor = Some(Box::new(hypervisor));
        self
    }

    /// Keeps, in a file at `path`, what of domains' messages is neither in their rings nor at its reader: if this process is killed,
    /// the next one that is given the file goes on in the middle of a message, and nothing is answered twice. To go with a
    /// store that is kept; one process at a time may have the file.
    ///
    /// If it cannot be used, the log says so, and domains are served as without it.
    #[must_use]
    pub fn in_flight(mut self, path: impl AsRef<FsPath>) -> Self {
        self.in_flight = Some(path.as_ref().to_owned());
        self
    }

    /// Does not serve the ring of this very domain: its kernel is somebody else's client.
    #[must_use]
    pub fn without_own_ring(mut self) -> Self {
        self.own_ring = false;
        self
    }

    /// Serves, on a thread of its own, until the answer is dropped.
    ///
    /// # Errors
    ///
    /// If the socket or the rings cannot be served, or a client of a predecessor not be watched.
    pub fn start(self, server: &Embedded) -> Result<UnixServer, ServeError> {
        UnixServer::start(server.clone(), self)
    }

    /// The socket that clients come to.
    pub(crate) fn listener(&mut self) -> Result<UnixListener, ServeError> {
        let inherited = self.inherited.as_mut().and_then(|left| left.listener.take());
        let Some(inherited) = inherited else { return listen(&self.socket) };
        let listener = UnixListener::from(inherited);
        listener.set_nonblocking(true).map_err(|source| ServeError::Io {
            action: "take over",
            path: self.socket.clone(),
            source,
        })?;
        Ok(listener)
    }
}

impl Inheritance {
    /// The event channels that the predecessor had: for the hypervisor that is given to [`Serving::rings`]. Without one,
    /// they are kept for another successor.
    pub fn take_event_channels(&mut self) -> Option<OwnedFd> {
        self.event_channels.take()
    }

    /// Reads the state that a predecessor has written, and takes over the descriptors that it has left open. `server` is new;
    /// see [`Server::new`].
    ///
    /// `stamp` is beyond what the predecessor has counted changes to: clients know some of these numbers. The nanoseconds
    /// since 1970 are.
    ///
    /// # Errors
    ///
    /// If the state is none. Nothing has been taken over then. A client whose descriptor is not there is left out, and the log
    /// says so.
    pub fn take(
        state: impl Read,
        server: Server,
        stamp: u64,
    ) -> Result<(Server, Self), RestoreError> {
        let Restored { mut server, links, global } = Restored::read(state, server, stamp)?;
        let mut inherited = Inherited::default();
        let mut take = |number: i32, kind, what: &str| {
            let taken = inherited.take(number, kind);
            taken.inspect_err(|error| tracing::warn!(number, %error, "{what} not taken over")).ok()
        };
        let listener = global.socket_fd.and_then(|fd| take(fd, FileType::Socket, "socket"));
        let mut adopted = Vec::with_capacity(links.len());
        for link in links {
            let taken = match link.place {
                LinkPlace::Socket(fd) => {
                    take(fd, FileType::Socket, "client").and_then(|fd| Link::socket(fd).ok())
                }
                LinkPlace::Ring(port) => Some(Link::Parked { port }),
            };
            match taken {
                Some(taken) => adopted.push((taken, link)),
                None => server.disconnect(link.connection),
            }
        }
        let event_channels = global.event_channel_fd.and_then(|fd| inherited.take_any(fd).ok());
        Ok((server, Self { listener, event_channels, links: adopted }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_to_be_done_on_a_failure_is_done_when_the_thread_panics_and_not_when_it_was_stopped()
    {
        let done = Arc::new(AtomicUsize::new(0));
        let act = || {
            let done = Arc::clone(&done);
            OnFailure(Some(Box::new(move || {
                done.fetch_add(1, Ordering::Relaxed);
            })))
        };
        let armed = act();
        let panics = std::thread::spawn(move || {
            let _armed = armed;
            std::panic::resume_unwind(Box::new("a panic"));
        });
        assert!(panics.join().is_err());
        assert_eq!(done.load(Ordering::Relaxed), 1);
        act().disarm();
        assert_eq!(done.load(Ordering::Relaxed), 1);
    }
}
