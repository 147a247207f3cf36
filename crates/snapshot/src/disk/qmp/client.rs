//! A connection to a QMP socket.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::message::{Greeting, Message};
use super::{
    BlockJob, CacheMode, LineDecoder, QmpError, QmpEvent, QmpNode, QmpVersion, TransactionAction,
};

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
    /// The command that makes it ready, until its answer was read.
    greeting: Option<Asked>,
    next_id: u64,
    broken: bool,
}

/// A command that was sent, and whose answer has not been read. Answers come in the order of their commands.
#[derive(Debug)]
#[must_use]
pub(in crate::disk) struct Asked {
    command: &'static str,
    id: u64,
}

/// A command of which QEMU has all but the end. If the connection ends before that comes, QEMU forgets it.
#[derive(Debug)]
#[must_use]
pub(in crate::disk) struct Held {
    asked: Asked,
    end: Vec<u8>,
}

impl QmpClient {
    /// Connects and makes the connection ready for commands.
    ///
    /// # Errors
    ///
    /// See [`QmpError`]. QEMU serves one client of a socket at a time, and the others get no greeting: that ends in
    /// [`QmpError::TooSlow`].
    pub fn connect(socket: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let mut client = Self::begin(socket, deadline)?;
        client.greeted(deadline)?;
        Ok(client)
    }

    /// Connects, and waits for nothing: QEMU reads what it is asked while the caller does something else. It may not have been greeted
    /// yet, and another client may be before it: nothing that changes anything may be asked before the first answer was read.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), which tells the rest with the first answer.
    pub(in crate::disk) fn begin(socket: &Path, deadline: Instant) -> Result<Self, QmpError> {
        let stream = connected(socket, deadline)
            .map_err(|source| QmpError::Connect { socket: socket.to_owned(), source })?;
        let mut client = Self {
            stream,
            decoder: LineDecoder::default(),
            events: VecDeque::new(),
            version: QmpVersion { major: 0, minor: 0, micro: 0 },
            greeting: None,
            next_id: first_id(),
            broken: false,
        };
        client.greeting = Some(client.ask("qmp_capabilities", &Value::Null, deadline)?);
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
        let asked = self.ask_nodes(deadline)?;
        self.answer(asked, deadline)
    }

    /// Asks for [`nodes`](Self::nodes), and does not wait for the answer.
    pub(in crate::disk) fn ask_nodes(&mut self, deadline: Instant) -> Result<Asked, QmpError> {
        self.ask("query-named-block-nodes", &Value::Null, deadline)
    }

