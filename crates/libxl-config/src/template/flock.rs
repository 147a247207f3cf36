//! Waiting for a file lock (`flock`) until a deadline, and naming who holds it.
//!
//! The kernel has no `flock` with a timeout, and nothing that becomes readable when a file lock is released. A thread or
//! a child blocked in `flock` would outlive the deadline and could then take the lock with nobody there to release it.
//! So the lock is tried without blocking, and between tries this waits on an inotify watch of the lock file: unlinking
//! it and closing it, by which every holder releases, both wake the watch.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{self, FlockOperation, Stat, inotify},
};

use super::Holder;

/// First pause between two tries. A closing holder wakes the watch shortly before the kernel drops its lock.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// Longest pause between two tries. For what the watch cannot see: an explicit unlock of a file that stays open, a
/// network file system, or a user out of inotify instances. Ten tries a second cost nothing that could be measured.
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// How often the kernel's list is asked for a holder. It is read a page at a time, and loses lines when locks of others go
/// away between the pages.
const LISTINGS: usize = 5;

/// Room for a few dozen inotify events. What they say does not matter, and what does not fit wakes the next poll.
const EVENTS_LEN: usize = 1024;

/// What came of waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The lock is held.
    Acquired,
    /// The file has no name any more, so that its lock means nothing; nothing is held. Open the name again.
    Unlinked,
    /// The deadline passed while somebody else held the lock.
    TimedOut,
}

/// Takes a shared or exclusive lock on an open file; tries at least once.
pub(super) fn wait(file: &OwnedFd, exclusive: bool, deadline: Instant) -> io::Result<Wait> {
    let operation = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    if try_lock(file, operation)? {
        return Ok(Wait::Acquired);
    }
    // Watched before the next try: a release between that try and the wait is then not missed.
    let mut waiter = Waiter::new(file);
    loop {
        if try_lock(file, operation)? {
            return Ok(Wait::Acquired);
        }
        if fs::fstat(file)?.st_nlink == 0 {
            return Ok(Wait::Unlinked);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Wait::TimedOut);
        }
        waiter.pause(left)?;
    }
}

/// Who holds the lock on this file, by the kernel's own list.
pub(super) fn holder(file: &Stat) -> Holder {
    (0..LISTINGS).find_map(|_| listed_holder(file)).unwrap_or(Holder::Unknown)
}

fn listed_holder(file: &Stat) -> Option<Holder> {
    // One line for each lock in the system, about 50 octets; read from the kernel, not from a user.
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
    let inode = file.st_ino.to_string();
    let device = format!("{:02x}:{:02x}", fs::major(file.st_dev), fs::minor(file.st_dev));
    let holders = || locks.lines().filter_map(|line| parse_lock(line, &inode));
    // Some file systems report another device in stat than the one listed; the inode alone must then be unambiguous.
    let found = holders().find(|lock| lock.device == device).or_else(|| {
        let mut all = holders();
        all.next().filter(|_| all.next().is_none())
    })?;
    Some(match found.pid {
        pid if pid == std::process::id() => Holder::ThisProcess,
        // A process that this process's pid namespace does not show.
        0 => Holder::Unknown,
        pid => Holder::Process { pid, program: program(pid) },
    })
}

fn try_lock(file: &OwnedFd, operation: FlockOperation) -> io::Result<bool> {
    loop {
        match fs::flock(file, operation) {
            Ok(()) => return Ok(true),
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(false),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Pauses that end early when something happens to the file.
struct Waiter {
    watch: Option<OwnedFd>,
    pause: Duration,
}

impl Waiter {
    fn new(file: &OwnedFd) -> Self {
        Waiter { watch: watch(file).ok(), pause: FIRST_PAUSE }
    }

    fn pause(&mut self, left: Duration) -> io::Result<()> {
        let pause = Timespec::try_from(self.pause.min(left))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
        let mut polled =
            self.watch.iter().map(|watch| PollFd::new(watch, PollFlags::IN)).collect::<Vec<_>>();
        match poll(&mut polled, Some(&pause)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(watch) = &self.watch {
            let mut events = [0; EVENTS_LEN];
            // Not blocking; that there is nothing to read any more is as good as having read it.
            let _ = rustix::io::read(watch, &mut events);
            self.pause = FIRST_PAUSE;
        }
        Ok(())
    }
}

fn watch(file: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
    let what = inotify::WatchFlags::ATTRIB
        | inotify::WatchFlags::CLOSE_WRITE
        | inotify::WatchFlags::CLOSE_NOWRITE;
    inotify::add_watch(&watch, format!("/proc/self/fd/{}", file.as_raw_fd()), what)?;
    Ok(watch)
}

/// A held file lock in `/proc/locks`.
struct Listed<'l> {
    pid: u32,
    device: &'l str,
}

/// Reads a line such as `4: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`; waiters have `->` after the number.
fn parse_lock<'l>(line: &'l str, wanted_inode: &str) -> Option<Listed<'l>> {
    let mut fields = line.split_whitespace().skip(1);
    if fields.next()? != "FLOCK" {
        return None;
    }
    let pid = fields.nth(2)?.parse().ok()?;
    let (device, inode) = fields.next()?.rsplit_once(':')?;
    (inode == wanted_inode).then_some(Listed { pid, device })
}

fn program(pid: u32) -> Option<String> {
    let comm = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(comm.trim_ascii_end()).escape_debug().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_in_the_kernels_list_is_not_taken_for_the_holder() {
        let held = "1: FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF";
        let lock = parse_lock(held, "77").unwrap();
        assert_eq!((lock.pid, lock.device), (1234, "fe:00"));
        assert!(parse_lock(held, "7").is_none());
        assert!(parse_lock("1: -> FLOCK  ADVISORY  WRITE 1234 fe:00:77 0 EOF", "77").is_none());
        assert!(parse_lock("2: POSIX  ADVISORY  WRITE 1234 fe:00:77 0 EOF", "77").is_none());
        assert!(parse_lock("2: FLOCK", "77").is_none());
        assert!(parse_lock("", "77").is_none());
    }

    #[test]
    fn a_release_ends_the_wait_at_once_and_not_at_the_next_poll() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || OwnedFd::from(std::fs::File::open(file.path()).unwrap());
        let (held, waiter) = (open(), open());
        fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        assert_eq!(wait(&waiter, true, Instant::now()).unwrap(), Wait::TimedOut);
        assert_eq!(holder(&fs::fstat(&held).unwrap()), Holder::ThisProcess);
        let waiting = std::thread::spawn(move || {
            let outcome = wait(&waiter, false, Instant::now() + Duration::from_secs(20)).unwrap();
            (outcome, Instant::now())
        });
        std::thread::sleep(Duration::from_millis(330)); // by now the pauses are LAST_PAUSE long
        let released = Instant::now();
        drop(held);
        let (outcome, woken) = waiting.join().unwrap();
        assert_eq!(outcome, Wait::Acquired);
        assert!(
            woken.duration_since(released) < LAST_PAUSE,
            "{:?}",
            woken.duration_since(released)
        );
    }
}
