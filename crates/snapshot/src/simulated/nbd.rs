//! As much of an NBD client as a guest's disk needs.
//!
//! Specified in the NBD project's `doc/proto.md`: the fixed newstyle handshake with `NBD_OPT_EXPORT_NAME`, and simple replies. All
//! numbers are big-endian.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::content::{RECORD_SIZE, RECORDS};
use super::disk::Backing;

const GREETING: &[u8; 16] = b"NBDMAGICIHAVEOPT";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
/// The server's `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`, and the client's of the same values.
const NEWSTYLE_NO_ZEROES: u16 = 3;
const OPTION_EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const READ: u16 = 0;
const WRITE: u16 = 1;

/// What every request is about: one record.
const LENGTH: u32 = 512;
const _: () = assert!(LENGTH as usize == RECORD_SIZE);

/// How long the server may take for each step. A guest stands still meanwhile, and crashes when it has passed.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// A disk behind an NBD server. What is written has been acknowledged; it has not been flushed.
pub(super) struct NbdDisk(Mutex<Connection>);

struct Connection {
    stream: UnixStream,
    cookie: u64,
}

impl NbdDisk {
    /// Opens an export, which must have room for a guest's records.
    pub(super) fn open(socket: &Path, export: &str) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(STEP_LIMIT))?;
        stream.set_write_timeout(Some(STEP_LIMIT))?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting)?;
        let mut flags = [0; 2];
        stream.read_exact(&mut flags)?;
        if greeting != *GREETING || u16::from_be_bytes(flags) & NEWSTYLE_NO_ZEROES != 3 {
            return Err(malformed("it is no server of the fixed newstyle"));
        }
        let length = u32::try_from(export.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut option = u32::from(NEWSTYLE_NO_ZEROES).to_be_bytes().to_vec();
        option.extend(OPTION_MAGIC);
        option.extend(OPTION_EXPORT_NAME.to_be_bytes());
        option.extend(length.to_be_bytes());
        option.extend(export.as_bytes());
        stream.write_all(&option)?;
        let mut size = [0; 8];
        stream.read_exact(&mut size)?;
        stream.read_exact(&mut [0; 2])?; // what the export can do
        let (size, needed) = (u64::from_be_bytes(size), RECORDS * RECORD_SIZE as u64);
        if size < needed {
            let problem = format!("it has {size} octets, and the guest writes {needed}");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        Ok(Self(Mutex::new(Connection { stream, cookie: 0 })))
    }
}

impl Backing for NbdDisk {
    fn read_at(&self, record: &mut [u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.ask(READ, offset, &[])?;
        connection.stream.read_exact(record)
    }

    fn write_at(&self, record: &[u8; RECORD_SIZE], offset: u64) -> io::Result<()> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        connection.ask(WRITE, offset, record)
    }
}

impl Connection {
    /// Sends a request for one record, and waits for the reply; what was read comes behind it.
    fn ask(&mut self, command: u16, offset: u64, data: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend([0; 2]); // no flags
        request.extend(command.to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(LENGTH.to_be_bytes());
        request.extend(data);
        self.stream.write_all(&request)?;
        let (mut magic, mut errno, mut cookie) = ([0; 4], [0; 4], [0; 8]);
        self.stream.read_exact(&mut magic)?;
        self.stream.read_exact(&mut errno)?;
        self.stream.read_exact(&mut cookie)?;
        if u32::from_be_bytes(magic) != REPLY_MAGIC || u64::from_be_bytes(cookie) != self.cookie {
            return Err(malformed("it replied to another request"));
        }
        match i32::from_be_bytes(errno) {
            0 => Ok(()),
            // Its numbers are Linux's.
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

fn malformed(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}
