//! The simulated host: what is hypervisor, toolstack and guests in one process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use libxl_config::template::OpenDirError;
use rustix::event::PollFlags;

use super::faults::{Call, Effect};
use super::protocol::{CANCEL, Reply, Request};
use super::wire::{self, Incoming, Woken, wait};
use crate::control::CancelToken;

mod calls;
mod channel;
mod domain;
mod guest;
mod orphans;
mod restored;
mod storage;
mod table;
mod templates;
mod xenstore;

pub use xenstore::HostXenstore;

use domain::Domain;
use orphans::{Calls, OpenCall};
use table::Domains;
use templates::Templates;

/// Several simulated domains, and the socket on which they are reached.
///
/// It is meant to be a process of its own, so that its domains outlive whoever saves them: see [`super::HostProcess`]. Nothing
/// of it is left when that process ends: memory files have no names, and the processes that have qcow2 disks open are killed
/// with it. Only if it is killed, sockets and templates stay.
#[derive(Debug)]
pub struct Host {
    directory: PathBuf,
    xenstore: Option<HostXenstore>,
    templates: Option<Templates>,
    table: Mutex<Table>,
    calls: Arc<Calls>,
    ended: CancelToken,
}

struct Table {
    domains: Domains,
    next_domid: u16,
    effects: VecDeque<(Call, Effect)>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("domids", &self.domains.keys()).finish_non_exhaustive()
    }
}

impl Host {
    /// A host without domains. Memory is kept in files in `directory`, which must exist and take sparse files.
    ///
    /// With a Xenstore it writes and removes its domains' nodes there, as libxl does. Without one that is the toolstack's, also for a
    /// domain that was just restored.
    ///
    /// # Errors
    ///
    /// If the process has no file descriptor left.
    pub fn new(directory: impl Into<PathBuf>, xenstore: Option<HostXenstore>) -> io::Result<Self> {
        let table = Table { domains: Domains::new(), next_domid: 1, effects: VecDeque::new() };
        Ok(Self {
            directory: directory.into(),
            xenstore,
            templates: None,
            table: Mutex::new(table),
            calls: Arc::default(),
            ended: CancelToken::new()?,
        })
    }

    /// With a directory in which it keeps the templates of its domains, as libxl does: from a domain's creation to its end.
    ///
    /// # Errors
    ///
    /// If there is no such directory.
    pub fn with_templates(mut self, directory: impl AsRef<Path>) -> Result<Self, OpenDirError> {
        self.templates = Some(Templates::open(directory.as_ref())?);
        Ok(self)
    }

    /// Serves clients until one says that the host is to end, or one that the host is tied to goes away.
    ///
    /// # Errors
    ///
    /// If the socket fails. A client's failure ends that client's connection.
    pub fn serve(self, listener: &UnixListener) -> io::Result<()> {
        let host = Arc::new(self);
        // So that a client that gives up before it is accepted blocks nobody.
        listener.set_nonblocking(true)?;
        loop {
            let ended = Some(host.ended.as_fd());
            if wait(listener.as_fd(), PollFlags::IN, ended, None)? == Woken::Cancelled {
                break;
            }
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(false)?;
            let (serving, call) = (Arc::clone(&host), host.calls.accepted(&stream)?);
            thread::Builder::new().name("connection".into()).spawn(move || {
                if let Err(error) = serving.connection(&stream, call) {
                    tracing::debug!(%error, "a connection to the simulated host failed");
                }
            })?;
        }
        let domains = std::mem::take(&mut host.lock().domains);
        for domain in domains.values() {
            domain.end();
            if let Err(failure) = host.forget_template(domain.identity) {
                tracing::warn!(?failure, domain = %domain.identity, "a template is left");
            }
        }
        Ok(())
    }

    fn connection(self: &Arc<Self>, stream: &UnixStream, call: OpenCall) -> io::Result<()> {
        let mut incoming = Incoming::default();
        let Some(request) = incoming.value::<Request>(stream)? else { return Ok(()) };
        match request {
            Request::Tie => {
                drop(call);
                wire::send(stream, &Reply::Done, None)?;
                // Nothing comes any more, until the other end is closed.
                while incoming.line(stream)?.is_some() {}
                self.ended.cancel();
                Ok(())
            }
            Request::End => {
                self.ended.cancel();
                wire::send(stream, &Reply::Done, None)
            }
            request => self.call(stream, incoming, request, call),
        }
    }

    /// The call has a thread of its own, while this one waits for a cancel. A client that goes away cancels only what it was
    /// building.
    fn call(
        self: &Arc<Self>,
        stream: &UnixStream,
        mut incoming: Incoming,
        request: Request,
        call: OpenCall,
    ) -> io::Result<()> {
        let (token, waits) = (CancelToken::new()?, Mutex::new(None));
        let is_build = matches!(request, Request::BuildFrom { .. });
        let cancel = Arc::new(Cancel { token, waits, calls: Arc::clone(&self.calls) });
        let (host, cancels) = (Arc::clone(self), Arc::clone(&cancel));
        let (replies, fd) = (stream.try_clone()?, incoming.fds.pop_front());
        thread::Builder::new().name("call".into()).spawn(move || {
            if let Some(reply) = calls::perform(&host, request, fd, &cancels, &call)
                && let Err(error) = wire::send(&replies, &reply, None)
            {
                tracing::debug!(%error, "nobody waits for the reply any more");
            }
            // Ends the connection for the other thread as well, also without a reply.
            let _ = replies.shutdown(std::net::Shutdown::Both);
        })?;
        while let Some(line) = incoming.line(stream)? {
            if line == format!("{CANCEL:?}").as_bytes() {
                cancel.cancel();
            }
        }
        if is_build {
            cancel.cancel();
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What goes wrong in this call, if anything is to.
    fn strikes(&self, call: Call) -> Option<Effect> {
        let mut table = self.lock();
        let at = table.effects.iter().position(|(in_call, _)| *in_call == call)?;
        table.effects.remove(at).map(|(_, effect)| effect)
    }
}

/// Ends one call early.
struct Cancel {
    token: CancelToken,
    /// Whom the call waits for.
    waits: Mutex<Option<Arc<Domain>>>,
    /// What else it may wait for.
    calls: Arc<Calls>,
}

impl Cancel {
    /// The call is about to wait for changes of a domain.
    fn wakes(&self, domain: &Arc<Domain>) {
        *self.waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(domain));
    }

    fn cancel(&self) {
        self.token.cancel();
        self.calls.wake();
        if let Some(domain) = &*self.waits.lock().unwrap_or_else(PoisonError::into_inner) {
            // Whoever looked at the token before it was cancelled waits by now.
            drop(domain.lock());
            domain.notify();
        }
    }
}
