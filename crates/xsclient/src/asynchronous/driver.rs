//! The task that carries a connection's octets.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::net::UnixStream;

use super::shared::Shared;
use crate::error::ConnectionLost;
use crate::link::Octets;
use crate::transport::send_quietly;

/// Sends what there is to send and hands out what comes, until no handle is left or the connection is lost.
///
/// It is the only one that touches the socket, and it holds nothing that a caller waits for: a caller that goes away leaves
/// it as it is.
pub(super) struct Driver {
    shared: Arc<Shared>,
    socket: UnixStream,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, socket: UnixStream) -> Self {
        Self { shared, socket }
    }

    /// Sends what the socket takes. This task is woken when it takes more, and when there is more.
    fn send(&self, context: &mut Context<'_>) -> Result<(), ConnectionLost> {
        loop {
            let mut state = self.shared.lock();
            // Before looking for output: whoever adds some from now on wakes this task.
            state.driver = Some(context.waker().clone());
            if state.session.connection.poll_transmit().is_none() {
                return Ok(());
            }
            match self.socket.poll_write_ready(context) {
                Poll::Pending => return Ok(()),
                Poll::Ready(ready) => ready?,
            }
            state.session.flush(&mut Ready(&self.socket))?;
        }
    }

    /// Receives once. Pending, when there is nothing.
    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Result<(), ConnectionLost>> {
        // The runtime makes this pending now and then, so that a server which never stops does not keep other tasks waiting.
        match self.socket.poll_read_ready(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(ready) => ready?,
        }
        self.shared.lock().session.receive(&mut Ready(&self.socket))?;
        Poll::Ready(Ok(()))
    }
}

/// A socket to which octets are given, or from which they are taken, while it is ready; the runtime notes when it is not.
struct Ready<'s>(&'s UnixStream);

impl Octets for Ready<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_io(Interest::WRITABLE, || send_quietly(self.0, octets))
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
            let turn = driver.send(context).map(|()| driver.poll_receive(context));
            match turn {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(()))) => {}
                Ok(Poll::Ready(Err(lost))) | Err(lost) => {
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
