//! What belongs to a domain besides nodes.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_proto::{DomId, Features, PathOrSpecial, QuotaName, Token};

use super::super::{ConnectionState, DomainState, TransactionState, WatchState};
use crate::record::WatchDepth;

/// What a domain had besides nodes and has not now. Requests that clients have cannot restore it; a server that reads
/// streams can.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attachment {
    /// A watch.
    Watch(WatchState),
    /// An open transaction.
    Transaction(TransactionState),
    /// The domain on whose behalf it acts.
    Target(DomId),
    /// Messages on the way: octets not handled, and octets not sent.
    Messages {
        /// Octets of [`ConnectionState::input`].
        input: usize,
        /// Octets of [`ConnectionState::output`].
        output: usize,
    },
    /// A quota.
    Quota {
        /// Its name.
        name: QuotaName,
        /// Its value; 0 means unlimited.
        value: u32,
    },
    /// What the ring page offered it.
    Features(Features),
}

/// What `wanted` has and `current` has not, or not so.
pub(super) fn missing(current: &DomainState, wanted: &DomainState) -> Vec<Attachment> {
    let mut missing = Vec::new();
    if let Some(connection) = &wanted.connection {
        let nothing = ConnectionState::default();
        of_connection(current.connection.as_ref().unwrap_or(&nothing), connection, &mut missing);
    }
    for (name, value) in &wanted.quotas {
        if current.quotas.get(name) != Some(value) {
            missing.push(Attachment::Quota { name: name.clone(), value: *value });
        }
    }
    let features = wanted.features.filter(|_| wanted.features != current.features);
    missing.extend(features.map(Attachment::Features));
    missing
}

fn of_connection(
    current: &ConnectionState,
    wanted: &ConnectionState,
    missing: &mut Vec<Attachment>,
) {
    let target = wanted.target.filter(|_| wanted.target != current.target);
    missing.extend(target.map(Attachment::Target));
    let has: BTreeSet<WatchKey<'_>> = current.watches.iter().map(key).collect();
    let watches = wanted.watches.iter().filter(|watch| !has.contains(&key(watch)));
    missing.extend(watches.cloned().map(Attachment::Watch));
    let has: BTreeMap<_, _> = current.transactions.iter().map(|open| (open.id.0, open)).collect();
    let transactions = wanted.transactions.iter().filter(|open| has.get(&open.id.0) != Some(open));
    missing.extend(transactions.cloned().map(Attachment::Transaction));
    let messages =
        |state: &ConnectionState| (state.input.clone(), state.output_rest, state.output.clone());
    let some = !wanted.input.is_empty() || !wanted.output.is_empty();
    if some && messages(wanted) != messages(current) {
        let (input, output) = (wanted.input.len(), wanted.output.len());
        missing.push(Attachment::Messages { input, output });
    }
}

type WatchKey<'a> = (&'a PathOrSpecial, &'a Token, Option<WatchDepth>);

fn key(watch: &WatchState) -> WatchKey<'_> {
    (&watch.path, &watch.token, watch.depth)
}
