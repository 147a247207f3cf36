//! A connection to a QMP socket.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::message::{Greeting, Message};
use super::{BlockJob, CacheMode, LineDecoder, QmpEvent, QmpNode, QmpVersion, TransactionAction};

/// Most events that are kept for the caller. A guest whose disk fails can cause them without end.
const EVENTS_MAX: usize = 256;

/// A connection to a QMP socket, past the greeting.
///
/// One command at a time; each has a deadline. After an error other than [`QmpError::Refused`] the connection is of no use any more: an
/// answer that comes late would be taken for that of another command.
#[derive(Debug)]
pub struct QmpClient {
    stream: UnixStream,
    decoder: LineDecoder,
    events: VecDeque<QmpEvent>,
    version: QmpVersion,
    next_id: u64,
    broken: bool,
}

impl QmpClient {
    /// Connects and makes the connection ready for commands.
    ///
    /// # Errors
    ///
    /// See [`QmpError`]. QEMU serves one client of a socket at a time, and the others get no greeting: that ends in
    /// [`QmpError::TooSlow`].
    pub fn connect(socket: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let stream = connected(socket, deadline)
            .map_err(|source| QmpError::Connect { socket: socket.to_owned(), source })?;
        let version = QmpVersion { major: 0, minor: 0, micro: 0 };
        let mut client = Self {
            stream,
            decoder: LineDecoder::default(),
            events: VecDeque::new(),
            version,
            next_id: 0,
            broken: false,
        };
        let line = client.line("greeting", deadline)?;
        let greeting: Greeting = serde_json::from_slice(&line)
            .map_err(|source| QmpError::Malformed { command: "greeting", source })?;
        client.version = greeting.qmp.version.qemu;
        client.execute::<Value>("qmp_capabilities", &json!({}), deadline)?;
        Ok(client)
    }

    /// The version of QEMU.
    pub fn version(&self) -> QmpVersion {
        self.version
    }

    /// The process that listens on the socket, unless it has ended or cannot be named here. A toolstack may have opened the socket for
    /// QEMU: then this is the toolstack.
    pub fn listener(&self) -> Option<u32> {
        let pid = socket_peercred(&self.stream).ok()?.pid;
        u32::try_from(pid.as_raw_nonzero().get()).ok()
    }

    /// Takes the events that came so far; of very many, the last.
    pub fn take_events(&mut self) -> Vec<QmpEvent> {
        self.events.drain(..).collect()
    }

