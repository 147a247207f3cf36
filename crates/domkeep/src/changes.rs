//! Waits until a domain's configuration may have changed: Xenstore watches, and inotify on a shared template directory.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::path::Path as FsPath;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use xsclient::{Batch, Client, DomId, Name, Nodes, OperationError, Path, SpecialName, Watch};

use crate::exit::CommandError;
use crate::places::Places;

/// Least time between two notices. A guest may change its own nodes as fast as it likes, and each notice costs a few round
/// trips; what comes in between is told with the next.
const INTERVAL: Duration = Duration::from_millis(50);

/// How long one wait for an event lasts. Nothing ends with it; it only has to be some time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// Most backends watched. A domain has a handful; a guest that libxl did not make could name any number in its own tree.
const BACKENDS_MAX: usize = 1024;

/// Room for so many octets of inotify events at once.
const INOTIFY_OCTETS: usize = 4096;

/// Notices that something changed of which a domain's configuration is made.
pub(crate) struct Changes {
    notices: Receiver<Result<(), OperationError>>,
}

impl Changes {
    /// Watches from now on. The first notice comes as soon as all watches are set.
    pub(crate) fn of(domid: DomId, places: &Places) -> Result<Self, CommandError> {
        let (sender, notices) = channel();
        let mut watches = Watches { client: places.client()?, domid, backends: BTreeMap::new() };
        watches.set_fixed()?;
        if let Some(directory) = places.shared_directory() {
            watch_templates(domid, directory, sender.clone());
        }
        let run = move || {
            if let Err(error) = watches.run(&sender) {
                // Nobody listens any more if this fails too.
                let _ = sender.send(Err(error));
            }
        };
        thread::Builder::new().name("watches".into()).spawn(run).map_err(CommandError::Thread)?;
        Ok(Self { notices })
    }

    /// Waits for the next notice; `false` if there was none until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) -> Result<bool, CommandError> {
        let timeout = match deadline {
            Some(deadline) => deadline.saturating_duration_since(Instant::now()),
            None => LONG,
        };
        match self.notices.recv_timeout(timeout) {
            Ok(notice) => {
                notice?;
                // What is known already needs no second look.
                while let Ok(notice) = self.notices.try_recv() {
                    notice?;
                }
                Ok(true)
            }
            Err(RecvTimeoutError::Timeout) => Ok(deadline.is_none()),
            Err(RecvTimeoutError::Disconnected) => Ok(false),
        }
    }
}

/// The watches of one domain, on a connection of their own.
struct Watches {
    client: Client,
    domid: DomId,
    /// Where its backends are; driver domains have them in trees of their own.
    backends: BTreeMap<Path, Watch>,
}

impl Watches {
    /// What the toolstack writes of the domain. A watch may be set on what is not there yet.
    fn set_fixed(&mut self) -> Result<(), OperationError> {
        let domain = Path::of_domain(self.domid);
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for key in ["name", "vm", "memory", "cpu", "device"] {
            slots.extend(domain.join(key).ok().map(|path| batch.watch(path, None)));
        }
        slots.extend(toolstack(self.domid).map(|path| batch.watch(path, None)));
        if let Ok(gone) = SpecialName::RELEASE_DOMAIN.parse::<SpecialName>() {
            slots.push(batch.watch(gone, None));
        }
        let mut replies = self.client.run(batch)?;
        slots.into_iter().try_for_each(|slot| replies.take_watch(slot).map(drop))
    }

    fn run(&mut self, notices: &Sender<Result<(), OperationError>>) -> Result<(), OperationError> {
        loop {
            self.follow_backends()?;
            let quiet_until = Instant::now() + INTERVAL;
            if notices.send(Ok(())).is_err() {
                return Ok(());
            }
            let mut changed = false;
            loop {
                let left = quiet_until.saturating_duration_since(Instant::now());
                if left.is_zero() && changed {
                    break;
                }
                let wait = if changed { left } else { LONG };
                // The first event of a watch counts too: a server may have merged a change into it.
                changed |= self.client.next_event_any(wait)?.is_some();
            }
        }
    }

