//! A host: where its Xenstore, its templates and its hypervisor are.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libxl_config::template::{MemoryStore, SledStore, TemplateStore, UserdataDir};
use libxl_control::{LibraryAt, LoadError, Xenctrl};
use snapshot::GuardianProgram;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Client, DomId, Endpoint, OpenError, Options};

use crate::arguments::{empty, invalid, milliseconds, optional_text, required, text, values};
use crate::boundary::{call, guarded};
use crate::problem::{Error, Problem};
use crate::status::Status;

/// How long a call may take unless dk_ctx_set_timeout() says otherwise, in milliseconds.
pub const TIMEOUT_DEFAULT_MS: u32 = 30_000;

/// Connections that are kept open between calls: as many as a program has threads that call at the same time, and no more than a
/// daemon notices.
const IDLE_MAX: usize = 8;

/// A host. Calls on one context may be made by several threads at the same time; each has a connection of its own to Xenstore.
pub struct Ctx {
    xenstore: Xenstore,
    templates: Arc<dyn TemplateStore>,
    timeout_ms: AtomicU32,
    hypervisor: Mutex<Hypervisor>,
    xenctrl: Mutex<Option<Arc<Xenctrl>>>,
    guardian: Mutex<Option<GuardianProgram>>,
    idle: Mutex<VecDeque<(Duration, Client)>>,
}

enum Xenstore {
    At(Endpoint),
    Within { server: Embedded, served: Mutex<Vec<UnixServer>> },
}

/// Whether the hypervisor is asked, through libxenctrl, for what neither Xenstore nor templates tell truly: uuids and the
/// parameters of the scheduler.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    /// If this is a Xen host and the context was opened without naming a Xenstore.
    Auto = 0,
    /// Never.
    Never = 1,
    /// Always: it is an error if it cannot be asked.
    Always = 2,
}

/// Opens a context for the Xenstore of a host.
///
/// `xenstore` is the path of xenstored's socket or of a xenbus device, or NULL to look where libxenstore looks: XENSTORED_PATH,
/// XENSTORED_RUNDIR/socket, /run/xenstored/socket, /dev/xen/xenbus.
///
/// `templates` says where the domains' templates are: "userdata:DIRECTORY" for libxl's own, "sled:DIRECTORY" for Domkeep's
/// embedded store, "memory" for none that outlive the context. NULL is "userdata:/var/lib/xen".
///
/// Connects at once, so that a missing daemon is noticed here: DK_STATUS_UNREACHABLE.
///
/// `*ctx` is NULL unless the call succeeds. It is freed with dk_ctx_free().
///
/// # Safety
///
/// Texts end with a NUL. `ctx` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_ctx_open(
    ctx: Option<&mut MaybeUninit<*mut Ctx>>,
    xenstore: *const c_char,
    templates: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_ctx_open", error, || {
        let place = empty(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let (xenstore, templates) = unsafe {
            (optional_text(xenstore, "xenstore")?, optional_text(templates, "templates")?)
        };
        let endpoint = xenstore.map_or(Endpoint::Search, Endpoint::at);
        let opened = Ctx::new(Xenstore::At(endpoint), open_templates(templates)?);
        drop(opened.client()?);
        *place = Box::into_raw(Box::new(opened));
        Ok(())
    })
}

/// Opens a context with a Xenstore of its own, inside this process: for tests, and for trying a toolstack out without Xen.
///
/// `contents` are the nodes it begins with, as `xenstore-ls -fp` prints them, one a line; NULL for an empty store.
/// `templates` is as for dk_ctx_open(), but NULL is "memory".
///
/// `*ctx` is NULL unless the call succeeds. It is freed with dk_ctx_free(), and the store with it.
///
/// # Safety
///
/// As dk_ctx_open().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_ctx_open_in_process(
    ctx: Option<&mut MaybeUninit<*mut Ctx>>,
    contents: *const c_char,
    templates: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_ctx_open_in_process", error, || {
        let place = empty(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let (contents, templates) = unsafe {
            (optional_text(contents, "contents")?, optional_text(templates, "templates")?)
        };
        let store = Store::from_text(contents.unwrap_or_default())
            .map_err(|error| Problem::of(Status::InvalidData, &error))?;
        let within = Xenstore::Within { server: Embedded::new(store), served: Mutex::default() };
        let opened = Ctx::new(within, open_templates(templates.or(Some("memory")))?);
        *place = Box::into_raw(Box::new(opened));
        Ok(())
    })
}

/// Serves the context's own Xenstore on a Unix socket as well, for libxenstore and the stock tools, until the context is freed.
///
/// The socket can be reached by this user only. One that a dead server left there is replaced.
///
/// # Safety
///
/// `socket` ends with a NUL. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_ctx_serve(
    ctx: Option<&Ctx>,
    socket: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_ctx_serve", error, || {
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let socket = unsafe { text(socket, "socket") }?;
        let Xenstore::Within { server, served } = &ctx.xenstore else {
            return Err(invalid("this context's Xenstore is another process's, which serves it"));
        };
        let serving =
            server.serve_unix(socket).map_err(|error| Problem::by_cause(&error).at(socket))?;
        served.lock().unwrap_or_else(PoisonError::into_inner).push(serving);
        Ok(())
    })
}

