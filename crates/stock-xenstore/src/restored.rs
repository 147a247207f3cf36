//! A new C daemon that starts from a stream, with the descriptors that the stream names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::fcntl_dupfd_cloexec;

use crate::daemon::{SOCKET, STATE_DUMP};
use crate::launcher::Descriptor;
use crate::{Kind, Packages, StartError, StockDaemon};

/// A stream names the descriptors of no daemon that could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// The preamble or a record does not lie within the stream.
    #[error("the stream is cut short at octet {offset}")]
    Short {
        /// Where the part that is missing should begin.
        offset: usize,
    },
    /// It does not begin as an xenstore-migration stream.
    #[error("no xenstore-migration stream")]
    OtherMagic,
    /// Without a listening socket in its GLOBAL_DATA, a daemon could not be reached.
    #[error("the stream names no listening socket")]
    NoSocket,
    /// A number that is taken by the standard streams or by another descriptor, or is too large.
    #[error("the stream names descriptor {fd}, which is not free or not below {DESCRIPTOR_LIMIT}")]
    Descriptor {
        /// The number.
        fd: RawFd,
    },
}

/// Half of the numbers that a process has by default: the other half is for what is kept here until the daemon starts.
const DESCRIPTOR_LIMIT: RawFd = 512;
/// Numbers below are standard input, output and error.
const FIRST_FREE: RawFd = 3;

const PREAMBLE: usize = 16;
const RECORD_HEADER: usize = 8;
const BIG_ENDIAN_FLAG: u8 = 1;

const END: u32 = 0;
const GLOBAL_DATA: u32 = 1;
const CONNECTION_DATA: u32 = 2;
const SOCKET_CONNECTION: u16 = 1;

impl StockDaemon {
    /// Starts a C daemon that takes its state from `stream`, an xenstore-migration stream of any origin, as it is.
    ///
    /// The listening socket and the event channels of the stream's GLOBAL_DATA, and the socket of each of its
    /// CONNECTION_DATA, are open in the daemon at the numbers that the stream says. The second result has the other
    /// ends of these connections by their conn-id: what a client, had it been there, would go on with. The listening
    /// socket is [`StockDaemon::socket`].
    ///
    /// Numbers from 3 to 511 are possible, each once.
    pub fn start_on(
        packages: &Packages,
        stream: &[u8],
    ) -> Result<(StockDaemon, BTreeMap<u32, UnixStream>), StartError> {
        let named = Named::read(stream)?;
        let mut clients = BTreeMap::new();
        let daemon = StockDaemon::launch(Kind::C, packages, ["-U"], |directory| {
            fs::write(directory.join(STATE_DUMP), stream)?;
            named.open(directory, &mut clients)
        })?;
        Ok((daemon, clients))
    }
}

/// The descriptors that a stream names.
#[derive(Debug)]
struct Named {
    socket: RawFd,
    event_channels: Option<RawFd>,
    /// With their conn-ids.
    connections: Vec<(u32, RawFd)>,
}

