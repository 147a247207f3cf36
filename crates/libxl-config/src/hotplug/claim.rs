//! Claims: which process is plugging a device right now, so that nobody mends what is still being made.
//!
//! A claim is a node below `/libxl/DOMID/domkeep`, which libxl does not look at and removes with the domain. It names the
//! process by its number, the time it was started at, its pid namespace and its boot; a claim whose process is gone counts
//! for nothing. xl leaves no claims: for it, the running script is looked for.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;
use xsclient::{Client, Commit, DomId, Nodes, OperationError, Path, Transaction};

use super::place::{Place, fixed, kind_of, under};
use super::{ATTEMPTS_MAX, DeviceId, wait};
use crate::retrieve::DeviceClass;

/// How long a claim is waited for before it is looked again whether its process still lives: Xenstore does not tell.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// Who is plugging a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Claim {
    /// What it is doing: `attach`, `detach`, `repair`.
    pub operation: String,
    /// The number of the process.
    pub pid: u32,
    /// Whether that process still lives.
    pub holder: ClaimHolder,
}

/// Whether the process that made a claim still lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClaimHolder {
    /// It does.
    Alive,
    /// It is gone: what it was doing was left half done.
    Gone,
    /// It is in another container or on another host, so that nobody can tell here.
    Unseen,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by process {}", self.operation, self.pid)?;
        match self.holder {
            ClaimHolder::Alive => Ok(()),
            ClaimHolder::Gone => f.write_str(", which is gone"),
            ClaimHolder::Unseen => f.write_str(", of another container or host"),
        }
    }
}

/// The claims on devices of a domain, in no particular order.
pub(super) fn all(
    client: &mut Client,
    domid: DomId,
) -> Result<Vec<(DeviceId, Claim)>, OperationError> {
    let directory = directory(domid);
    let names = match client.directory(&directory) {
        Err(error) if error.is_not_found() => Vec::new(),
        names => names?,
    };
    let mut claims = Vec::new();
    for name in names {
        let id = name.as_str().rsplit_once('-').and_then(|(kind, devid)| {
            let classes = [DeviceClass::Disk, DeviceClass::Nic, DeviceClass::P9];
            let class = classes.into_iter().find(|class| kind_of(*class) == kind)?;
            DeviceId::new(class, devid.parse().ok()?)
        });
        let Some(id) = id else { continue };
        if let Some(value) = client.read_optional(&path_of(domid, id))? {
            claims.push((id, Mark::parse(&value).claim()));
        }
    }
    Ok(claims)
}

/// A claim of this process on one device.
#[derive(Debug)]
pub(super) struct Claimed {
    path: Path,
    mark: String,
}

/// Why a device was not claimed.
pub(super) enum NotClaimed {
    /// Somebody else has it.
    By(Claim),
    Xenstore(OperationError),
}

impl From<OperationError> for NotClaimed {
    fn from(error: OperationError) -> Self {
        Self::Xenstore(error)
    }
}

impl Claimed {
    pub(super) fn new(domid: DomId, id: DeviceId, operation: &str) -> Self {
        Self { path: path_of(domid, id), mark: Mark::of_this_process(operation).to_string() }
    }

    /// Puts the claim into a transaction, unless a process that is not gone has one.
    pub(super) fn put(&self, transaction: &mut Transaction<'_>) -> Result<(), NotClaimed> {
        if let Some(value) = transaction.read_optional(&self.path)? {
            let claim = Mark::parse(&value).claim();
            if claim.holder != ClaimHolder::Gone && value != self.mark.as_bytes() {
                return Err(NotClaimed::By(claim));
            }
        }
        Ok(transaction.write(&self.path, self.mark.as_bytes())?)
    }

    /// Whether the claim still is this one.
    pub(super) fn stands(&self, nodes: &mut dyn Nodes) -> Result<bool, OperationError> {
        Ok(nodes.read_optional(&self.path)?.as_deref() == Some(self.mark.as_bytes()))
    }

    /// Takes the claim out in a transaction, if it is this one.
    pub(super) fn take_out(&self, transaction: &mut Transaction<'_>) -> Result<(), OperationError> {
        if self.stands(transaction)? {
            transaction.rm(&self.path)?;
            let directory = self.path.parent().unwrap_or_else(Path::root);
            if transaction.directory(&directory)?.is_empty() {
                transaction.rm(&directory)?;
            }
        }
        Ok(())
    }

    /// Takes the claim out. One that stays behind names a process that will be gone, and is then worth nothing.
    pub(super) fn release(&self, client: &mut Client) {
        for _ in 0..ATTEMPTS_MAX {
            match self.release_once(client) {
                Ok(Commit::Committed) => return,
                Ok(Commit::Conflict) => {}
                Err(error) => {
                    tracing::warn!(%error, path = %self.path, "a claim was not taken back");
                    return;
                }
            }
        }
        tracing::warn!(path = %self.path, "a claim was not taken back: changed in every attempt");
    }

    fn release_once(&self, client: &mut Client) -> Result<Commit, OperationError> {
        let mut transaction = client.transaction()?;
        self.take_out(&mut transaction)?;
        transaction.commit()
    }
}

/// Waits until nobody who is not gone has a claim on the device; gives the claim that stands at the deadline.
pub(super) fn await_free(
    client: &mut Client,
    domid: DomId,
    id: DeviceId,
    deadline: Instant,
) -> Result<Option<Claim>, OperationError> {
    let path = path_of(domid, id);
    loop {
        let until = deadline.min(Instant::now() + LIVENESS_INTERVAL);
        let mut last = None;
        let free = wait::until(client, &path, until, |client| {
            let value = client.read_optional(&path)?;
            last = value.map(|value| Mark::parse(&value).claim());
            let is_taken = last.as_ref().is_some_and(|claim| claim.holder != ClaimHolder::Gone);
            Ok((!is_taken).then_some(()))
        })?;
        if free.is_some() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Ok(last);
        }
    }
}