/// How long a step of a call on this context may wait for Xenstore, or for a lock, in milliseconds. A call of several steps may take
/// several times that; devices, by their dk_plugging, and snapshots, by their requests, have times of their own beside it. With 0
/// nothing is waited for, so that whatever asks Xenstore fails.
#[unsafe(no_mangle)]
pub extern "C" fn dk_ctx_set_timeout(ctx: Option<&Ctx>, milliseconds: u32) {
    if let Some(ctx) = ctx {
        ctx.timeout_ms.store(milliseconds, Ordering::Relaxed);
        // Each connection has its time from when it was made.
        ctx.forget_idle();
    }
}

/// Whether the hypervisor is asked for what only it knows. One of DK_HYPERVISOR_AUTO, DK_HYPERVISOR_NEVER, DK_HYPERVISOR_ALWAYS.
#[unsafe(no_mangle)]
pub extern "C" fn dk_ctx_set_hypervisor(
    ctx: Option<&Ctx>,
    hypervisor: i32,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_ctx_set_hypervisor", error, || {
        let ctx = required(ctx, "ctx")?;
        let chosen = chosen!(hypervisor, "dk_hypervisor", {
            Hypervisor::Auto => Hypervisor::Auto,
            Hypervisor::Never => Hypervisor::Never,
            Hypervisor::Always => Hypervisor::Always,
        })?;
        *ctx.hypervisor.lock().unwrap_or_else(PoisonError::into_inner) = chosen;
        Ok(())
    })
}

/// Which program resumes a domain if this process dies while it has the domain suspended: `domkeep guard`, or one of the caller's.
///
/// `argv` are the program and its arguments, `count` of them; none for no guardian, which is also how a context begins. Without
/// one a killed saver leaves its guest suspended, for dk_snapshot_recover() to resume.
///
/// # Safety
///
/// `argv` has `count` texts that end with a NUL. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_ctx_set_guardian(
    ctx: Option<&Ctx>,
    argv: *const *const c_char,
    count: usize,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_ctx_set_guardian", error, || {
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let argv = unsafe { values(argv, count, "argv") }?;
        let mut words = Vec::new();
        for (index, word) in argv.iter().enumerate() {
            // SAFETY: as this function's own contract.
            words.push(unsafe { text(*word, &format!("argv[{index}]")) }?.to_owned());
        }
        let guardian = words.split_first().map(|(program, arguments)| GuardianProgram {
            program: program.into(),
            arguments: arguments.to_vec(),
        });
        *ctx.guardian.lock().unwrap_or_else(PoisonError::into_inner) = guardian;
        Ok(())
    })
}

/// Frees a context: its connections are closed, its own Xenstore ends. NULL is nothing to free.
///
/// No call on it may be under way. What was made with it, as a dk_hotplug, stays valid.
#[unsafe(no_mangle)]
pub extern "C" fn dk_ctx_free(ctx: Option<Box<Ctx>>) {
    guarded(|| drop(ctx));
}

fn open_templates(at: Option<&str>) -> Result<Arc<dyn TemplateStore>, Problem> {
    let at = at.map_or_else(|| format!("userdata:{}", UserdataDir::HOST_PATH), str::to_owned);
    let opened = |error: &(dyn std::error::Error + 'static), directory: &str| {
        Problem::of(Status::Unreachable, error).at(directory)
    };
    Ok(match at.split_once(':') {
        None if at == "memory" => Arc::new(MemoryStore::new()),
        Some(("userdata", directory)) => {
            Arc::new(UserdataDir::open(directory).map_err(|error| opened(&error, directory))?)
        }
        Some(("sled", directory)) => {
            let deadline = Instant::now() + milliseconds(TIMEOUT_DEFAULT_MS);
            let store = SledStore::open_or_create(directory, deadline);
            Arc::new(store.map_err(|error| opened(&error, directory))?)
        }
        _ => {
            return Err(invalid(format!(
                "`templates` is \"{at}\"; say \"userdata:DIRECTORY\", \"sled:DIRECTORY\" or \"memory\""
            )));
        }
    })
}

impl Ctx {
    fn new(xenstore: Xenstore, templates: Arc<dyn TemplateStore>) -> Self {
        Self {
            xenstore,
            templates,
            timeout_ms: AtomicU32::new(TIMEOUT_DEFAULT_MS),
            hypervisor: Mutex::new(Hypervisor::Auto),
            xenctrl: Mutex::default(),
            guardian: Mutex::default(),
            idle: Mutex::default(),
        }
    }

    pub(crate) fn templates(&self) -> &Arc<dyn TemplateStore> {
        &self.templates
    }

    pub(crate) fn timeout(&self) -> Duration {
        milliseconds(self.timeout_ms.load(Ordering::Relaxed))
    }

