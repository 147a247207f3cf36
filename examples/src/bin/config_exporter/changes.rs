//! Waits until a configuration may have changed: watches on Xenstore, and inotify on the templates.

use std::error::Error;
use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::path::Path as FilePath;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use xsclient::{Client, Event, PathOrSpecial};

/// What comes within this time after a change belongs to it: creating a domain is hundreds of them. It also bounds what a guest
/// that writes without a pause can cost.
const TOGETHER: Duration = Duration::from_millis(200);

/// How long one wait for an event lasts. Nothing ends with it; it only has to be some time.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What domains have in `/local/domain/DOMID` that a configuration is made of. Guests write to the rest all the time.
const KEYS: [&str; 6] = ["name", "vm", "memory", "cpu", "device", "backend"];

/// Changes of Xenstore and of the templates, each told by a thread that waits for them.
pub(crate) struct Changes {
    notices: Receiver<Result<(), String>>,
}

impl Changes {
    /// Watches from now on.
    pub(crate) fn watch(mut client: Client, templates: &FilePath) -> Result<Self, Box<dyn Error>> {
        // A notice that waits says all that another one would.
        let (sender, notices) = sync_channel(1);
        for path in ["/local/domain", "/libxl", "/vm", "@introduceDomain", "@releaseDomain"] {
            client.watch(PathOrSpecial::from_octets(path.as_bytes())?, None)?;
        }
        let inotify = inotify::init(CreateFlags::CLOEXEC)?;
        let written = WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE | WatchFlags::DELETE;
        inotify::add_watch(&inotify, templates, written)?;

        let of_templates = sender.clone();
        thread::spawn(move || {
            let mut buffer = [MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(inotify, &mut buffer);
            tell(&of_templates, || match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map_or(&b""[..], CStr::to_bytes);
                    // Without a name events were dropped, and any of them may have mattered.
                    Ok(name.is_empty() || name.starts_with(b"userdata-"))
                }
                Err(Errno::INTR) => Ok(false),
                Err(error) => Err(format!("templates: {}", io::Error::from(error))),
            });
        });
        thread::spawn(move || {
            tell(&sender, || match client.next_event_any(LONG) {
                Ok(event) => Ok(event.is_some_and(|event| matters(&event))),
                Err(error) => Err(format!("Xenstore: {error}")),
            });
        });
        Ok(Self { notices })
    }

    /// Waits for the next change, and for what comes together with it.
    pub(crate) fn wait(&self) -> Result<(), Box<dyn Error>> {
        self.notices.recv()??;
        let end = Instant::now() + TOGETHER;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // What waits by now is for the next time.
                return Ok(());
            }
            match self.notices.recv_timeout(left) {
                Ok(notice) => notice?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(error @ RecvTimeoutError::Disconnected) => return Err(error.into()),
            }
        }
    }
}

/// Tells of what matters, until there is nothing more to tell, which somebody has to know, or nobody listens.
fn tell(to: &SyncSender<Result<(), String>>, mut next: impl FnMut() -> Result<bool, String>) {
    loop {
        match next() {
            Ok(false) => {}
            Ok(true) => match to.try_send(Ok(())) {
                Ok(()) | Err(TrySendError::Full(_)) => {}
                Err(TrySendError::Disconnected(_)) => return,
            },
            Err(error) => {
                // If nobody listens any more, nobody has to know.
                let _ = to.send(Err(error));
                return;
            }
        }
    }
}

fn matters(event: &Event) -> bool {
    if event.lost_before {
        return true;
    }
    match event.path.as_str().strip_prefix("/local/domain/") {
        // `DOMID` alone comes or goes; else its first key decides.
        Some(below) => below.split('/').nth(1).is_none_or(|key| KEYS.contains(&key)),
        None => true,
    }
}
