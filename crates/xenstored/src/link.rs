//! What connects a client: where its octets come from and go to.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};

use crate::live_update::LinkPlace;
use crate::xen::{Fault, SharedRing};

/// Octets written by one call, if there are so many.
const WRITE_OCTETS: usize = 64 << 10;

/// What fits a ring. More would wait where it no longer counts as something the client has not read.
const RING_OCTETS: usize = 1 << 10;

/// A stream of octets in each direction, neither of which ever waits.
#[derive(Debug)]
pub(crate) enum Link {
    /// A process of this host.
    Socket(UnixStream),
    /// A domain.
    Ring(SharedRing),
    /// A domain's ring that nobody can reach here: its port is kept for a successor that can.
    Parked { port: u32 },
}

impl Link {
    /// A connected socket that was left by a predecessor.
    pub(crate) fn socket(descriptor: OwnedFd) -> io::Result<Self> {
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        stream.set_nonblocking(true)?;
        Ok(Self::Socket(UnixStream::from_std(stream)))
    }

    /// Has the loop told when something comes.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Socket(stream) => registry.register(stream, token, Interest::READABLE),
            Self::Ring(_) | Self::Parked { .. } => Ok(()),
        }
    }

    /// What has to stay open for a successor.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Socket(stream) => Some(stream.as_fd()),
            Self::Ring(_) | Self::Parked { .. } => None,
        }
    }

    /// Where it goes to, as a successor finds it.
    pub(crate) fn place(&self) -> LinkPlace {
        match self {
            Self::Socket(stream) => LinkPlace::Socket(stream.as_raw_fd()),
            Self::Ring(ring) => LinkPlace::Ring(ring.with(|ring| Ok(ring.port().0)).unwrap_or(0)),
            Self::Parked { port } => LinkPlace::Ring(*port),
        }
    }

    /// Octets that have come; [`io::ErrorKind::WouldBlock`] if none have, none if none will any more.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.read(buffer),
            Self::Ring(ring) => ring.with(|ring| ring.read(buffer)),
            Self::Parked { .. } => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Sends some octets; [`io::ErrorKind::WouldBlock`] if there is no room.
    pub(crate) fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Socket(stream) => stream.write(octets),
            Self::Ring(ring) => ring.with(|ring| ring.write(octets)),
            Self::Parked { .. } => Err(io::ErrorKind::WouldBlock.into()),
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
            Self::Ring(_) | Self::Parked { .. } => Ok(()),
        }
    }

    /// Whether it outlives this process what is said with [`Link::stage`].
    pub(crate) fn is_kept(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.with(|ring| Ok(ring.is_kept())).unwrap_or(false),
            Self::Socket(_) | Self::Parked { .. } => false,
        }
    }

    /// Says what will be written next. Of what was read, the last `unanswered` octets are not answered then. The first `rest`
    /// octets belong to a message that was begun before.
    pub(crate) fn stage(
        &mut self,
        octets: &[u8],
        rest: usize,
        unanswered: usize,
    ) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.with(|ring| ring.stage(octets, rest, unanswered)),
            Self::Socket(_) | Self::Parked { .. } => Ok(()),
        }
    }

    /// Takes over what a predecessor has read and not answered.
    pub(crate) fn inherit(&mut self, input: &[u8]) {
        if let Self::Ring(ring) = self {
            // If it was taken away, there is nothing to keep.
            let _ = ring.with(|ring| {
                ring.inherit(input);
                Ok(())
            });
        }
    }

    /// A turn is over: of what was read, the last `held` octets are not answered yet.
    pub(crate) fn settle(&mut self, held: usize) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.with(|ring| ring.settle(held)),
            Self::Socket(_) | Self::Parked { .. } => Ok(()),
        }
    }

    /// Whether something has come that will not be told.
    pub(crate) fn has_more(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.with(|ring| Ok(ring.has_more())).unwrap_or(false),
            Self::Socket(_) | Self::Parked { .. } => false,
        }
    }

    /// The client has sent what is no message.
    pub(crate) fn refuse(&mut self) {
        if let Self::Ring(ring) = self {
            // If it was taken away, there is nobody to tell.
            let _ = ring.with(|ring| {
                ring.fail(Fault::Protocol);
                Ok(())
            });
        }
    }

    /// How many octets to have ready to be written.
    pub(crate) fn portion(&self) -> usize {
        match self {
            Self::Socket(_) => WRITE_OCTETS,
            Self::Ring(_) | Self::Parked { .. } => RING_OCTETS,
        }
    }
}
