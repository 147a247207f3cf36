//! What the fuzz target of this crate runs; the tests replay its corpus through the same function.

use crate::{Decoded, Decoder, MessageType, Reply, Request, RequestId, TxId, WatchEvent, limits};

/// Decodes octets as a stream in two pieces, and checks that whatever decodes also encodes to the same meaning.
///
/// The first octet says where the rest is cut.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn decode_stream(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else { return };
    let (first, second) = stream.split_at(usize::from(cut).min(stream.len()));
    let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
    for piece in [first, second] {
        decoder.push(piece);
        while let Ok(Decoded::Message(message)) = decoder.decode() {
            if let Ok(request) = Request::decode(&message) {
                let mut wire = Vec::new();
                if request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut wire).is_ok()
                {
                    let mut again = Decoder::new(limits::PAYLOAD_MAX);
                    again.push(&wire);
                    let Ok(Decoded::Message(again)) = again.decode() else {
                        unreachable!("an encoded request is a whole message")
                    };
                    assert_eq!(Request::decode(&again).as_ref(), Ok(&request));
                }
            }
            let _ = WatchEvent::decode(&message);
            let _ = Reply::decode(message.ty, &message);
            let _ = Reply::decode(MessageType(message.request_id.0 % 30), &message);
        }
        assert!(decoder.pending() <= stream.len());
    }
}
