//! Whether the octets of a connection are messages.

use xenstore_proto::limits::{HEADER_LEN, REPLY_PAYLOAD_TOLERATED};

use super::Violation;
use crate::preamble::ByteOrder;
use crate::record::ConnectionData;

/// What has been received are whole requests and then at most a part of one; what is to be sent is the rest of a message and
/// then whole ones. Since a connection's lengths are told nowhere else, this is how wrong ones show.
///
/// Messages are in the byte order of the machine they were made on, whatever that of the stream is.
pub(crate) fn check_messages(connection: &ConnectionData<'_>) -> Option<Violation> {
    let orders = [ByteOrder::Little, ByteOrder::Big];
    let rest = usize::from(connection.output_rest);
    let output = connection.output.get(rest..).unwrap_or_default();
    if orders.iter().all(|order| whole_messages(connection.input, *order).is_none()) {
        Some(Violation::Input { connection: connection.id })
    } else if orders.iter().all(|order| whole_messages(output, *order) != Some(0)) {
        Some(Violation::Output { connection: connection.id })
    } else {
        None
    }
}

/// How many octets are left behind the last whole message; `None` if one claims more than any server takes.
fn whole_messages(mut octets: &[u8], order: ByteOrder) -> Option<usize> {
    while let Some(header) = octets.first_chunk::<HEADER_LEN>() {
        let [.., a, b, c, d] = *header;
        let payload = usize::try_from(order.u32([a, b, c, d])).ok()?;
        if payload > REPLY_PAYLOAD_TOLERATED {
            return None;
        }
        match octets.get(HEADER_LEN + payload..) {
            Some(rest) => octets = rest,
            None => break,
        }
    }
    Some(octets.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ConnectionId, ConnectionSpec};

    fn message(order: ByteOrder, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap();
        let words = [2, 7, 0, len].map(|word: u32| order.u32_octets(word));
        [words.as_flattened(), payload].concat()
    }

    fn violation(input: &[u8], output_rest: u16, output: &[u8]) -> Option<Violation> {
        let id = ConnectionId::new(1).unwrap();
        let spec = ConnectionSpec::Socket { fd: 3 };
        check_messages(&ConnectionData { id, spec, input, output_rest, output, unique_id: None })
    }

    #[test]
    fn whole_requests_and_a_part_of_one_are_in_order() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let whole = [message(order, b"/a\0"), message(order, b"")].concat();
            for cut in 0..whole.len() {
                assert_eq!(violation(&whole[..cut], 0, &[]), None, "{cut}");
            }
            assert_eq!(violation(&whole, 0, &whole), None);
            let rest = [b"the rest", &*whole].concat();
            assert_eq!(violation(&[], 8, &rest), None);
        }
    }

    #[test]
    fn octets_that_are_no_messages_are_found() {
        let connection = ConnectionId::new(1).unwrap();
        let whole = message(ByteOrder::Little, b"/a\0");
        let mut long = whole.clone();
        long[14..].fill(0xff);
        assert_eq!(violation(&long, 0, &[]), Some(Violation::Input { connection }));
        for (rest, output) in [(0, &whole[..5]), (1, &whole), (0, &whole[1..])] {
            assert_eq!(violation(&[], rest, output), Some(Violation::Output { connection }));
        }
    }
}
