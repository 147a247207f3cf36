//! The page that a domain and the server share.

use std::fmt;
use std::io;
use std::os::fd::AsFd;

use super::raw::{Mapping, PAGE};

/// Octets of the ring in each direction.
pub(super) const RING: u32 = 1024;

/// A page with the two rings between a domain and the server, mapped as long as this lives.
///
/// ```text
/// octet     0  requests: 1024 octets
///        1024  responses: 1024 octets
///        2048  requests taken u32, put u32
///        2056  responses taken u32, put u32
///        2064  what the server offers u32
///        2068  connection u32: 0 connected, 1 the domain asks for a new start
///        2072  error u32: 0 none, 1 communication, 2 an index, 3 the protocol
///        2076  event channel u32, for domains that nobody introduces
/// ```
///
/// Numbers are in the byte order of the machine, since the two ends share it. Specified in Xen's
/// `docs/misc/xenstore-ring.txt` and its public header `io/xs_wire.h`.
///
/// The other end may write anything anywhere at any time. So each number is read once and then checked, and nothing that
/// was read is expected to be there still.
pub struct RingPage {
    // Dropped in this order: a page is unmapped before it is given back.
    mapping: Mapping,
    _owner: Option<Box<dyn Send + Sync>>,
}

/// A direction of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the domain to the server.
    Requests,
    /// From the server to the domain.
    Responses,
}

/// The numbers of a direction: how many octets were taken and put since the beginning, modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Indices {
    /// Octets that the reader has taken.
    pub taken: u32,
    /// Octets that the writer has put.
    pub put: u32,
}

/// A number of the page besides the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// What the server offers.
    Features,
    /// Whether the domain asks for a new start.
    Connection,
    /// What has gone wrong.
    Error,
}

impl RingPage {
    /// Maps a page of a file or device at an offset.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn map(file: impl AsFd, offset: u64) -> io::Result<Self> {
        Ok(Self { mapping: Mapping::shared(file, offset)?, _owner: None })
    }

    /// Has `owner` dropped after the page is unmapped.
    #[must_use]
    pub fn owned_by(self, owner: Box<dyn Send + Sync>) -> Self {
        Self { _owner: Some(owner), ..self }
    }

    /// Both indices of a direction, each read once.
    pub fn indices(&self, direction: Direction) -> Indices {
        let at = direction.indices_at();
        Indices { taken: self.mapping.load(at), put: self.mapping.load(at + 4) }
    }

    /// Sets both indices of a direction.
    pub fn set_indices(&self, direction: Direction, indices: Indices) {
        self.mapping.store(direction.indices_at(), indices.taken);
        self.mapping.store(direction.indices_at() + 4, indices.put);
    }

    /// Says how much was put. What was written before is seen by whoever sees this.
    pub fn set_put(&self, direction: Direction, put: u32) {
        self.mapping.store(direction.indices_at() + 4, put);
    }

    /// Says how much was taken.
    pub fn set_taken(&self, direction: Direction, taken: u32) {
        self.mapping.store(direction.indices_at(), taken);
    }

    /// Says how much was taken, unless somebody else has said so meanwhile.
    pub(super) fn replace_taken(&self, direction: Direction, from: u32, to: u32) -> bool {
        self.mapping.replace(direction.indices_at(), from, to)
    }

    /// Copies octets out of the ring of a direction, from an index on; at most all of it.
    pub fn read(&self, direction: Direction, index: u32, octets: &mut [u8]) {
        let (at, before_end) = direction.place(index);
        let len = octets.len().min(RING as usize);
        let (first, second) = octets[..len].split_at_mut(before_end.min(len));
        self.mapping.copy_out(at, first);
        self.mapping.copy_out(direction.octets_at(), second);
    }

    /// Copies octets into the ring of a direction, from an index on; at most all of it.
    pub fn write(&self, direction: Direction, index: u32, octets: &[u8]) {
        let (at, before_end) = direction.place(index);
        let len = octets.len().min(RING as usize);
        let (first, second) = octets[..len].split_at(before_end.min(len));
        self.mapping.copy_in(at, first);
        self.mapping.copy_in(direction.octets_at(), second);
    }

    /// A number of the page.
    pub fn field(&self, field: Field) -> u32 {
        self.mapping.load(field.at())
    }

    /// Sets a number of the page.
    pub fn set_field(&self, field: Field, value: u32) {
        self.mapping.store(field.at(), value);
    }

    /// Overwrites octets anywhere in the page: for tests that spoil it.
    ///
    /// # Panics
    ///
    /// If they do not fit the page.
    pub fn overwrite(&self, at: usize, octets: &[u8]) {
        assert!(at.saturating_add(octets.len()) <= PAGE, "{} octets at {at}", octets.len());
        self.mapping.copy_in(at, octets);
    }
}

impl fmt::Debug for RingPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RingPage")
            .field("requests", &self.indices(Direction::Requests))
            .field("responses", &self.indices(Direction::Responses))
            .finish_non_exhaustive()
    }
}

impl Indices {
    /// Nothing was put or taken.
    pub const START: Self = Self { taken: 0, put: 0 };

    /// Octets waiting; `None` if there would be more than fit the ring, which no two ends of good will bring about.
    pub fn waiting(self) -> Option<u32> {
        let waiting = self.put.wrapping_sub(self.taken);
        (waiting <= RING).then_some(waiting)
    }
}

impl Direction {
    const fn octets_at(self) -> usize {
        match self {
            Self::Requests => 0,
            Self::Responses => RING as usize,
        }
    }

    const fn indices_at(self) -> usize {
        match self {
            Self::Requests => 2048,
            Self::Responses => 2056,
        }
    }

    /// Where in the page an index is, and how many octets there are to the end of the ring.
    fn place(self, index: u32) -> (usize, usize) {
        let offset = (index % RING) as usize;
        (self.octets_at() + offset, RING as usize - offset)
    }
}

impl Field {
    const fn at(self) -> usize {
        match self {
            Self::Features => 2064,
            Self::Connection => 2068,
            Self::Error => 2072,
        }
    }
}