    /// Watches the backends there are now, and no others.
    fn follow_backends(&mut self) -> Result<(), OperationError> {
        let mut now = self.backends_now()?;
        now.truncate(BACKENDS_MAX);
        let gone: Vec<Path> =
            self.backends.keys().filter(|path| !now.contains(path)).cloned().collect();
        for path in gone {
            if let Some(watch) = self.backends.remove(&path) {
                self.client.unwatch(&watch)?;
            }
        }
        for path in now {
            if !self.backends.contains_key(&path) {
                let watch = self.client.watch(path.clone(), None)?;
                self.backends.insert(path, watch);
            }
        }
        Ok(())
    }

    /// Where the toolstack's tree says that the backends are; the frontends' word for it where there is no such tree.
    fn backends_now(&mut self) -> Result<Vec<Path>, OperationError> {
        for tree in toolstack(self.domid).into_iter().chain([Path::of_domain(self.domid)]) {
            let Ok(devices) = tree.join("device") else { continue };
            let kinds = self.children(&[devices])?;
            if kinds.is_empty() {
                continue;
            }
            let devices = self.children(&kinds)?;
            let mut batch = Batch::new();
            let slots: Vec<_> = devices
                .iter()
                .filter_map(|device| device.join("backend").ok())
                .map(|path| batch.read(path))
                .collect();
            let mut replies = self.client.run(batch)?;
            let mut backends = Vec::new();
            for slot in slots {
                let backend = optional(replies.take(slot))?;
                let backend = backend.and_then(|octets| Path::from_octets(&octets).ok());
                backends.extend(backend.filter(Path::is_absolute));
            }
            return Ok(backends);
        }
        Ok(Vec::new())
    }

    fn children(&mut self, of: &[Path]) -> Result<Vec<Path>, OperationError> {
        let mut batch = Batch::new();
        let slots: Vec<_> = of.iter().map(|path| (path, batch.directory(path.clone()))).collect();
        let mut replies = self.client.run(batch)?;
        let mut children = Vec::new();
        for (path, slot) in slots {
            let names: Vec<Name> = optional(replies.take(slot))?.unwrap_or_default();
            children.extend(names.iter().filter_map(|name| path.child(name).ok()));
        }
        Ok(children)
    }
}

/// What may be missing or refused: neither is a reason to stop watching the rest.
fn optional<T>(reply: Result<T, OperationError>) -> Result<Option<T>, OperationError> {
    match reply {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

fn toolstack(domid: DomId) -> Option<Path> {
    format!("/libxl/{domid}").parse().ok()
}

/// Tells of changes of the domain's files in libxl's directory. Where inotify cannot be had, a template's change is noticed
/// with the next change in Xenstore, which as a rule comes along with it.
fn watch_templates(domid: DomId, directory: &FsPath, notices: Sender<Result<(), OperationError>>) {
    let started = (|| {
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let changes = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        inotify::add_watch(&inotify, directory, changes)?;
        let wait = move || {
            let prefix = format!("userdata-d.{domid}.");
            let mut buffer = [MaybeUninit::uninit(); INOTIFY_OCTETS];
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        let name = event.file_name().map_or(&b""[..], CStr::to_bytes);
                        // A name may be missing if events were dropped.
                        let ours = name.is_empty() || name.starts_with(prefix.as_bytes());
                        if ours && notices.send(Ok(())).is_err() {
                            return;
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => {
                        tracing::warn!(%error, "templates are not watched any more");
                        return;
                    }
                }
            }
        };
        thread::Builder::new().name("templates".into()).spawn(wait)
    })();
    if let Err(error) = started {
        tracing::warn!(directory = %directory.display(), %error, "templates cannot be watched");
    }
}
