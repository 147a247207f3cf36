//! The task that carries a connection's octets.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::unix::AsyncFd;

use super::shared::Shared;
use crate::error::ConnectionLost;
use crate::link::Received;
use crate::transport::UnixSocket;

/// Sends what there is to send and hands out what comes, until no handle is left or the connection is lost.
///
/// It is the only one that touches the socket, and it holds nothing that a caller waits for: a caller that goes away leaves
/// it as it is.
pub(super) struct Driver {
    shared: Arc<Shared>,
    socket: AsyncFd<UnixSocket>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, socket: AsyncFd<UnixSocket>) -> Self {
        Self { shared, socket }
    }

    fn send(&mut self, context: &mut Context<'_>) -> Result<(), ConnectionLost> {
        loop {
            let mut state = self.shared.lock();
            // Before looking for output: whoever adds some from now on wakes this task.
            state.driver = Some(context.waker().clone());
            if state.session.connection.poll_transmit().is_none() {
                return Ok(());
            }
            let mut ready = match self.socket.poll_write_ready_mut(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            };
            state.session.flush(ready.get_inner_mut())?;
            if state.session.connection.poll_transmit().is_some() {
                ready.clear_ready();
            }
        }
    }

    /// Receives once. Pending, when there is nothing.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        // The runtime makes this pending now and then, so that a server which never stops does not keep other tasks waiting.
        let mut ready = match self.socket.poll_read_ready_mut(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ready) => ready?,
        };
        let received = self.shared.lock().session.receive(ready.get_inner_mut())?;
        if received != Received::Full {
            ready.clear_ready();
        }
        Poll::Ready(Ok(()))
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        loop {
            if !driver.shared.lock().in_use {
                return Poll::Ready(());
            }
            let turn = match driver.send(context) {
                Ok(()) => driver.poll_receive(context),
                Err(lost) => Poll::Ready(Err(lost)),
            };
            match turn {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(lost)) => {
                    driver.shared.lock().session.lose(lost);
                    return Poll::Ready(());
                }
            }
        }
    }
}

impl Drop for Driver {
    /// Nobody is left waiting, also if the runtime ends before its tasks.
    fn drop(&mut self) {
        self.shared.lock().session.lose(ConnectionLost::RuntimeEnded);
    }
}
