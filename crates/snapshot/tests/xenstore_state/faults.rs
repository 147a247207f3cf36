//! A transport on which chosen requests fail, or are answered as another server would.

use std::io;
use std::time::Instant;

use xenstored::{Embedded, InProcess};
use xsclient::{
    Client, Decoded, Decoder, DomId, EventOrder, Interest, Manner, Message, Options, Readiness,
    Reply, Request, Transport, limits,
};

/// What becomes of a request.
pub(crate) enum Fate {
    /// The server gets it.
    Pass,
    /// The server does not get it, and answers this.
    Answer(Reply),
    /// The server gets it, and the connection is closed before the reply.
    HangUp,
}

/// As [`client`], on a transport that hands events over by a way of its own, as the xenbus device does.
pub(crate) fn client_with_separate_events(
    xenstore: &Embedded,
    decide: impl FnMut(&Request) -> Fate + Send + 'static,
) -> Client {
    over(xenstore, EventOrder::Separate, decide)
}

/// Asks about each request what becomes of it.
struct Faulty<F> {
    inner: InProcess,
    event_order: EventOrder,
    decoder: Decoder,
    decide: F,
    answers: Vec<u8>,
    hung_up: bool,
}

pub(crate) fn client(
    xenstore: &Embedded,
    decide: impl FnMut(&Request) -> Fate + Send + 'static,
) -> Client {
    over(xenstore, EventOrder::WithReplies, decide)
}

fn over(
    xenstore: &Embedded,
    event_order: EventOrder,
    decide: impl FnMut(&Request) -> Fate + Send + 'static,
) -> Client {
    let inner = xenstore.transport(DomId::DOM0);
    let decoder = Decoder::new(limits::PAYLOAD_MAX);
    let faulty =
        Faulty { inner, event_order, decoder, decide, answers: Vec::new(), hung_up: false };
    Client::over(Box::new(faulty), Options::default())
}

impl<F: FnMut(&Request) -> Fate> Faulty<F> {
    fn carry(&mut self, message: &Message) -> io::Result<()> {
        let fate = (self.decide)(&Request::decode(message).unwrap());
        if let Fate::Answer(reply) = fate {
            let Message { ty, request_id, tx_id, .. } = *message;
            reply.encode(ty, request_id, tx_id, limits::PAYLOAD_MAX, &mut self.answers).unwrap();
            return Ok(());
        }
        let mut octets = Vec::new();
        message.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
        assert_eq!(self.inner.send(&octets)?, octets.len(), "a batch of tests fits");
        self.hung_up |= matches!(fate, Fate::HangUp);
        Ok(())
    }
}

impl<F: FnMut(&Request) -> Fate + Send> Transport for Faulty<F> {
    fn manner(&self) -> Manner {
        Manner { event_order: self.event_order, ..self.inner.manner() }
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        if self.hung_up || !self.answers.is_empty() {
            return Ok(Readiness { receive: true, send: false });
        }
        self.inner.wait(interest, deadline)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.hung_up {
            return Ok(0);
        }
        match self.inner.receive(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.answers.is_empty() => {
                let taken = self.answers.len().min(buffer.len());
                buffer[..taken].copy_from_slice(&self.answers[..taken]);
                self.answers.drain(..taken);
                Ok(taken)
            }
            received => received,
        }
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.decoder.push(octets);
        while let Ok(Decoded::Message(message)) = self.decoder.decode() {
            self.carry(&message)?;
        }
        Ok(octets.len())
    }
}
