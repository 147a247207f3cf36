//! Waiting for descriptors, with a deadline.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use xenstore_proto::{Interest, Readiness};

/// Waits until the descriptor can be read from or, if asked, written to; or until the deadline.
pub(super) fn wait(
    fd: BorrowedFd<'_>,
    interest: Interest,
    deadline: Instant,
) -> io::Result<Readiness> {
    let flags = match interest {
        Interest::Receive => PollFlags::IN,
        Interest::ReceiveOrSend => PollFlags::IN | PollFlags::OUT,
    };
    loop {
        let mut fds = [PollFd::from_borrowed_fd(fd, flags)];
        // A signal cuts a wait short; the rest of the time is then waited for.
        match poll(&mut fds, Some(&until(deadline))) {
            Ok(_) => {
                let found = fds[0].revents();
                let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
                return Ok(Readiness {
                    // Receiving then says what is wrong, after what is still there.
                    receive: found.intersects(PollFlags::IN | gone),
                    send: found.contains(PollFlags::OUT),
                });
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
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
