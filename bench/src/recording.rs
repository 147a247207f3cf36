//! A transport that notes which nodes are read through it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use xsclient::{Decoded, Decoder, Interest, Manner, Readiness, Request, Transport, limits};

/// Passes everything on.
pub(crate) struct Recording<T> {
    inner: T,
    decoder: Decoder,
    reads: Arc<Mutex<Vec<Request>>>,
}

impl<T: Transport> Recording<T> {
    /// The transport, and where the requests that read something end up in their order.
    pub(crate) fn new(inner: T) -> (Self, Arc<Mutex<Vec<Request>>>) {
        let reads = Arc::new(Mutex::new(Vec::new()));
        (
            Self { inner, decoder: Decoder::new(limits::PAYLOAD_MAX), reads: Arc::clone(&reads) },
            reads,
        )
    }
}

impl<T: Transport> Transport for Recording<T> {
    fn manner(&self) -> Manner {
        self.inner.manner()
    }

    fn wait(&mut self, interest: Interest, deadline: Instant) -> io::Result<Readiness> {
        self.inner.wait(interest, deadline)
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.inner.receive(buffer)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        let sent = self.inner.send(octets)?;
        self.decoder.push(&octets[..sent]);
        while let Ok(Decoded::Message(message)) = self.decoder.decode() {
            if let Ok(request @ (Request::Read(_) | Request::Directory(_))) =
                Request::decode(&message)
            {
                self.reads.lock().unwrap_or_else(PoisonError::into_inner).push(request);
            }
        }
        Ok(sent)
    }
}
