//! Who waits for something of a session, and is woken when there may be some.

use std::collections::BTreeMap;
use std::task::Waker;

use xenstore_proto::Token;

use crate::session::{ExchangeId, Serial};

/// What somebody waits for.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "tokio"),
    expect(dead_code, reason = "a blocking client looks at everything after each step")
)]
pub(crate) enum WaitFor {
    /// That all requests of an exchange are answered.
    Exchange(ExchangeId),
    /// An event of one watch.
    EventOf(Token, Serial),
    /// An event of any watch.
    AnyEvent,
    /// Nothing but the deadline.
    Time,
}

/// Wakers of those who wait for one thing. Who waits for what goes away is woken too.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    wakers: BTreeMap<u64, Waker>,
    #[cfg(feature = "tokio")]
    last_key: u64,
}

impl Waiters {
    pub(crate) fn wake_all(&mut self) {
        for (_, waker) in std::mem::take(&mut self.wakers) {
            waker.wake();
        }
    }

    /// Notes or renews a waker, and gives the key under which it stands.
    #[cfg(feature = "tokio")]
    pub(crate) fn register(&mut self, key: Option<u64>, waker: &Waker) -> u64 {
        let key = key.unwrap_or_else(|| {
            self.last_key += 1;
            self.last_key
        });
        self.wakers.entry(key).or_insert_with(|| waker.clone()).clone_from(waker);
        key
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn forget(&mut self, key: u64) {
        self.wakers.remove(&key);
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        self.wake_all();
    }
}
