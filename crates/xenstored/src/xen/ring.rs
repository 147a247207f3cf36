//! Octets on a ring page, as a stream that never waits.

use std::io;

use xenstore_proto::limits::HEADER_LEN;
use xenstore_proto::{DomId, Features};

use super::hypervisor::{EventChannel, LocalPort};
use super::page::{Direction, Field, Indices, RING, RingPage};
use super::slot::{CAPACITY, Left, Record, Slot};

use Direction::{Requests, Responses};

/// A header that no longer fits is how we know that the domain has no room.
const HEADER: u32 = 16;
const _: () = assert!(HEADER as usize == HEADER_LEN);

/// The value of the connection field with which a domain asks for a new start.
const RECONNECT: u32 = 1;

/// What the server offers on a ring, besides what it offers on every connection.
const OFFERED: Features = Features(Features::RECONNECT.0 | Features::ERROR.0);

/// A domain's connection: reads what it asks and writes what it is told, without waiting.
///
/// What was read is the domain's to overwrite only from [`Ring::settle`] on, which is called when the answers have been
/// written. So if the server dies, what it had not answered is still there for the next one: a request may be carried
/// out twice, but nobody waits for ever. The domain is sent its event there as well.
///
/// A ring that has a `Slot` loses nothing of messages that do not fit it either, and sends no answer twice: all that is
/// read is written down there, and so is what will be written, with how much of what was read it answers
/// (`Ring::stage`).
///
/// A ring whose indices make no sense, or on which the domain breaks the protocol, says so in its page, and is not
/// touched any more: every later call is an error until [`Ring::reset`].
#[derive(Debug)]
pub struct Ring {
    page: RingPage,
    channel: Box<dyn EventChannel>,
    domid: DomId,
    offered: Features,
    /// What was last seen to be taken of the requests.
    base: u32,
    /// Octets read from there on.
    ahead: u32,
    /// Whether the domain has to be told that something has changed.
    owes_event: bool,
    fault: Option<Fault>,
    /// What the next server will know, if this one is killed.
    kept: Option<Kept>,
}

/// What is kept, and where.
#[derive(Debug)]
struct Kept {
    slot: Slot,
    record: Record,
}

/// What is wrong with a ring, by the number that its page says it with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is closed for a reason of the server's.
    Communication = 1,
    /// More would be waiting than fits.
    Index = 2,
    /// What was sent is no message.
    Protocol = 3,
}

/// A ring that is not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring of domain {domid} is closed: {}", fault.text())]
pub struct RingError {
    /// Whose it is.
    pub domid: DomId,
    /// Why.
    pub fault: Fault,
}

impl Fault {
    const fn text(self) -> &'static str {
        match self {
            Self::Communication => "by the server",
            Self::Index => "its indices make no sense",
            Self::Protocol => "it breaks the protocol",
        }
    }
}

impl Ring {
    /// Goes on where a ring is: at the indices found. Tells the domain what it is offered, of which `offered` is what
    /// the server offers on every connection; the first [`Ring::settle`] sends it an event in any case.
    pub fn open(
        page: RingPage,
        channel: Box<dyn EventChannel>,
        domid: DomId,
        offered: Features,
    ) -> Self {
        let offered = Features(offered.0 | OFFERED.0);
        page.set_field(Field::Features, offered.0);
        page.set_field(Field::Error, 0);
        let base = page.indices(Requests).taken;
        // Dom0's kernel looks for no Xenstore before its first event, and a dead predecessor may have owed one.
        let (ahead, owes_event, fault, kept) = (0, true, None, None);
        Self { page, channel, domid, offered, base, ahead, owes_event, fault, kept }
    }

    /// Keeps what is in flight from now on: none of it, at first.
    pub(crate) fn keep_in(&mut self, slot: Slot) {
        let record = self.at_rest();
        let kept = self.kept.insert(Kept { slot, record });
        kept.slot.keep(record);
    }

    /// Keeps what is in flight where a dead server has, and gives what is found there. What makes no sense is not used: the
    /// ring goes on as it is.
    pub(crate) fn resume_in(&mut self, slot: Slot) -> Left {
        let indices = [Requests, Responses].map(|direction| self.page.indices(direction));
        let was_valid = slot.record().is_some();
        let left = slot.left(indices[0], indices[1]);
        if let (Some(left), Some(record)) = (left, slot.record()) {
            (self.base, self.ahead) = (indices[0].taken, left.ahead);
            self.kept = Some(Kept { slot, record });
            return left;
        }
        if was_valid {
            let domid = self.domid;
            tracing::warn!(%domid, "what is kept does not go with the ring: messages in flight may be lost");
        }
        self.keep_in(slot);
        Left::default()
    }

