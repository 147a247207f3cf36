//! Both ends of devices, played by a thread that follows the state machine by watch: for tests where there is no Xen.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use xsclient::{Client, Commit, DomId, Nodes, OperationError, Path};

use super::place::{fixed, under};

/// How the ends behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether backends begin with a device at all.
    pub backends: bool,
    /// What the guests do.
    pub guest: Guest,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { backends: true, guest: Guest::Connects }
    }
}

/// What a guest does with its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It connects to what comes and lets go what is to go.
    Connects,
    /// It has no driver.
    Absent,
    /// It connects, and does not let go.
    Holds,
}

/// The thread. Dropping it ends it.
pub struct Ends {
    stop: Arc<AtomicBool>,
    behaviour: Arc<Mutex<Behaviour>>,
    thread: Option<JoinHandle<()>>,
}

/// How long the thread waits for an event before it looks whether it is to end, or to behave otherwise.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Ends {
    /// Plays the ends of all devices in the Xenstore of this client.
    pub fn play(mut client: Client, behaviour: Behaviour) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (stopped, behaving) = (Arc::clone(&stop), Arc::clone(&behaviour));
        let thread = std::thread::spawn(move || {
            let Ok(watch) = client.watch(fixed("/local/domain"), None) else { return };
            let mut before = None;
            while !stopped.load(Ordering::Relaxed) {
                let event = client.next_event(&watch, LOOK_AGAIN);
                let current = || behaving.lock().unwrap_or_else(PoisonError::into_inner);
                match event {
                    Ok(None) if before == Some(*current()) => continue,
                    Ok(_) => {}
                    Err(_) => return,
                }
                loop {
                    // Held for the whole round, so that nobody behaves as before once `behave` has returned.
                    let now = current();
                    before = Some(*now);
                    match round(&mut client, *now) {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(error) if error.is_lost() => return,
                        // Somebody removes what is being looked at.
                        Err(_) => break,
                    }
                }
            }
        });
        Self { stop, behaviour, thread: Some(thread) }
    }

    /// Behaves otherwise from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has failed its test already.
            let _ = thread.join();
        }
    }
}

/// One step for every device; `true` if any was taken.
fn round(client: &mut Client, behaviour: Behaviour) -> Result<bool, OperationError> {
    let mut moved = false;
    for (backend, frontend) in devices(client)? {
        moved |= step(client, &backend, &frontend, behaviour)?;
    }
    Ok(moved)
}

fn devices(client: &mut Client) -> Result<BTreeMap<Path, Path>, OperationError> {
    let mut devices = BTreeMap::new();
    let backends = fixed("/local/domain/0/backend");
    for kind in children(client, &backends)? {
        if !["vbd", "qdisk", "vif", "9pfs"].contains(&kind.as_str()) {
            continue;
        }
        let of_kind = under(&backends, &kind);
        for domid in children(client, &of_kind)? {
            if domid.parse::<DomId>().is_err() {
                continue;
            }
            let of_domain = under(&of_kind, &domid);
            for devid in children(client, &of_domain)? {
                let backend = under(&of_domain, &devid);
                let frontend = client.read_optional(&under(&backend, "frontend"))?;
                let frontend = frontend.and_then(|path| Path::from_octets(&path).ok());
                if let Some(frontend) = frontend {
                    devices.insert(backend, frontend);
                }
            }
        }
    }
    Ok(devices)
}

fn children(client: &mut Client, path: &Path) -> Result<Vec<String>, OperationError> {
    match client.directory(path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        names => Ok(names?.iter().map(|name| name.as_str().to_owned()).collect()),
    }
}

fn step(
    client: &mut Client,
    backend: &Path,
    frontend: &Path,
    behaviour: Behaviour,
) -> Result<bool, OperationError> {
    let mut number = |directory: &Path| -> Result<Option<u32>, OperationError> {
        let state = client.read_optional(&under(directory, "state"))?;
        Ok(state.and_then(|state| str::from_utf8(&state).ok()?.parse().ok()))
    };
    let (back, front) = (number(backend)?, number(frontend)?);
    let scripted = client.read_optional(&under(backend, "script"))?.is_some();
    let status = client.read_optional(&under(backend, "hotplug-status"))?;
    let online = client.read_optional(&under(backend, "online"))?.as_deref() != Some(b"0");
    let ready = !scripted || status.as_deref() == Some(b"connected");
    let guest_lives = behaviour.guest != Guest::Absent;
    let next = match (back, front) {
        (Some(1), _) if behaviour.backends => Some((backend, 2)),
        (Some(2 | 4), Some(1)) if guest_lives && online => Some((frontend, 3)),
        (Some(2), Some(3 | 4)) if ready && online => Some((backend, 4)),
        (Some(4), Some(3)) => Some((frontend, 4)),
        (Some(5), Some(3 | 4)) if behaviour.guest != Guest::Holds => Some((frontend, 6)),
        (Some(5), None | Some(1 | 6)) if behaviour.backends => Some((backend, 6)),
        _ => None,
    };
    let Some((end, state)) = next else { return Ok(false) };
    put_state(client, end, state)
}

/// Writes a state, unless the device goes meanwhile: a driver's node is not made again behind a removed device.
fn put_state(client: &mut Client, end: &Path, state: u32) -> Result<bool, OperationError> {
    let path = under(end, "state");
    let mut transaction = client.transaction()?;
    if transaction.read_optional(&path)?.is_none() {
        transaction.abort()?;
        return Ok(false);
    }
    transaction.write(&path, state.to_string().as_bytes())?;
    // After a conflict the next round looks again.
    Ok(matches!(transaction.commit()?, Commit::Committed | Commit::Conflict))
}
