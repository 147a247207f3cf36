//! What connects a client: where its octets come from and go to.

use std::io::{self, Read, Write};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

/// A stream of octets in each direction, neither of which ever waits.
#[derive(Debug)]
pub(crate) enum Link {
    /// A process of this host.
    Socket(UnixStream),
}

impl Link {
    /// Octets that have come; [`io::ErrorKind::WouldBlock`] if none have, none if none will any more.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.read(buffer),
        }
    }

    /// Sends some octets; [`io::ErrorKind::WouldBlock`] if there is no room.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.write(octets),
        }
    }

    /// Has the loop told when there is room as well, or no longer.
    pub(crate) fn tell_of_room(
        &mut self,
        registry: &Registry,
        token: Token,
        wanted: bool,
    ) -> io::Result<()> {
        match self {
            Self::Socket(stream) => {
                let room = wanted.then_some(Interest::WRITABLE);
                let interest = room.map_or(Interest::READABLE, |room| Interest::READABLE | room);
                registry.reregister(stream, token, interest)
            }
        }
    }
}