    /// When a call that starts now has to end.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.timeout()
    }

    pub(crate) fn guardian(&self) -> Option<GuardianProgram> {
        self.guardian.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection to Xenstore for one call, whose requests wait no longer than the context says.
    pub(crate) fn client(&self) -> Result<Lease<'_>, Problem> {
        let timeout = self.timeout();
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let client = match idle {
            Some((made_for, client)) if made_for == timeout => client,
            _ => self.connect(timeout)?,
        };
        Ok(Lease { ctx: self, timeout, client: Some(client) })
    }

    /// A new connection.
    pub(crate) fn connect(&self, timeout: Duration) -> Result<Client, OpenError> {
        match &self.xenstore {
            Xenstore::At(endpoint) => {
                Client::open(endpoint.clone(), Options::with_timeout(timeout))
            }
            Xenstore::Within { server, .. } => {
                let transport = Box::new(server.transport(DomId::DOM0));
                Ok(Client::over(transport, Options::with_timeout(timeout)))
            }
        }
    }

    /// What answers for the hypervisor; `None` if nothing does and nothing has to.
    pub(crate) fn hypervisor(&self) -> Result<Option<Arc<Xenctrl>>, Problem> {
        let chosen = *self.hypervisor.lock().unwrap_or_else(PoisonError::into_inner);
        let of_this_host = matches!(self.xenstore, Xenstore::At(Endpoint::Search));
        match chosen {
            Hypervisor::Never => return Ok(None),
            // In another Xenstore the same numbers are other domains.
            Hypervisor::Auto if !of_this_host => return Ok(None),
            Hypervisor::Auto | Hypervisor::Always => {}
        }
        let mut xenctrl = self.xenctrl.lock().unwrap_or_else(PoisonError::into_inner);
        if xenctrl.is_none() {
            match Xenctrl::open(&LibraryAt::Host) {
                Ok(opened) => *xenctrl = Some(Arc::new(opened)),
                Err(LoadError::NotAXenHost { .. }) if chosen == Hypervisor::Auto => {}
                Err(error) => return Err(Problem::of(Status::Unreachable, &error)),
            }
        }
        Ok(xenctrl.clone())
    }

    /// Keeps a connection for the next call. Where one is lost the others are: the daemon was started again.
    fn keep(&self, timeout: Duration, client: Client) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if client.lost().is_some() {
            idle.clear();
        } else if idle.len() < IDLE_MAX {
            idle.push_front((timeout, client));
        }
    }

    fn forget_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Reads something. A daemon that was started again meanwhile has closed connections that nobody was using: then it is read
    /// again on a new one.
    pub(crate) fn read<T, E>(
        &self,
        mut read: impl FnMut(&mut Client) -> Result<T, E>,
    ) -> Result<T, Problem>
    where
        Problem: From<E>,
    {
        let mut lease = self.client()?;
        let answer = read(&mut lease);
        if answer.is_err() && lease.lost().is_some() {
            drop(lease);
            return Ok(read(&mut *self.client()?)?);
        }
        Ok(answer?)
    }
}

/// A connection that is used by one call, and kept for the next one if it is still there.
pub(crate) struct Lease<'c> {
    ctx: &'c Ctx,
    timeout: Duration,
    client: Option<Client>,
}

const LEASED: &str = "a lease has its client until it is dropped";

impl Deref for Lease<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect(LEASED)
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Client {
        self.client.as_mut().expect(LEASED)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            self.ctx.keep(self.timeout, client);
        }
    }
}

#[cfg(test)]
mod tests {
    use xsclient::{Nodes, Path};

    use super::*;

    fn context(socket: &std::path::Path) -> Ctx {
        let endpoint = Endpoint::UnixSocket(socket.to_owned());
        Ctx::new(Xenstore::At(endpoint), Arc::new(MemoryStore::new()))
    }

    #[test]
    fn after_a_restart_of_the_daemon_one_call_fails_and_not_one_for_each_kept_connection() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let root: Path = "/".parse().unwrap();
        let ctx = context(&socket);
        let (daemon, serving) = serve(&socket);
        // All three before the first is given back.
        for lease in [ctx.client(), ctx.client(), ctx.client()] {
            lease.unwrap().read(&root).unwrap();
        }
        drop((serving, daemon));
        let _again = serve(&socket);
        assert!(ctx.client().unwrap().read(&root).is_err(), "its connection was closed");
        assert!(ctx.client().unwrap().read(&root).is_ok());
    }

    #[test]
    fn a_connection_of_another_timeout_is_not_used_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _serving = serve(&socket);
        let ctx = context(&socket);
        let lease = ctx.client().unwrap();
        dk_ctx_set_timeout(Some(&ctx), 0);
        drop(lease);
        let read = ctx.client().map(|mut lease| lease.read(&Path::root()));
        assert!(!matches!(read, Ok(Ok(_))), "nothing is waited for now: {read:?}");
    }

    fn serve(socket: &std::path::Path) -> (Embedded, UnixServer) {
        let daemon = Embedded::new(Store::new());
        let serving = daemon.serve_unix(socket).unwrap();
        (daemon, serving)
    }
}