impl Named {
    fn read(stream: &[u8]) -> Result<Named, StreamError> {
        let preamble: [u8; PREAMBLE] = array(stream, 0)?;
        if !preamble.starts_with(b"xenstore") {
            return Err(StreamError::OtherMagic);
        }
        let big_endian = preamble[PREAMBLE - 1] & BIG_ENDIAN_FLAG != 0;
        let word = |at| {
            let word = array(stream, at)?;
            Ok(if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
        };
        let signed = |at| Ok(word(at)?.cast_signed());
        let (mut socket, mut event_channels, mut connections) = (None, None, Vec::new());
        let mut at = PREAMBLE;
        loop {
            let (kind, length) = (word(at)?, word(at + 4)?);
            let body = at + RECORD_HEADER;
            match kind {
                END => break,
                GLOBAL_DATA => {
                    socket = Some(signed(body)?);
                    event_channels = Some(signed(body + 4)?);
                }
                CONNECTION_DATA => {
                    let kind = array(stream, body + 4)?;
                    let kind =
                        if big_endian { u16::from_be_bytes } else { u16::from_le_bytes }(kind);
                    if kind == SOCKET_CONNECTION {
                        connections.push((word(body)?, signed(body + 8)?));
                    }
                }
                _ => {}
            }
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let next = length.checked_next_multiple_of(8).and_then(|long| body.checked_add(long));
            at = next.ok_or(StreamError::Short { offset: body })?;
        }
        let is_named = |fd: &RawFd| *fd != -1;
        let socket = socket.filter(is_named).ok_or(StreamError::NoSocket)?;
        let event_channels = event_channels.filter(is_named);
        let mut taken = BTreeSet::new();
        let all = connections.iter().map(|(_, fd)| *fd).chain([socket]).chain(event_channels);
        for fd in all {
            if !(FIRST_FREE..DESCRIPTOR_LIMIT).contains(&fd) || !taken.insert(fd) {
                return Err(StreamError::Descriptor { fd });
            }
        }
        Ok(Named { socket, event_channels, connections })
    }

    /// Opens them, and puts the clients' ends of connections into `clients`.
    fn open(
        &self,
        directory: &Path,
        clients: &mut BTreeMap<u32, UnixStream>,
    ) -> io::Result<Vec<Descriptor>> {
        let listener = UnixListener::bind(directory.join(SOCKET))?;
        let mut opened = vec![descriptor(listener.into(), self.socket)?];
        if let Some(number) = self.event_channels {
            opened.push(descriptor(eventfd(0, EventfdFlags::NONBLOCK)?, number)?);
        }
        for (id, number) in &self.connections {
            let (client, daemon) = UnixStream::pair()?;
            clients.insert(*id, client);
            opened.push(descriptor(daemon.into(), *number)?);
        }
        Ok(opened)
    }
}

/// Held here above all numbers that can be named, so that none is taken away when the child is given its own.
fn descriptor(held: OwnedFd, number: RawFd) -> io::Result<Descriptor> {
    let held = fcntl_dupfd_cloexec(held, DESCRIPTOR_LIMIT)?;
    Ok(Descriptor { held, number })
}

fn array<const LENGTH: usize>(stream: &[u8], offset: usize) -> Result<[u8; LENGTH], StreamError> {
    let part = stream.get(offset..).and_then(|rest| rest.first_chunk());
    part.copied().ok_or(StreamError::Short { offset })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with a ring connection and two socket connections, in either order of octets.
    fn stream(big_endian: bool, [socket, event_channels, first, second]: [RawFd; 4]) -> Vec<u8> {
        let long = |value: u32| {
            if big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
        };
        let short = |value: u16| {
            if big_endian { value.to_be_bytes() } else { value.to_le_bytes() }
        };
        let mut stream = b"xenstore\0\0\0\x01\0\0\0".to_vec();
        stream.push(big_endian.into());
        stream.extend([GLOBAL_DATA, 8].map(long).concat());
        stream.extend([socket, event_channels].map(|fd| long(fd.cast_unsigned())).concat());
        for (id, kind, what) in [(1, 0, 0), (2, SOCKET_CONNECTION, first), (9, 1, second)] {
            // Of two octets of data, which are padded after the length that the record says.
            stream.extend([CONNECTION_DATA, 26, id].map(long).concat());
            stream.extend([kind, 0].map(short).concat());
            stream.extend([what.cast_unsigned(), 0].map(long).concat());
            stream.extend([2, 0].map(short).concat());
            stream.extend([0; 12]);
        }
        stream.extend([0; 8]);
        stream
    }

    #[test]
    fn descriptors_are_read_in_either_order_of_octets() {
        for big_endian in [false, true] {
            let named = Named::read(&stream(big_endian, [3, 6, 7, 511])).unwrap();
            assert_eq!((named.socket, named.event_channels), (3, Some(6)));
            assert_eq!(named.connections, [(2, 7), (9, 511)]);
        }
        let named = Named::read(&stream(false, [3, -1, 7, 8])).unwrap();
        assert_eq!(named.event_channels, None);
    }

    #[test]
    fn impossible_descriptors_are_named() {
        let refused = |fds| Named::read(&stream(false, fds)).unwrap_err();
        assert!(matches!(refused([-1, 6, 7, 8]), StreamError::NoSocket));
        for (fds, bad) in [
            ([2, 6, 7, 8], 2),
            ([3, 3, 7, 8], 3),
            ([3, 6, 7, 7], 7),
            ([3, 6, -1, 8], -1),
            ([3, 6, 7, 512], 512),
        ] {
            let error = refused(fds);
            assert!(matches!(error, StreamError::Descriptor { fd } if fd == bad), "{error}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_short_anywhere_is_refused() {
        let whole = stream(false, [3, 6, 7, 8]);
        for length in 0..whole.len() - 4 {
            let error = Named::read(&whole[..length]).unwrap_err();
            assert!(matches!(error, StreamError::Short { .. }), "{length}: {error}");
        }
        let error = Named::read(b"$xenstored-dump-format").unwrap_err();
        assert!(matches!(error, StreamError::OtherMagic), "{error}");
    }
}
