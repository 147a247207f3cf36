//! Bodies of the fuzz targets.

use std::collections::BTreeMap;

use xenstore_proto::limits::PAYLOAD_MAX;
use xenstore_proto::{Decoded, Decoder, DomId};

use crate::accounts::Usage;
use crate::server::Server;
use crate::store::Store;

/// Reads any octets as a store's text, and checks that what was read is written and read back the same.
pub fn text_form(octets: &[u8]) {
    if let Ok(store) = Store::from_text(octets) {
        let again = Store::from_text(store.to_text());
        assert!(again.as_ref() == Ok(&store), "{store:?} read back as {again:?}");
    }
}

/// Hands any octets to a server as what a privileged and an unprivileged client send in turns, and checks that each
/// message is answered and that the store can still be written and read back.
pub fn requests(octets: &[u8]) {
    let start = "/local/domain/1 = \"\"   (n1)\n/local/domain/1/data = \"d\"   (b1,r0)\n/open = \"\"   (b0)\n";
    let mut server = Server::new(Store::from_text(start).unwrap_or_default());
    let connections = [DomId::DOM0, DomId::new(1)].map(|domid| server.connect(domid));
    let mut decoder = Decoder::new(PAYLOAD_MAX);
    decoder.push(octets);
    let mut turns = connections.into_iter().cycle();
    while let (Ok(Decoded::Message(message)), Some(connection)) = (decoder.decode(), turns.next()) {
        server.handle(connection, &message);
        let answered = std::iter::from_fn(|| server.poll_output(connection)).count() > 0;
        assert!(answered || !server.is_open(connection), "no answer to {message:?}");
        accounts_are_exact(&server);
    }
    text_form(server.store().to_text().as_bytes());
}

/// Counts from the start what each domain uses, and checks that the server's accounts say the same.
pub fn accounts_are_exact(server: &Server) {
    let mut counted: BTreeMap<DomId, Usage> = BTreeMap::new();
    let wide = |octets: usize| u64::try_from(octets).unwrap_or(u64::MAX);
    for node in server.store().nodes() {
        let names = server.store().children(&node.path).unwrap_or_default();
        let names: usize = names.iter().map(|name| name.len() + 1).sum();
        let fixed = 16 + 8 * node.perms.entries().len();
        let usage = counted.entry(node.perms.owner()).or_default();
        usage.nodes += 1;
        usage.memory += wide(fixed + node.value.len() + names + node.path.as_str().len());
    }
    for (connection, state) in &server.connections {
        let usage = counted.entry(state.domid).or_default();
        usage.outstanding += wide(state.output.replies());
        usage.memory += wide(state.output.octets());
        for (path, token) in server.watches.of(*connection) {
            usage.watches += 1;
            usage.memory += wide(path.len() + token.as_octets().len());
        }
        for transaction in state.transactions.values() {
            usage.transactions += 1;
            usage.memory += wide(transaction.octets());
        }
    }
    let used = |(_, usage): &(DomId, Usage)| *usage != Usage::default();
    let kept: BTreeMap<_, _> = server.usage().filter(used).collect();
    counted.retain(|_, usage| *usage != Usage::default());
    assert_eq!(kept, counted, "what the accounts say, and what there is");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xenstore_proto::{Message, MessageType, RequestId, TxId};

    proptest! {
        #[test]
        fn streams_of_nearly_right_requests_are_survived(
            messages in proptest::collection::vec((0_u32..28, 0_u32..3, "[/@]?(data|open|a|/)?\0?[01TFnr]{0,4}\0?"), 0..40)
        ) {
            let mut octets = Vec::new();
            for (ty, tx_id, payload) in messages {
                let (ty, tx_id, payload) = (MessageType(ty), TxId(tx_id), payload.into_bytes());
                let message = Message { ty, request_id: RequestId(0), tx_id, payload };
                message.encode(PAYLOAD_MAX, &mut octets).unwrap();
            }
            requests(&octets);
        }
    }
}
