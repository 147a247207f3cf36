//! What a client needs of the thing that carries its octets.

use std::io;
use std::time::Instant;

/// A connection to a Xenstore server that carries octets both ways: a Unix socket, the xenbus device, a pipe inside the
/// process.
///
/// Only [`Transport::wait`] blocks, and never past its deadline. [`Transport::receive`] and [`Transport::send`] answer
/// [`io::ErrorKind::WouldBlock`] instead. With both directions open at once, a client can send a batch larger than any
/// buffer without the two sides waiting for each other.
pub trait Transport: Send {
    /// How this transport frames messages and orders events.
    fn manner(&self) -> Manner;

    /// Waits until octets can be received or, if `interest` says so, sent. Neither, when the deadline has passed.
    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness>;

    /// Receives some octets into `buffer`; `Ok(0)` when the server has closed the connection.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Sends some of the octets and says how many. With [`Framing::MessagePerSend`], `octets` is exactly one message
    /// and is sent whole.
    fn send(&mut self, octets: &[u8]) -> io::Result<usize>;
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn manner(&self) -> Manner {
        (**self).manner()
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        (**self).wait(interest, deadline)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (**self).receive(buffer)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        (**self).send(octets)
    }
}

/// How a transport frames messages and orders events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Whether sends may be cut anywhere.
    pub framing: Framing,
    /// Whether events stay in order with replies.
    pub event_order: EventOrder,
    /// Most octets of payload in a request: less than the protocol's where header and payload share one buffer.
    pub request_payload_max: usize,
}

/// Whether sends may be cut anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A stream of octets.
    Stream,
    /// One message a send, whole: the Linux xenbus device drops what follows the first message.
    MessagePerSend,
}

/// Whether events stay in order with replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOrder {
    /// An event that the server queued before a reply arrives before it.
    WithReplies,
    /// Something between the server and us (a kernel) hands events over by a way of its own.
    Separate,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Octets to receive.
    Receive,
    /// Octets to receive, or room to send.
    ReceiveOrSend,
}

/// What a wait found. Both `false`: the deadline passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Octets, or the end of the connection, can be received.
    pub receive: bool,
    /// There is room to send.
    pub send: bool,
}