fn directory(domid: DomId) -> Path {
    fixed(&format!("/libxl/{domid}/domkeep"))
}

pub(super) fn path_of(domid: DomId, id: DeviceId) -> Path {
    under(&directory(domid), &format!("{}-{}", kind_of(id.class), id.devid))
}

/// What a claim's node holds: words and numbers, with a space between.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    operation: String,
    pid: u32,
    started: u64,
    namespace: u64,
    boot: String,
    /// Tells claims of one process apart.
    number: u64,
}

impl Mark {
    fn of_this_process(operation: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let pid = std::process::id();
        Self {
            operation: operation.to_owned(),
            pid,
            started: started(pid).ok().flatten().unwrap_or_default(),
            namespace: namespace(),
            boot: boot(),
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// A text that is no claim is one of nobody who could be seen.
    fn parse(value: &[u8]) -> Self {
        let text = String::from_utf8_lossy(value);
        let words: Vec<&str> = text.split(' ').collect();
        let parsed = || {
            let [operation, pid, started, namespace, boot, number] = words[..] else { return None };
            Some(Self {
                operation: operation.to_owned(),
                pid: pid.parse().ok()?,
                started: started.parse().ok()?,
                namespace: namespace.parse().ok()?,
                boot: boot.to_owned(),
                number: number.parse().ok()?,
            })
        };
        parsed().unwrap_or_else(|| Self {
            operation: "unknown".to_owned(),
            pid: 0,
            started: 0,
            namespace: 0,
            boot: String::new(),
            number: 0,
        })
    }

    fn claim(&self) -> Claim {
        Claim { operation: self.operation.clone(), pid: self.pid, holder: self.holder() }
    }

    fn holder(&self) -> ClaimHolder {
        if self.boot != boot() || self.namespace != namespace() {
            return ClaimHolder::Unseen;
        }
        match started(self.pid) {
            Ok(Some(started)) if started == self.started => ClaimHolder::Alive,
            Ok(_) => ClaimHolder::Gone,
            Err(_) => ClaimHolder::Unseen,
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operation, pid, started, namespace, boot, number } = self;
        write!(f, "{operation} {pid} {started} {namespace} {boot} {number}")
    }
}

/// When a process was started, in ticks since the boot; `None` if there is none, or only what is left of it.
fn started(pid: u32) -> io::Result<Option<u64>> {
    let stat = match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        stat => stat?,
    };
    // The second field is the program's name in parentheses, which may hold anything.
    let mut fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
    let state = fields.as_mut().and_then(Iterator::next);
    if matches!(state, Some("Z" | "X")) {
        return Ok(None);
    }
    // Field 22 of all, the third being the state.
    Ok(fields.and_then(|mut rest| rest.nth(18)).and_then(|field| field.parse().ok()))
}

fn namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map(|metadata| metadata.ino()).unwrap_or_default()
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|boot| boot.trim().to_owned())
        .unwrap_or_default()
}

/// Whether a process with this number runs here.
pub(super) fn is_running(pid: u32) -> bool {
    !matches!(started(pid), Ok(None))
}

/// Waits until no hotplug script of this device runs any more; gives the number of one that still does at the deadline.
///
/// A script outlives whoever started it, be it Domkeep or xl; its environment says which device it is for.
pub(super) fn await_scripts(place: &Place, deadline: Instant) -> io::Result<Option<u32>> {
    loop {
        let Some(pid) = script_of(place)? else { return Ok(None) };
        let Some(raw) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else { continue };
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(Some(pid)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A process whose environment says that it plugs this device. Those that may not be looked at are others' own.
fn script_of(place: &Place) -> io::Result<Option<u32>> {
    let wanted = format!("XENBUS_PATH={}", place.script_path());
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if pid == std::process::id() || !is_running(pid) {
            continue;
        }
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        if environment.split(|octet| *octet == 0).any(|entry| entry == wanted.as_bytes()) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_lives_as_long_as_its_process() {
        let mark = Mark::of_this_process("attach");
        assert_eq!(Mark::parse(mark.to_string().as_bytes()), mark);
        assert_eq!(mark.holder(), ClaimHolder::Alive);
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        child.wait().unwrap();
        let pid = child.id();
        assert_eq!(Mark { pid, ..mark.clone() }.holder(), ClaimHolder::Gone);
        let later = Mark { started: mark.started + 1, ..mark.clone() };
        assert_eq!(later.holder(), ClaimHolder::Gone, "its number was given to another");
        assert_eq!(Mark { boot: "other".into(), ..mark.clone() }.holder(), ClaimHolder::Unseen);
        assert_eq!(Mark { namespace: 1, ..mark }.holder(), ClaimHolder::Unseen);
    }

    #[test]
    fn a_dead_process_that_nobody_has_buried_holds_nothing() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        assert_eq!(started(child.id()).unwrap(), None);
        child.wait().unwrap();
    }

    #[test]
    fn what_is_no_claim_is_nobodys_who_could_be_seen() {
        for value in [&b""[..], b"attach 1", b"\xff", b"attach x 1 1 b 1"] {
            assert_eq!(Mark::parse(value).claim().holder, ClaimHolder::Unseen, "{value:?}");
        }
    }
}
