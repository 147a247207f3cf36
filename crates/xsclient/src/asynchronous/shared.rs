//! The session that all handles of a client share with the task that carries its connection.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::time::timeout_at;

use crate::carrier::Carrier;
use crate::error::ConnectionLost;
use crate::session::Session;
use crate::waiting::WaitFor;

/// A session, and how to wake the task that carries it. Nobody waits while it is locked.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    pub(super) driver: Option<Waker>,
    /// Whether any handle is left.
    pub(super) in_use: bool,
}

impl Shared {
    pub(super) fn new(session: Session) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { session, driver: None, in_use: true }) })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of a session is whole before anything in it can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the session, and lets what there is to send then be sent.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Session) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state.session);
        let has_output = state.session.connection.poll_transmit().is_some();
        let driver = state.driver.take_if(|_| has_output);
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }
}

/// What every handle of a client holds: the connection ends with the last of them.
#[derive(Debug)]
pub(super) struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self { shared })
    }

    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Session) -> R) -> R {
        self.shared.with(act)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.in_use = false;
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Carrier for &Handle {
    fn with<R>(&mut self, act: impl FnOnce(&mut Session) -> R) -> R {
        self.shared.with(act)
    }

    async fn wait_for<R: Send>(
        &mut self,
        on: WaitFor,
        deadline: Instant,
        mut check: impl FnMut(&mut Session) -> Option<R> + Send,
    ) -> Result<Option<R>, ConnectionLost> {
        let mut waiting = Waiting { shared: &self.shared, on, key: None };
        let found = poll_fn(|context| waiting.poll(context, &mut check));
        match timeout_at(deadline.into(), found).await {
            Ok(found) => found.map(Some),
            Err(_deadline_passed) => Ok(None),
        }
    }
}

/// Somebody who waits for something of the session. Dropped, it leaves nothing there.
struct Waiting<'s> {
    shared: &'s Shared,
    on: WaitFor,
    key: Option<u64>,
}

impl Waiting<'_> {
    fn poll<R>(
        &mut self,
        context: &Context<'_>,
        check: &mut impl FnMut(&mut Session) -> Option<R>,
    ) -> Poll<Result<R, ConnectionLost>> {
        self.shared.with(|session| {
            if let Some(found) = check(session) {
                return Poll::Ready(Ok(found));
            }
            session.check()?;
            if let Some(waiters) = session.waiters(&self.on) {
                self.key = Some(waiters.register(self.key, context.waker()));
            }
            Poll::Pending
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let waiter = |session: &mut Session| session.waiters(&self.on).map(|all| all.forget(key));
        self.shared.with(waiter);
    }
}
