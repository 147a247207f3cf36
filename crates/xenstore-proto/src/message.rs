//! Whole messages, and the decoder that finds them in a stream of octets.

use crate::header::{Header, MessageType, RequestId, TxId};
use crate::limits::HEADER_LEN;

/// A header and its payload, not looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the message is.
    pub ty: MessageType,
    /// Which request it is or answers.
    pub request_id: RequestId,
    /// In which transaction.
    pub tx_id: TxId,
    /// The octets after the header.
    pub payload: Vec<u8>,
}

impl Message {
    /// Appends the message as it stands on the wire.
    ///
    /// # Errors
    ///
    /// If the payload is longer than `payload_max`; nothing is appended then.
    pub fn encode(&self, payload_max: usize, out: &mut Vec<u8>) -> Result<(), PayloadTooLong> {
        encode_message(self.ty, self.request_id, self.tx_id, payload_max, out, |out| {
            out.extend_from_slice(&self.payload);
        })
    }
}

/// A payload longer than a message may carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("payload of {len} octets is longer than the {max} a message may carry")]
pub struct PayloadTooLong {
    /// Octets of payload.
    pub len: usize,
    /// Octets allowed.
    pub max: usize,
}

/// Appends a header and what `payload` appends, with the length filled in afterwards; or nothing, if it is too long.
pub(crate) fn encode_message(
    ty: MessageType,
    request_id: RequestId,
    tx_id: TxId,
    payload_max: usize,
    out: &mut Vec<u8>,
    payload: impl FnOnce(&mut Vec<u8>),
) -> Result<(), PayloadTooLong> {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN]);
    payload(out);
    let len = out.len() - start - HEADER_LEN;
    let Some(wire_len) = u32::try_from(len).ok().filter(|_| len <= payload_max) else {
        out.truncate(start);
        return Err(PayloadTooLong { len, max: payload_max });
    };
    let header = Header { ty, request_id, tx_id, len: wire_len };
    out[start..start + HEADER_LEN].copy_from_slice(&header.to_octets());
    Ok(())
}

/// Finds messages in octets that arrive in pieces of any size.
///
/// Feed with [`Decoder::push`], then take with [`Decoder::decode`] until it asks for more. It holds no more octets than
/// were pushed and not yet taken; a header that claims too long a payload breaks the stream at once, since where the next
/// message starts can no longer be known.
#[derive(Debug)]
pub struct Decoder {
    payload_max: usize,
    buffer: Vec<u8>,
    taken: usize,
    broken: Option<Broken>,
}

/// What [`Decoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// No whole message: at least so many more octets are needed.
    Need(usize),
    /// A message, taken out of the decoder.
    Message(Message),
}

/// The stream can no longer be understood; every later call answers the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{ty} header claims a payload of {claimed} octets, more than the {max} allowed")]
pub struct Broken {
    /// The type the header names.
    pub ty: MessageType,
    /// The length the header claims.
    pub claimed: u32,
    /// The longest payload accepted.
    pub max: usize,
}

impl Decoder {
    /// A decoder that accepts payloads of at most `payload_max` octets.
    pub fn new(payload_max: usize) -> Self {
        Self { payload_max, buffer: Vec::new(), taken: 0, broken: None }
    }

    /// Takes octets in.
    pub fn push(&mut self, octets: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        if self.taken > 0 && self.taken >= self.buffer.len() / 2 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        self.buffer.extend_from_slice(octets);
    }

    /// Gives the next whole message out.
    pub fn decode(&mut self) -> Result<Decoded, Broken> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let rest = &self.buffer[self.taken..];
        let Some((header, after)) = rest.split_first_chunk::<HEADER_LEN>() else {
            return Ok(Decoded::Need(HEADER_LEN - rest.len()));
        };
        let header = Header::from_octets(header);
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if len > self.payload_max {
            let broken = Broken { ty: header.ty, claimed: header.len, max: self.payload_max };
            self.broken = Some(broken.clone());
            self.buffer = Vec::new();
            self.taken = 0;
            return Err(broken);
        }
        let Some(payload) = after.get(..len) else {
            return Ok(Decoded::Need(len - after.len()));
        };
        let payload = payload.to_vec();
        self.taken += HEADER_LEN + len;
        let Header { ty, request_id, tx_id, .. } = header;
        Ok(Decoded::Message(Message { ty, request_id, tx_id, payload }))
    }

    /// Those octets: whole messages that were not asked for yet, then at most a part of one.
    pub fn undecoded(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Octets taken in that no message given out covers: more than 0 when the stream ends means it was cut.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.taken
    }
}