    /// Whether what is in flight is kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// Takes over octets that a predecessor has read and handed on: none of them is answered.
    pub(crate) fn inherit(&mut self, input: &[u8]) {
        let Some(kept) = &mut self.kept else { return };
        let answered = self.base.wrapping_sub(at_most(input.len(), CAPACITY));
        kept.slot.keep_request(answered, input);
        kept.keep(Record { answered, ..kept.record });
    }

    /// Whose it is.
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Where its events come.
    pub fn port(&self) -> LocalPort {
        self.channel.port()
    }

    /// Sends and receives events through another channel from now on; the old one is given up.
    pub fn rebind(&mut self, channel: Box<dyn EventChannel>) {
        self.channel = channel;
    }

    /// Reads some octets, at least one unless `octets` is empty.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::WouldBlock`] if there are none, [`io::ErrorKind::ConnectionReset`] if the domain asks for a new
    /// start ([`Ring::reset`]), any other with [`RingError`] inside if the ring is closed.
    pub fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        self.check()?;
        let fresh = self.look()?.saturating_sub(self.ahead);
        let len = at_most(octets.len(), fresh.min(self.room_to_keep()));
        if len == 0 && !octets.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (octets, _) = octets.split_at_mut(len as usize);
        let index = self.position();
        self.page.read(Requests, index, octets);
        if let Some(kept) = &self.kept {
            kept.slot.keep_request(index, octets);
        }
        self.ahead += len;
        Ok(octets.len())
    }

    /// Says what will be written next, all of it before anything else, and that all that was read is answered then, but
    /// for the last `unanswered` octets. The first `rest` octets belong to a message that was begun before.
    ///
    /// # Errors
    ///
    /// As [`Ring::read`].
    pub(crate) fn stage(
        &mut self,
        octets: &[u8],
        rest: usize,
        unanswered: usize,
    ) -> io::Result<()> {
        self.check()?;
        let position = self.position();
        let (indices, _) = self.indices(Responses)?;
        let Some(kept) = &mut self.kept else { return Ok(()) };
        kept.slot.keep_response(indices.put, octets);
        let record = Record {
            put_from: indices.put,
            put_to: indices.put.wrapping_add(at_most(octets.len(), CAPACITY)),
            rest: at_most(rest, CAPACITY),
            answered: position.wrapping_sub(at_most(unanswered, CAPACITY)),
            taken: kept.record.taken,
        };
        kept.keep(record);
        Ok(())
    }

    /// Writes some octets, at least one unless `octets` is empty.
    ///
    /// # Errors
    ///
    /// As [`Ring::read`]; [`io::ErrorKind::WouldBlock`] if there is no room.
    pub fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.check()?;
        let (indices, waiting) = self.indices(Responses)?;
        let len = at_most(octets.len(), RING - waiting);
        if len == 0 && !octets.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (octets, _) = octets.split_at(len as usize);
        self.page.write(Responses, indices.put, octets);
        self.page.set_put(Responses, indices.put.wrapping_add(len));
        self.owes_event |= len > 0;
        Ok(octets.len())
    }

    /// Says that what was read is done with, but for the last `held` octets, which have not been answered; and sends
    /// the domain an event if anything was read or written since the last time.
    ///
    /// If the domain has no room to finish what it sends, all that was read is given up nevertheless. What has not been
    /// answered is kept, if anything is.
    ///
    /// # Errors
    ///
    /// [`RingError`] inside if the ring is, or becomes, closed.
    pub fn settle(&mut self, held: usize) -> io::Result<()> {
        if let Some(fault) = self.fault {
            return Err(self.closed(fault));
        }
        // A domain that waits for a new start has given up what it had sent.
        if self.ahead > 0 && !self.wants_reset() {
            let waiting = self.look()?;
            let answered = self.ahead - at_most(held, self.ahead);
            let full = RING - (waiting - answered) < HEADER;
            let done = if full { self.ahead } else { answered };
            let taken = self.base.wrapping_add(done);
            if let Some(kept) = self.kept.as_mut().filter(|_| done > 0) {
                kept.take(taken);
            }
            if done > 0 && self.page.replace_taken(Requests, self.base, taken) {
                self.base = taken;
                self.ahead -= done;
                self.owes_event = true;
            }
        }
        if std::mem::take(&mut self.owes_event) {
            self.notify();
        }
        Ok(())
    }

    /// Whether there is something to read. Linux sends an event only for what it puts behind octets that are all taken, so
    /// this is to be asked after [`Ring::settle`].
    pub fn has_more(&self) -> bool {
        let indices = self.page.indices(Requests);
        // Nothing more is read before something is answered, which is a reason of its own to go on.
        let fits = self.room_to_keep() > 0;
        fits && (indices.taken != self.base || indices.put != self.position())
    }

    /// Whether the domain asks for a new start: it waits until [`Ring::reset`].
    pub fn wants_reset(&self) -> bool {
        self.page.field(Field::Connection) == RECONNECT
    }

    /// Empties the ring, which is open afterwards, and tells the domain. What was half read or half written is lost.
    pub fn reset(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.slot.void();
        }
        self.page.set_indices(Requests, Indices::START);
        self.page.set_indices(Responses, Indices::START);
        self.page.set_field(Field::Features, self.offered.0);
        self.page.set_field(Field::Error, 0);
        (self.base, self.ahead, self.fault) = (0, 0, None);
        if let Some(kept) = &mut self.kept {
            kept.keep(Record::at_rest(0, 0));
        }
        // Last, since that is what the domain waits for.
        self.page.set_field(Field::Connection, 0);
        self.owes_event = false;
        self.notify();
    }

    /// Closes the ring, and tells the domain why. The first reason stays.
    pub fn fail(&mut self, fault: Fault) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            if let Some(kept) = &mut self.kept {
                kept.slot.void();
            }
            self.page.set_field(Field::Error, fault as u32);
            self.notify();
        }
    }

    /// Why the ring is closed, if it is.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    fn check(&self) -> io::Result<()> {
        match self.fault {
            Some(fault) => Err(self.closed(fault)),
            None if self.wants_reset() => Err(io::ErrorKind::ConnectionReset.into()),
            None => Ok(()),
        }
    }

    /// Octets of requests that wait, those that were read included.
    fn look(&mut self) -> io::Result<u32> {
        let (indices, waiting) = self.indices(Requests)?;
        if indices.taken != self.base || self.ahead > waiting {
            // The domain has begun anew by itself. hvmloader clears the whole page when it has got its last answer.
            (self.base, self.ahead) = (indices.taken, 0);
            let record = self.at_rest();
            if let Some(kept) = &mut self.kept {
                kept.keep(record);
            }
        }
        Ok(waiting)
    }

    fn indices(&mut self, direction: Direction) -> io::Result<(Indices, u32)> {
        // Twice, because the two numbers are not read at once: one of them may be from before the page was cleared, and the
        // other from after it.
        for _ in 0..2 {
            let indices = self.page.indices(direction);
            if let Some(waiting) = indices.waiting() {
                return Ok((indices, waiting));
            }
        }
        self.fail(Fault::Index);
        Err(self.closed(Fault::Index))
    }

    /// The index after the last octet read.
    fn position(&self) -> u32 {
        self.base.wrapping_add(self.ahead)
    }

    /// Nothing is in flight, as far as the page tells.
    fn at_rest(&self) -> Record {
        Record::at_rest(self.base, self.page.indices(Responses).put)
    }

    /// How many octets can be read so that all that are not answered are kept.
    fn room_to_keep(&self) -> u32 {
        let Some(kept) = &self.kept else { return CAPACITY };
        CAPACITY.saturating_sub(self.position().wrapping_sub(kept.record.answered))
    }

    fn closed(&self, fault: Fault) -> io::Error {
        io::Error::other(RingError { domid: self.domid, fault })
    }

    fn notify(&self) {
        if let Err(error) = self.channel.notify() {
            // It will be heard of if the domain has died; otherwise it looks at its ring with its next request.
            tracing::debug!(domid = %self.domid, %error, "domain not notified");
        }
    }
}

impl Kept {
    fn keep(&mut self, record: Record) {
        self.slot.keep(record);
        self.record = record;
    }

    /// The domain will be told that its requests are taken up to an index.
    fn take(&mut self, taken: u32) {
        let unanswered = taken.wrapping_sub(self.record.answered);
        // Beyond what is kept means that all of it is answered.
        if (1..=CAPACITY).contains(&unanswered) && taken != self.record.taken {
            self.keep(Record { taken, ..self.record });
        }
    }
}

fn at_most(len: usize, max: u32) -> u32 {
    u32::try_from(len).map_or(max, |len| len.min(max))
}
