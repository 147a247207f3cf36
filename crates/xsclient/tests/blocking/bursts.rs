//! How much is asked of the transport at once: little of a server that says little, much of one that says much.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::support::*;
use xsclient::*;

/// A server in the transport itself, which has every value at once and fills whatever it is given.
struct Fluent {
    value: Vec<u8>,
    asked: Decoder,
    replies: Vec<u8>,
    /// How many octets there was room for, at each call.
    rooms: Arc<Mutex<Vec<usize>>>,
}

impl Transport for Fluent {
    fn manner(&self) -> Manner {
        Manner {
            framing: Framing::Stream,
            event_order: EventOrder::WithReplies,
            request_payload_max: limits::PAYLOAD_MAX,
        }
    }

    fn wait(&mut self, _interest: Interest, _deadline: Instant) -> io::Result<Readiness> {
        Ok(Readiness { receive: !self.replies.is_empty(), send: true })
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.rooms.lock().unwrap().push(buffer.len());
        let some = buffer.len().min(self.replies.len());
        buffer[..some].copy_from_slice(&self.replies[..some]);
        self.replies.drain(..some);
        Ok(some)
    }

    fn send(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.asked.push(octets);
        while let Decoded::Message(message) = self.asked.decode().unwrap() {
            let request = Request::decode(&message).unwrap();
            let asked = Asked { id: message.request_id, tx: message.tx_id, request };
            self.replies.extend(reply_octets(&asked, &Reply::Value(self.value.clone())));
        }
        Ok(octets.len())
    }
}

/// Reads so many values of so many octets in one batch, and gives how much room there was at each call.
fn rooms_for(values: usize, octets: usize) -> Vec<usize> {
    let rooms = Arc::new(Mutex::new(Vec::new()));
    let value = vec![b'x'; octets];
    let transport = Fluent {
        value: value.clone(),
        asked: Decoder::new(limits::PAYLOAD_MAX),
        replies: Vec::new(),
        rooms: Arc::clone(&rooms),
    };
    let mut client = Client::over(Box::new(transport), Options::with_timeout(LONG));
    let mut batch = Batch::new();
    let slots: Vec<_> = (0..values).map(|at| batch.read(path(&format!("/{at}")))).collect();
    let mut replies = client.run(batch).unwrap();
    for slot in slots {
        assert_eq!(replies.take(slot).unwrap(), value);
    }
    let rooms = rooms.lock().unwrap();
    rooms.clone()
}

#[test]
fn a_burst_takes_few_calls_though_little_is_asked_for_at_first() {
    let rooms = rooms_for(15, 4000);
    assert!(rooms[0] <= 8 * 1024 && rooms.len() <= 4, "{rooms:?}");
    let most = rooms_for(200, 4000).into_iter().max();
    assert_eq!(most, Some(64 * 1024));
}

#[test]
fn a_server_that_says_little_is_never_asked_for_more() {
    let rooms = rooms_for(100, 5);
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
}