    /// The block jobs that run.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    pub fn block_jobs(&mut self, deadline: Instant) -> Result<Vec<BlockJob>, QmpError> {
        self.execute("query-block-jobs", &Value::Null, deadline)
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
        let held = self.hold_transaction(actions, deadline)?;
        let asked = self.release(held, deadline)?;
        self.answer::<Value>(asked, deadline).map(drop)
    }

    /// Tells QEMU all of a transaction but the end of its line, so that it is read already when it is [released](Self::release).
    /// Nothing else can be asked until then.
    ///
    /// # Errors
    ///
    /// See [`QmpError`]. Nothing was done, and nothing will be.
    pub(in crate::disk) fn hold_transaction(
        &mut self,
        actions: &[TransactionAction],
        deadline: Instant,
    ) -> Result<Held, QmpError> {
        let actions: Vec<_> = actions.iter().map(TransactionAction::to_json).collect();
        let (asked, mut line) = self.line_of("transaction", &json!({ "actions": actions }))?;
        // The brace that closes it, and the end of the line.
        let end = line.split_off(line.len() - 2);
        self.send(asked.command, &line, deadline)?;
        Ok(Held { asked, end })
    }

    /// Has QEMU execute what was held.
    ///
    /// # Errors
    ///
    /// See [`QmpError`]. It may have been executed all the same.
    pub(in crate::disk) fn release(
        &mut self,
        held: Held,
        deadline: Instant,
    ) -> Result<Asked, QmpError> {
        self.send(held.asked.command, &held.end, deadline)?;
        Ok(held.asked)
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
        let asked = self.ask(command, arguments, deadline)?;
        self.answer(asked, deadline)
    }

    /// Sends a command. `arguments` may be null if it has none.
    fn ask(
        &mut self,
        command: &'static str,
        arguments: &Value,
        deadline: Instant,
    ) -> Result<Asked, QmpError> {
        let (asked, line) = self.line_of(command, arguments)?;
        self.send(command, &line, deadline)?;
        Ok(asked)
    }

    /// A command as it is sent: not an octet more than needed, since QEMU reads them one by one.
    fn line_of(
        &mut self,
        command: &'static str,
        arguments: &Value,
    ) -> Result<(Asked, Vec<u8>), QmpError> {
        if self.broken {
            return Err(QmpError::Closed { command });
        }
        let id = self.next_id;
        self.next_id += 1;
        let mut message = json!({ "execute": command, "id": id });
        if !arguments.is_null() {
            message["arguments"] = arguments.clone();
        }
        let line = format!("{message}\n").into_bytes();
        Ok((Asked { command, id }, line))
    }

    /// Reads the answer to the oldest command that has none yet.
    ///
    /// # Errors
    ///
    /// See [`QmpError`].
    #[expect(clippy::needless_pass_by_value, reason = "an answer is read once")]
    pub(in crate::disk) fn answer<T: DeserializeOwned>(
        &mut self,
        asked: Asked,
        deadline: Instant,
    ) -> Result<T, QmpError> {
        let Asked { command, id } = asked;
        self.greeted(deadline)?;
        if self.broken {
            return Err(QmpError::Closed { command });
        }
        let answer = self.read_answer(command, id, deadline);
        self.broken = matches!(&answer, Err(error) if !error.is_refusal());
        serde_json::from_value(answer?).map_err(|source| QmpError::Malformed { command, source })
    }

    /// QEMU has greeted, and is ready for commands.
    fn greeted(&mut self, deadline: Instant) -> Result<(), QmpError> {
        let Some(ready) = self.greeting.take() else { return Ok(()) };
        // Of no use unless all of this succeeds.
        self.broken = true;
        self.version = self.greeting(deadline)?.qmp.version.qemu;
        while let Err(error) = self.read_answer(ready.command, ready.id, deadline) {
            match error {
                QmpError::OtherAnswer { .. } => {}
                // It is ready already: what the client before asked for that was executed after the greeting.
                QmpError::Refused { class, .. } if class == "CommandNotFound" => break,
                error => return Err(error),
            }
        }
        self.broken = false;
        Ok(())
    }

    /// Reads the greeting. QEMU tells the next client what it was still doing for one that has died, and a busy one does before it greets.
    fn greeting(&mut self, deadline: Instant) -> Result<Greeting, QmpError> {
        const COMMAND: &str = "greeting";
        loop {
            let line = self.line(COMMAND, deadline)?;
            match serde_json::from_slice(&line) {
                Ok(greeting) => return Ok(greeting),
                Err(_) if Message::parse(&line).is_ok() => {}
                Err(source) => return Err(QmpError::Malformed { command: COMMAND, source }),
            }
        }
    }

    fn read_answer(
        &mut self,
        command: &'static str,
        id: u64,
        deadline: Instant,
    ) -> Result<Value, QmpError> {
        let own_id = json!(id);
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
        octets: &[u8],
        deadline: Instant,
    ) -> Result<(), QmpError> {
        if self.broken {
            return Err(QmpError::Closed { command });
        }
        let sent = self.write_all(command, octets, deadline);
        self.broken = sent.is_err();
        sent
    }

    fn write_all(
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

/// Another one for each connection: what was meant for one is not taken for an answer by the next.
fn first_id() -> u64 {
    RandomState::new().hash_one(std::process::id()) >> 32
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
