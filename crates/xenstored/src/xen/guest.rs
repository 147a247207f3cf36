//! The kernel of a simulated domain: its end of the ring.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};
use xenstore_proto::{DomId, EventOrder, Framing, Interest, Manner, Readiness, Transport};

use super::page::{Direction, Field, Indices, RING, RingPage};
#[cfg(test)]
use super::simulated::signal;
use super::simulated::{SimulatedXen, drain};

use Direction::{Requests, Responses};

/// A domain's end of its ring. As a [`Transport`] it behaves; [`SimulatedGuest::page`] is there for everything else.
#[derive(Debug)]
pub struct SimulatedGuest {
    xen: SimulatedXen,
    domid: DomId,
    page: RingPage,
    events: Arc<OwnedFd>,
}

impl SimulatedGuest {
    pub(super) fn new(
        xen: SimulatedXen,
        domid: DomId,
        page: RingPage,
        events: Arc<OwnedFd>,
    ) -> Self {
        Self { xen, domid, page, events }
    }

    /// Which domain it is.
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Its mapping of the ring page, to do with as it likes.
    pub fn page(&self) -> &RingPage {
        &self.page
    }

    /// Sends the server an event.
    pub fn notify(&self) {
        self.xen.notify_server(self.domid);
    }

    /// Asks the server for a new start, without waiting for it.
    pub fn ask_to_reconnect(&self) {
        self.page.set_field(Field::Connection, 1);
        self.notify();
    }

    /// Puts octets into the ring as far as there is room, without an event.
    pub fn put(&self, octets: &[u8]) -> usize {
        let indices = self.page.indices(Requests);
        let room = RING - waiting(indices);
        let len = octets.len().min(room as usize);
        self.page.write(Requests, indices.put, &octets[..len]);
        self.page.set_put(Requests, indices.put.wrapping_add(in_ring(len)));
        len
    }

    /// Takes octets out of the ring as far as there are any, without an event.
    pub fn take(&self, octets: &mut [u8]) -> usize {
        let indices = self.page.indices(Responses);
        let len = octets.len().min(waiting(indices) as usize);
        self.page.read(Responses, indices.taken, &mut octets[..len]);
        self.page.set_taken(Responses, indices.taken.wrapping_add(in_ring(len)));
        len
    }

    /// Waits until the server has sent an event. `false` if it has not until then.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn wait_for_event(&self, deadline: Instant) -> io::Result<bool> {
        while !drain(&self.events) {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = left.try_into().map_err(io::Error::other)?;
            let mut events = [PollFd::new(&self.events, PollFlags::IN)];
            match poll(&mut events, Some(&timeout)) {
                Ok(0) => return Ok(drain(&self.events)),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// How to wake it up.
    #[cfg(test)]
    pub(super) fn events(&self) -> GuestEvents {
        GuestEvents(Arc::clone(&self.events))
    }

    fn readiness(&self, interest: Interest) -> Readiness {
        Readiness {
            receive: waiting(self.page.indices(Responses)) > 0,
            send: interest == Interest::ReceiveOrSend
                && waiting(self.page.indices(Requests)) < RING,
        }
    }
}

/// Where a guest hears its events.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct GuestEvents(Arc<OwnedFd>);

#[cfg(test)]
impl GuestEvents {
    pub(super) fn signal(&self) {
        signal(&self.0);
    }
}

impl Transport for SimulatedGuest {
    fn manner(&self) -> Manner {
        Manner {
            framing: Framing::Stream,
            event_order: EventOrder::WithReplies,
            request_payload_max: PAYLOAD_MAX,
        }
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        loop {
            let ready = self.readiness(interest);
            if ready != Readiness::default() || !self.wait_for_event(deadline)? {
                return Ok(ready);
            }
        }
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        // As Linux: a header, then its payload, and an event only for what nothing is before that is not taken.
        let (header, payload) = octets.split_at(octets.len().min(HEADER_LEN));
        let mut len = 0;
        for part in [header, payload] {
            let before = self.page.indices(Requests).put;
            let put = self.put(part);
            if put > 0 && self.page.indices(Requests).taken == before {
                self.notify();
            }
            len += put;
            if put < part.len() {
                break;
            }
        }
        if len == 0 && !octets.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(len)
    }

    fn receive(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        let before = self.page.indices(Responses).taken;
        let len = self.take(octets);
        if len == 0 && !octets.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        // As Linux: only if the server may wait for room.
        if self.page.indices(Responses).put.wrapping_sub(before) >= RING {
            self.notify();
        }
        Ok(len)
    }
}

/// Octets waiting, as far as a guest believes in them.
fn waiting(indices: Indices) -> u32 {
    indices.waiting().unwrap_or(RING)
}

/// No more than fits a ring.
fn in_ring(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(RING)
}