    /// Every node that has a name, each with what it rests on.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn nodes(&mut self, deadline: Instant) -> Result<Vec<QmpNode>, QmpError> {
        self.execute("query-named-block-nodes", &json!({}), deadline)
    }

    /// The block jobs that run.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn block_jobs(&mut self, deadline: Instant) -> Result<Vec<BlockJob>, QmpError> {
        self.execute("query-block-jobs", &json!({}), deadline)
    }

    /// Opens a qcow2 image for writing, without what it rests on: a transaction will put it over that.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn add_overlay(
        &mut self,
        node: &str,
        image: &str,
        cache: CacheMode,
        deadline: Instant,
    ) -> Result<(), QmpError> {
        let arguments = json!({
            "driver": "qcow2",
            "node-name": node,
            "cache": cache,
            "file": { "driver": "file", "filename": image, "cache": cache },
            "backing": null,
        });
        self.execute::<Value>("blockdev-add", &arguments, deadline).map(drop)
    }

    /// Closes a node that nobody uses.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn delete_node(&mut self, node: &str, deadline: Instant) -> Result<(), QmpError> {
        self.execute::<Value>("blockdev-del", &json!({ "node-name": node }), deadline).map(drop)
    }

    /// Does all actions or none.
    ///
    /// # Errors
    ///
    /// See [`QmpError`]. If it [is a refusal](QmpError::is_refusal), nothing was done; otherwise it may have been.
    pub fn transaction(
        &mut self,
        actions: &[TransactionAction],
        deadline: Instant,
    ) -> Result<(), QmpError> {
        let actions: Vec<_> = actions.iter().map(TransactionAction::to_json).collect();
        self.execute::<Value>("transaction", &json!({ "actions": actions }), deadline).map(drop)
    }

    /// Deletes the internal snapshot that has this id and this tag.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn delete_internal_snapshot(
        &mut self,
        node: &str,
        id: &str,
        tag: &str,
        deadline: Instant,
    ) -> Result<(), QmpError> {
        let arguments = json!({ "device": node, "id": id, "name": tag });
        self.execute::<Value>("blockdev-snapshot-delete-internal-sync", &arguments, deadline)
            .map(drop)
    }

    fn execute<T: DeserializeOwned>(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<T, QmpError> {
        if self.broken {
            return Err(QmpError::Closed { command });
        }
        let answer = self.answer(command, arguments, deadline);
        self.broken = matches!(&answer, Err(error) if !error.is_refusal());
        let value = answer?;
        serde_json::from_value(value).map_err(|source| QmpError::Malformed { command, source })
    }

    fn answer(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<Value, QmpError> {
        let own_id = json!(self.next_id);
        self.next_id += 1;
        let mut line =
            json!({ "execute": command, "arguments": arguments, "id": own_id }).to_string();
        line.push('\n');
        self.send(command, line.as_bytes(), deadline)?;
        loop {
            let line = self.line(command, deadline)?;
            let message = Message::parse(&line);
            match message.map_err(|source| QmpError::Malformed { command, source })? {
                Message::Event(event) => {
                    if self.events.len() == EVENTS_MAX {
                        self.events.pop_front();
                    }
                    self.events.push_back(event);
                }
                Message::Return { id, value } if id == own_id => return Ok(value),
                Message::Error { id, error } if id == own_id => {
                    return Err(QmpError::Refused {
                        command,
                        class: error.class,
                        desc: error.desc,
                    });
                }
                Message::Return { .. } | Message::Error { .. } => {
                    return Err(QmpError::OtherAnswer { command });
                }
            }
        }
    }

    fn send(
        &mut self,
        command: &'static str,
        mut octets: &[u8],
        deadline: Instant,
    ) -> Result<(), QmpError> {
        while !octets.is_empty() {
            match self.stream.write(octets) {
                Ok(0) => return Err(QmpError::Closed { command }),
                Ok(written) => octets = &octets[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(command, PollFlags::OUT, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(command, error)),
            }
        }
        Ok(())
    }

    fn line(&mut self, command: &'static str, deadline: Instant) -> Result<Vec<u8>, QmpError> {
        let mut piece = [0; 16 << 10];
        loop {
            let next = self.decoder.next_line();
            if let Some(line) = next.map_err(|_| QmpError::LineTooLong { command })? {
                return Ok(line);
            }
            match self.stream.read(&mut piece) {
                Ok(0) => return Err(QmpError::Closed { command }),
                Ok(read) => self.decoder.push(&piece[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(command, PollFlags::IN, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(lost(command, error)),
            }
            // A peer that never stops sending does not get around the deadline.
            if Instant::now() >= deadline {
                return Err(QmpError::TooSlow { command });
            }
        }
    }

    fn wait(
        &self,
        command: &'static str,
        flags: PollFlags,
        deadline: Instant,
    ) -> Result<(), QmpError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(QmpError::TooSlow { command });
            }
            match poll(&mut [PollFd::new(&self.stream, flags)], Some(&timespec(left))) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(lost(command, errno.into())),
            }
        }
    }
}

/// Connects to a socket, which waits where its queue is full.
fn connected(socket: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The kernel rounds down, and takes 0 for no limit.
    set_socket_timeout(&fd, Timeout::Send, Some(left.max(Duration::from_millis(10))))?;
    connect(&fd, &SocketAddrUnix::new(socket)?)?;
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    Ok(stream)
}

fn timespec(duration: Duration) -> Timespec {
    // Longer than a Timespec can tell is as good as for ever.
    Timespec::try_from(duration).unwrap_or(Timespec { tv_sec: i64::MAX, tv_nsec: 0 })
}

fn lost(command: &'static str, source: io::Error) -> QmpError {
    match source.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => QmpError::Closed { command },
        _ => QmpError::Socket { command, source },
    }
}

/// Why a command gave no result. In all but [`QmpError::Refused`] it may have been executed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QmpError {
    /// No connection.
    #[error("cannot connect to the QMP socket {}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// QEMU refused. The command changed nothing.
    #[error("QEMU refused {command}: {desc} ({class})")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's class of the error.
        class: String,
        /// QEMU's words.
        desc: String,
    },
    /// No answer before the deadline.
    #[error("QEMU did not answer {command} before the deadline")]
    TooSlow {
        /// The command.
        command: &'static str,
    },
    /// QEMU closed the connection, or it was of no use already.
    #[error("the QMP connection is closed, with {command} unanswered")]
    Closed {
        /// The command.
        command: &'static str,
    },
    /// The socket failed.
    #[error("the QMP socket failed, with {command} unanswered")]
    Socket {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A line without end.
    #[error("QEMU answered {command} with a line of more than {} octets", super::LINE_MAX)]
    LineTooLong {
        /// The command.
        command: &'static str,
    },
    /// Not what is expected.
    #[error("QEMU answered {command} with something else than expected")]
    Malformed {
        /// The command.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The answer to another command.
    #[error("QEMU answered something else than {command}")]
    OtherAnswer {
        /// The command.
        command: &'static str,
    },
}

impl QmpError {
    /// Whether it is known that the command changed nothing.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Connect { .. })
    }
}
