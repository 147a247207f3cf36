//! Just enough of the wire protocol to fill a store and to see that a daemon answers.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{ListedNode, ListingError};

/// Filling a store failed; what was written before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FillError {
    /// The text to fill the store from is none of `xenstore-ls -fp`.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// No server at the socket.
    #[error("cannot connect to {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, the server was silent for too long, or it spoke another protocol.
    #[error("the connection to {} failed while nodes were written", socket.display())]
    Connection {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server refused a request.
    #[error("cannot {operation} {path}: {errno}")]
    Refused {
        /// `write` or `set the permissions of`.
        operation: &'static str,
        /// The node.
        path: String,
        /// The error's name on the wire, such as `EINVAL`.
        errno: String,
    },
}

const CONTROL: u32 = 0;
const DIRECTORY: u32 = 1;
const WRITE: u32 = 11;
const SET_PERMS: u32 = 14;
const ERROR: u32 = 16;

const HEADER: usize = 16;

/// For a single send or receive: a daemon on a busy machine answers within milliseconds.
const SILENCE_LIMIT: Duration = Duration::from_secs(10);
/// Requests on their way at a time. The replies to them, 19 octets each, fit into the socket's buffer, so that the
/// daemon never waits for this side.
const WINDOW: usize = 256;
/// A directory of oxenstored 4.17 may be larger than the protocol's 4096; the replies awaited here are not.
const REPLY_LIMIT: usize = 64 * 1024;

/// Writes the nodes in order.
pub(crate) fn fill(socket: &Path, nodes: &[ListedNode]) -> Result<(), FillError> {
    let mut connection = Connection::open(socket, SILENCE_LIMIT)
        .map_err(|source| FillError::Connect { socket: socket.into(), source })?;
    let broken = |source| FillError::Connection { socket: socket.into(), source };
    let mut awaited = VecDeque::with_capacity(WINDOW);
    for window in nodes.chunks(WINDOW / 2) {
        let mut batch = Vec::new();
        for node in window {
            let path = node.path();
            append(&mut batch, WRITE, &[path.as_bytes(), b"\0", node.value()]).map_err(broken)?;
            awaited.push_back((WRITE, path));
            let permissions = format!("{path}\0{}\0", node.permissions().join("\0"));
            append(&mut batch, SET_PERMS, &[permissions.as_bytes()]).map_err(broken)?;
            awaited.push_back((SET_PERMS, path));
        }
        connection.stream.write_all(&batch).map_err(broken)?;
        while let Some((request, path)) = awaited.pop_front() {
            let (reply, payload) = connection.receive().map_err(broken)?;
            if reply == ERROR {
                let operation = if request == WRITE { "write" } else { "set the permissions of" };
                let errno = payload.strip_suffix(b"\0").unwrap_or(&payload);
                let errno = String::from_utf8_lossy(errno).into_owned();
                return Err(FillError::Refused { operation, path: path.to_owned(), errno });
            }
            if reply != request {
                return Err(broken(io::Error::from(io::ErrorKind::InvalidData)));
            }
        }
    }
    Ok(())
}

/// Asks the server for its top-level nodes, and waits for each part of the reply for at most `limit`.
pub(crate) fn check_answer(socket: &Path, limit: Duration) -> io::Result<()> {
    let mut connection = Connection::open(socket, limit)?;
    let mut request = Vec::new();
    append(&mut request, DIRECTORY, &[b"/\0"])?;
    connection.stream.write_all(&request)?;
    match connection.receive()? {
        (DIRECTORY, _) => Ok(()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// A connection that gives the daemon orders, as `xenstore-control` does.
pub(crate) struct Control(Connection);

impl Control {
    pub(crate) fn open(socket: &Path) -> io::Result<Control> {
        Ok(Control(Connection::open(socket, SILENCE_LIMIT)?))
    }

    /// Sends a command with its arguments.
    pub(crate) fn send(&mut self, command: &[&[u8]]) -> io::Result<()> {
        let mut payload = command.join(&0);
        payload.push(0);
        let mut request = Vec::new();
        append(&mut request, CONTROL, &[&payload])?;
        self.0.stream.write_all(&request)
    }

    /// The text that the daemon answers with; the name of an errno is one, too.
    pub(crate) fn answer(&mut self) -> io::Result<String> {
        match self.0.receive()? {
            (CONTROL | ERROR, answer) => {
                Ok(String::from_utf8_lossy(answer.strip_suffix(b"\0").unwrap_or(&answer)).into())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.stream.as_fd()
    }
}

struct Connection {
    stream: UnixStream,
    input: io::BufReader<UnixStream>,
}

impl Connection {
    fn open(socket: &Path, limit: Duration) -> io::Result<Connection> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        let input = io::BufReader::new(stream.try_clone()?);
        Ok(Connection { stream, input })
    }

    /// The next message's type and payload.
    fn receive(&mut self) -> io::Result<(u32, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.input.read_exact(&mut header)?;
        let word = |index: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&header[4 * index..][..4]);
            u32::from_ne_bytes(word)
        };
        let length = usize::try_from(word(3)).unwrap_or(usize::MAX);
        if length > REPLY_LIMIT {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = vec![0; length];
        self.input.read_exact(&mut payload)?;
        Ok((word(0), payload))
    }
}

/// Appends a request outside of transactions. Replies come in the order of the requests, so all have the id 0.
fn append(batch: &mut Vec<u8>, request: u32, payload: &[&[u8]]) -> io::Result<()> {
    let length: usize = payload.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    for word in [request, 0, 0, length] {
        batch.extend(word.to_ne_bytes());
    }
    payload.iter().for_each(|part| batch.extend(*part));
    Ok(())
}
