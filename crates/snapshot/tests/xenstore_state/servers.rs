//! Servers that know more, or less, than the one in this process.

use std::collections::BTreeMap;

use snapshot::xenstore_state::{
    ExtractError, Extracted, Means, Missing, MissingReason, StatePart, extract,
};
use xsclient::{Errno, Features, QuotaName, QuotaQuery, Reply, Request};

use crate::faults::{self, Fate};
use crate::hosts::{self, GUEST, path, request};

fn quota(name: &str) -> QuotaName {
    QuotaName::from_octets(name.as_bytes()).unwrap()
}

/// Reads the guest from a server that answers some requests in its own way.
fn read_from(
    means: Means,
    mut answer: impl FnMut(&Request) -> Option<Reply> + Send + 'static,
) -> Extracted {
    let xenstore = hosts::xenstore();
    let decide = move |request: &Request| answer(request).map_or(Fate::Pass, Fate::Answer);
    extract(&mut faults::client(&xenstore, decide), &request(means)).unwrap()
}

fn reason(extracted: &Extracted, part: &StatePart) -> Option<MissingReason> {
    let found = extracted.missing.iter().find(|missing| missing.part == *part);
    found.map(|Missing { reason, .. }| reason.clone())
}

#[test]
fn features_and_quotas_come_from_a_server_that_knows_them_without_another_round_trip() {
    for means in [Means::Fence, Means::Transaction] {
        let plain = read_from(means, |_| None);
        let extracted = read_from(means, |request| match request {
            Request::GetFeature(Some(GUEST)) => Some(Reply::Features(Features(0x8000_000e))),
            Request::GetQuota(QuotaQuery::Names) => {
                Some(Reply::QuotaNames(["nodes", "memory", "unheard-of"].map(quota).to_vec()))
            }
            Request::GetQuota(QuotaQuery::Domain(GUEST, name)) => Some(match name.as_str() {
                "nodes" => Reply::QuotaValue(2000),
                "unheard-of" => Reply::QuotaValue(0),
                _ => Reply::Error(Errno::EINVAL),
            }),
            _ => None,
        });
        assert_eq!(extracted.state.features, Some(Features(0x8000_000e)));
        let expected = BTreeMap::from([(quota("nodes"), 2000), (quota("unheard-of"), 0)]);
        assert_eq!(extracted.state.quotas, expected);
        assert!(reason(&extracted, &StatePart::Features).is_none());
        assert!(reason(&extracted, &StatePart::Quotas).is_none());
        assert!(reason(&extracted, &StatePart::Quota(quota("memory"))).is_some());
        assert_eq!(extracted.round_trips, plain.round_trips);
    }
}

/// oxenstored answers an empty payload only when something else follows.
#[test]
fn a_server_without_get_feature_is_never_sent_an_empty_payload() {
    for errno in [Errno::ENOSYS, Errno::EINVAL] {
        let extracted = read_from(Means::Transport, move |request| match request {
            Request::GetFeature(Some(GUEST)) => Some(Reply::Error(errno.clone())),
            Request::GetFeature(None) | Request::GetQuota(_) => panic!("{request:?}"),
            _ => None,
        });
        for part in [StatePart::Features, StatePart::Quotas] {
            assert!(matches!(reason(&extracted, &part), Some(MissingReason::Unreadable(_))));
        }
    }
}

/// oxenstored lets a guest write permissions for numbers that no domain can have.
#[test]
fn permissions_that_cannot_be_held_leave_the_node_out_and_name_it() {
    let extracted = read_from(Means::Transport, |request| match request {
        Request::GetPerms(at) if at.as_str() == "/local/domain/7/data/app" => {
            Some(Reply::Unknown(b"n99999\0n-1\0".to_vec()))
        }
        _ => None,
    });
    let app = path("/local/domain/7/data/app");
    assert!(extracted.state.nodes.keys().all(|path| !path.is_at_or_below(&app)));
    assert_eq!(extracted.state.nodes.len(), 15);
    let reason = reason(&extracted, &StatePart::Node(app)).unwrap();
    assert!(reason.to_string().contains("GET_PERMS of /local/domain/7/data/app"), "{reason}");
}

/// A directory of the longest path can only show children that no request can name.
#[test]
fn children_whose_paths_are_too_long_are_said_to_be_there() {
    let long = "x".repeat(3000);
    let name = long.clone();
    let extracted = read_from(Means::Transport, move |request| match request {
        Request::Directory(at) if at.as_str() == "/local/domain/7/data" => {
            Some(Reply::Names(vec![name.parse().unwrap()]))
        }
        Request::Directory(at) if at.as_str().ends_with(&name) => {
            Some(Reply::Names(vec!["y".repeat(100).parse().unwrap()]))
        }
        Request::Read(at) if at.as_str().ends_with(&name) => Some(Reply::Value(Vec::new())),
        Request::GetPerms(at) if at.as_str().ends_with(&name) => {
            Some(Reply::Perms("n7".parse().unwrap()))
        }
        _ => None,
    });
    let at = path(&format!("/local/domain/7/data/{long}"));
    assert!(extracted.state.nodes.contains_key(&at));
    let reason = reason(&extracted, &StatePart::Children(at));
    assert!(matches!(reason, Some(MissingReason::PathTooLong)), "{:?}", extracted.missing);
}

/// On the xenbus device an event may come long after the reply that it came before.
#[test]
fn where_events_are_not_in_order_the_read_is_a_transaction_and_a_fence_is_refused() {
    let xenstore = hosts::xenstore();
    let mut client = faults::client_with_separate_events(&xenstore, |request| match request {
        Request::Watch { .. } => panic!("{request:?}"),
        _ => Fate::Pass,
    });
    let extracted = extract(&mut client, &request(Means::Transport)).unwrap();
    assert_eq!(extracted.state, hosts::extract_guest(&xenstore).state);
    let error = extract(&mut client, &request(Means::Fence)).unwrap_err();
    assert!(matches!(error, ExtractError::UnorderedEvents { domid: GUEST }), "{error}");
}
