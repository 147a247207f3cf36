//! A guest's end of the ring that it shares with the C daemon, played by this process.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};

use crate::commands::poll_until;
use crate::{StartError, StockDaemon, daemon};

/// What tells the stand-in hypervisor that guests are played, and in which directory.
pub(crate) const VARIABLE: &str = "STOCK_XENSTORE_GUESTS";

const EVENTS: &str = "events";

/// Each way has a ring of so many octets.
const RING: u32 = 1024;
const PAGE: u64 = 4096;

/// Where things are in the page, as Xen's public header `io/xs_wire.h` has them.
const REQUESTS: u64 = 0;
const RESPONSES: u64 = 1024;
const REQUEST_CONSUMER: u64 = 2048;
const REQUEST_PRODUCER: u64 = 2052;
const RESPONSE_CONSUMER: u64 = 2056;
const RESPONSE_PRODUCER: u64 = 2060;

/// How long a reader or writer waits for the daemon.
const SILENCE_LIMIT: Duration = Duration::from_secs(5);

/// A guest of a daemon started with [`StockDaemon::start_with_guests`]: what it writes are requests, what it reads are
/// replies and events. A read or write that the daemon lets wait for five seconds fails with
/// [`io::ErrorKind::TimedOut`].
///
/// The daemon does not know it before somebody has introduced the domain, with [`Guest::port`] as its event channel.
#[derive(Debug)]
pub struct Guest {
    port: u32,
    page: File,
    events: File,
    notified: File,
}

impl StockDaemon {
    /// A guest to play. A new one with the same domid starts with an empty ring.
    pub fn guest(&self, domid: u16) -> Result<Guest, StartError> {
        Guest::new(self.directory(), domid).map_err(daemon::scratch)
    }
}

/// Makes what the stand-in hypervisor needs before the daemon starts.
pub(crate) fn prepare(directory: &Path) -> io::Result<()> {
    fifo(&directory.join(EVENTS))
}

impl Guest {
    fn new(directory: &Path, domid: u16) -> io::Result<Guest> {
        let port = 100 + u32::from(domid);
        let page = directory.join(format!("ring-{domid}"));
        let mut options = File::options();
        let page = options.read(true).write(true).create(true).truncate(false).open(page)?;
        page.set_len(PAGE)?;
        page.write_all_at(&[0; 16], REQUEST_CONSUMER)?;
        let notified = directory.join(format!("notified-{port}"));
        if !notified.exists() {
            fifo(&notified)?;
        }
        // Open for writing too, so that a daemon that closes it does not end it.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let notified = open(&notified, flags, Mode::empty())?.into();
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let events = open(directory.join(EVENTS), flags, Mode::empty())?.into();
        Ok(Guest { port, page, events, notified })
    }

    /// The event channel to introduce the domain with.
    pub fn port(&self) -> u32 {
        self.port
    }

    fn index(&self, at: u64) -> io::Result<u32> {
        let mut octets = [0; 4];
        self.page.read_exact_at(&mut octets, at)?;
        Ok(u32::from_ne_bytes(octets))
    }

    /// Publishes an index, and tells the daemon.
    fn publish(&mut self, at: u64, index: u32) -> io::Result<()> {
        self.page.write_all_at(&index.to_ne_bytes(), at)?;
        self.events.write_all(&self.port.to_ne_bytes())
    }

    /// How many octets lie between two indexes, once `enough` says that they are.
    fn wait_for(
        &mut self,
        producer: u64,
        consumer: u64,
        enough: impl Fn(u32) -> bool,
    ) -> io::Result<u32> {
        let deadline = Instant::now() + SILENCE_LIMIT;
        loop {
            let between = self.index(producer)?.wrapping_sub(self.index(consumer)?);
            if between > RING {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if enough(between) {
                return Ok(between);
            }
            let mut watched = [PollFd::new(&self.notified, PollFlags::IN)];
            if !poll_until(&mut watched, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match self.notified.read(&mut [0; 256]) {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }
}

impl Read for Guest {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let waiting = self.wait_for(RESPONSE_PRODUCER, RESPONSE_CONSUMER, |waiting| waiting > 0)?;
        let consumer = self.index(RESPONSE_CONSUMER)?;
        let at = consumer % RING;
        let len = waiting.min(RING - at).min(u32::try_from(buffer.len()).unwrap_or(RING));
        let taken = &mut buffer[..len as usize];
        self.page.read_exact_at(taken, RESPONSES + u64::from(at))?;
        self.publish(RESPONSE_CONSUMER, consumer.wrapping_add(len))?;
        Ok(len as usize)
    }
}

impl Write for Guest {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if octets.is_empty() {
            return Ok(0);
        }
        let unread = self.wait_for(REQUEST_PRODUCER, REQUEST_CONSUMER, |unread| unread < RING)?;
        let producer = self.index(REQUEST_PRODUCER)?;
        let at = producer % RING;
        let room = RING - unread;
        let len = room.min(RING - at).min(u32::try_from(octets.len()).unwrap_or(RING));
        self.page.write_all_at(&octets[..len as usize], REQUESTS + u64::from(at))?;
        self.publish(REQUEST_PRODUCER, producer.wrapping_add(len))?;
        Ok(len as usize)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn fifo(path: &Path) -> io::Result<()> {
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?)
}
