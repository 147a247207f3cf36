//! Metrics for whoever connects to a Unix socket.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::Shutdown;

use crate::embedded::Embedded;
use crate::listen::{ServeError, listen};

/// How long a client may take with its request, and with what it reads.
const CLIENT_LIMIT: Duration = Duration::from_secs(2);

/// Most octets of a request that are looked at.
const REQUEST_MAX: usize = 8 << 10;

const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A Unix socket that answers with [`Server::metrics`](crate::Server::metrics): an HTTP request with an HTTP response,
/// anything else, also nothing (the client shuts its writing end down), with the bare text. One client after the other.
/// Stopping or dropping it removes the socket.
#[derive(Debug)]
pub struct MetricsServer {
    path: PathBuf,
    listener: Arc<UnixListener>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsServer {
    pub(crate) fn start(embedded: Embedded, path: &FsPath) -> Result<Self, ServeError> {
        let failed =
            |action| move |source| ServeError::Io { action, path: path.to_owned(), source };
        let listener = listen(path)?;
        listener.set_nonblocking(false).map_err(failed("wait on"))?;
        let listener = Arc::new(listener);
        let accepting = Arc::clone(&listener);
        let run = move || {
            // Shut down, it accepts nobody any more.
            while let Ok((stream, _)) = accepting.accept() {
                if let Err(error) = answer(&embedded, stream) {
                    tracing::debug!(%error, "metrics not delivered");
                }
            }
        };
        let thread = thread::Builder::new().name("xenstored metrics".into()).spawn(run);
        let thread = Some(thread.map_err(failed("serve"))?);
        Ok(Self { path: path.to_owned(), listener, thread })
    }

    /// Where the socket is.
    pub fn path(&self) -> &FsPath {
        &self.path
    }

    /// Removes the socket, and returns when nobody is served any more.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for MetricsServer {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "socket not removed");
        }
        let ended = rustix::net::shutdown(&self.listener, Shutdown::Both);
        if let (Ok(()), Some(thread)) = (ended, self.thread.take()) {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
    }
}

fn answer(embedded: &Embedded, mut stream: UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(CLIENT_LIMIT))?;
    stream.set_write_timeout(Some(CLIENT_LIMIT))?;
    let mut request = Vec::new();
    let mut part = [0; 1024];
    while request.len() < REQUEST_MAX && !request.windows(4).any(|end| end == END_OF_HEAD) {
        match stream.read(&mut part)? {
            0 => break,
            len => request.extend_from_slice(&part[..len]),
        }
    }
    let metrics = embedded.with(|server| server.metrics());
    if request.windows(5).any(|word| word == b"HTTP/") {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n",
            metrics.len()
        )?;
    }
    stream.write_all(metrics.as_bytes())
}
