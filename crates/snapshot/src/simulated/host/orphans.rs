//! Calls whose client has died: what was not begun is not begun any more, and what was is waited for by who looks for it.
//!
//! libxl works in the process of its caller, so that it ends with that. A request to this host may be on its way for a moment
//! longer, in which a guardian or a recovery would look at the domains too early.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::CancelToken;

/// All calls that are not done.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Mutex<Open>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    /// The clients of calls that may change something yet which nobody can see.
    clients: BTreeMap<u64, UnixStream>,
}

/// One call, from the moment that its client was accepted.
#[derive(Debug)]
pub(super) struct OpenCall {
    calls: Arc<Calls>,
    number: u64,
    client: UnixStream,
}

impl Calls {
    pub(super) fn accepted(self: &Arc<Self>, client: &UnixStream) -> io::Result<OpenCall> {
        let (client, listed) = (client.try_clone()?, client.try_clone()?);
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.clients.insert(number, listed);
        Ok(OpenCall { calls: Arc::clone(self), number, client })
    }

    /// Waits until no call of a dead client can change anything any more that cannot be seen; `false` if cancelled.
    pub(super) fn settle(&self, cancel: &CancelToken) -> bool {
        let mut open = self.lock();
        while open.clients.values().any(is_gone) {
            if cancel.is_cancelled() {
                return false;
            }
            open = self.changed.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Wakes whoever waits, since something was cancelled.
    pub(super) fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenCall {
    /// All that it does from here on can be seen.
    pub(super) fn shows(&self) {
        self.calls.lock().clients.remove(&self.number);
        self.calls.changed.notify_all();
    }

    pub(super) fn is_orphaned(&self) -> bool {
        is_gone(&self.client)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.shows();
    }
}

fn is_gone(client: &UnixStream) -> bool {
    let mut fds = [PollFd::new(client, PollFlags::empty())];
    // One that cannot be looked at has nobody who waits for an answer either.
    poll(&mut fds, Some(&Timespec::default())).is_err() || fds[0].revents().contains(PollFlags::HUP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_whose_client_is_gone_is_waited_for_until_it_is_done_or_shows() {
        let calls = Arc::new(Calls::default());
        let token = CancelToken::new().unwrap();
        let (client, host) = UnixStream::pair().unwrap();
        let call = calls.accepted(&host).unwrap();
        assert!(calls.settle(&token) && !call.is_orphaned(), "its client lives");
        drop(client);
        assert!(call.is_orphaned());
        let waits = Arc::clone(&calls);
        let waiter = std::thread::spawn(move || waits.settle(&CancelToken::new().unwrap()));
        token.cancel();
        assert!(!calls.settle(&token), "it is not done");
        call.shows();
        assert!(waiter.join().unwrap());
        assert!(calls.settle(&token));
    }
}
