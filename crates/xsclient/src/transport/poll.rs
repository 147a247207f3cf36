//! Waiting for descriptors, with a deadline.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What was found at a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Octets, the end, or an error that receiving will say.
    pub(super) input: bool,
    /// Room to send.
    pub(super) room: bool,
}

/// Waits until one of the descriptors can be read from or, where asked, written to; or until the deadline.
pub(super) fn wait<const N: usize>(
    descriptors: [(BorrowedFd<'_>, PollFlags); N],
    deadline: Instant,
) -> io::Result<[Found; N]> {
    let mut fds = descriptors.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags));
    // A signal cuts a wait short; the rest of the time is then waited for.
    while let Err(error) = poll(&mut fds, Some(&until(deadline))) {
        if error != rustix::io::Errno::INTR {
            return Err(error.into());
        }
    }
    let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
    Ok(fds.map(|fd| Found {
        input: fd.revents().intersects(PollFlags::IN | gone),
        room: fd.revents().contains(PollFlags::OUT),
    }))
}

/// The time from now to the deadline; none if it has passed.
fn until(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec {
        // Longer than the universe is old is as good as this long.
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    }
}
