//! What is not the same, and why: all of it. docs/xenstored-behaviour.md says the same in prose.

use std::collections::BTreeMap;

use xenstore_proto::{Message, MessageType};

use crate::steps::{DOM0_CLIENTS, Step};

macro_rules! differences {
    ($($name:ident $title:literal $how:literal $why:literal,)*) => {
        /// A difference that is meant. What its `#[doc]` says is why.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Difference {
            $(#[doc = $why] $name,)*
        }

        /// All, each with what it is (as docs/xenstored-behaviour.md has it), how the comparison treats it, and why it is.
        pub(crate) const ALL: &[(Difference, &str, &str, &str)] =
            &[$((Difference::$name, $title, $how, $why),)*];
    };
}

differences! {
    ReadsAtTheStart
        "A transaction sees the store as it was when it started"
        "accepted for transactions that others' changes have overtaken; when ours commits, all of it is done again with the stock daemon and must be answered the same"
        "The stock daemon reads each node at its first access, so that one transaction may see parts of different states.",
    NoConflict
        "Commits that do not conflict"
        "the transaction is done again with the stock daemon, which must answer, tell and store the same as we did"
        "The stock daemon sees a conflict wherever an accessed node was changed in any way: a sibling created, a value rewritten as it was, a blind write.",
    ReadOnlyCommits
        "A transaction that has changed nothing commits"
        "accepted"
        "It has read one state of the store, and there is nothing that could conflict.",
    LateFirstAccess
        "What a transaction wrote to must not have been removed"
        "accepted where something was removed or read before; the transaction is done again with ours, which must answer and tell the same"
        "The stock daemon only compares from the first access of a node on; what happened between the start and that is no conflict.",
    ToldOfTheWay
        "Nodes created on the way to others are not told of"
        "the stock daemon's events of nodes above others in the same commit are left out"
        "The stock daemon does not tell of them outside transactions either.",
    OrderInACommit
        "Events of a commit come in the order of the first changes"
        "a watch's events of one commit may come in another order"
        "The stock daemon has the order of the first accesses, reads and failures included.",
    ParentReadable
        "Who can read a node's parent hears of the node"
        "more events of a commit about nodes that are gone, or that the client may not read, are accepted"
        "In commits, the stock daemon asks for the node's own permissions and for nothing else; outside transactions, the parent's count too.",
    StaleErrno
        "Malformed paths are answered with EINVAL"
        "not asked: 4.17 answers with the errno of whatever failed before, or not at all"
        "Reading errno without setting it is a defect of 4.17.",
    OctetsLeftOver
        "Octets after the last argument are malformed"
        "not asked, except where the protocol reserves them (SET_PERMS, WATCH, UNWATCH, INTRODUCE)"
        "The stock daemon counts NULs and ignores the rest.",
    LooseNumbers
        "Numbers are of digits only, and in range"
        "not asked"
        "4.17 reads what atoi makes of it: x is 0, and 65536 is too. Later ones are strict.",
    SpecialPermsAreRead
        "Permissions of special names can be read, and are of no transaction"
        "not asked by GET_PERMS, nor by guests, and asked outside transactions"
        "4.17 refuses to read them, and tells a guest that the name does not exist. Later ones answer.",
    UnwatchOfNoPath
        "UNWATCH of what is no path is answered with EINVAL"
        "ENOENT from the stock daemon is accepted"
        "4.17 does not check the path; there can be no such watch either way.",
    MutualTargets
        "Domains can be each other's target"
        "not asked: only lower domains become targets"
        "4.17 never lets go of two such domains, so that RELEASE has no effect any more.",
    TargetsAdd
        "A target's permissions add to the domain's own"
        "a domain with a target only reads; EACCES from the stock daemon is accepted"
        "With the stock daemon the first entry that names one of the two counts, so that gaining a target can lose access.",
    ReservedDomains
        "Reserved numbers are no domains"
        "not asked: INTRODUCE and owners in SET_PERMS"
        "The stock daemon asks the hypervisor, and here that says that every domain exists.",
}

/// How often each difference was met.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<Difference, u64>);

impl Tally {
    pub(crate) fn count(&mut self, difference: Difference) {
        *self.0.entry(difference).or_default() += 1;
    }
}

/// A step that is left out, because what it does is different on purpose.
pub(crate) fn avoided(step: &Step) -> Option<Difference> {
    let strings = step.payload.iter().filter(|&&c| c == 0).count();
    let left_over = !step.payload.ends_with(b"\0");
    match step.ty {
        MessageType::READ
        | MessageType::DIRECTORY
        | MessageType::GET_PERMS
        | MessageType::MKDIR
        | MessageType::RM
            if left_over || strings != 1 || is_of_unknown_special(&step.payload) =>
        {
            Some(Difference::StaleErrno)
        }
        MessageType::DIRECTORY_PART | MessageType::CONTROL if left_over => {
            Some(Difference::OctetsLeftOver)
        }
        MessageType::SET_TARGET if left_over || strings != 2 => Some(Difference::OctetsLeftOver),
        MessageType::GET_PERMS if step.payload.starts_with(b"@") => {
            Some(Difference::SpecialPermsAreRead)
        }
        MessageType::SET_PERMS if step.payload.starts_with(b"@") && step.client >= DOM0_CLIENTS => {
            Some(Difference::SpecialPermsAreRead)
        }
        MessageType::SET_PERMS if is_of_unknown_special(&step.payload) => {
            Some(Difference::StaleErrno)
        }
        MessageType::SET_TARGET if is_of_mutual_targets(&step.payload) => {
            Some(Difference::MutualTargets)
        }
        MessageType::INTRODUCE
            if step.payload.starts_with(b"32") || step.payload.starts_with(b"65535") =>
        {
            Some(Difference::ReservedDomains)
        }
        MessageType::SET_PERMS
            if step
                .payload
                .split(|&c| c == 0)
                .nth(1)
                .is_some_and(|owner| owner.ends_with(b"32752")) =>
        {
            Some(Difference::ReservedDomains)
        }
        _ if !has_plain_numbers(step) => Some(Difference::LooseNumbers),
        _ => None,
    }
}

/// Whether a domain could become the target of its own target: only lower ones are targets.
fn is_of_mutual_targets(payload: &[u8]) -> bool {
    let mut domids = payload
        .split(|&c| c == 0)
        .filter_map(|text| str::from_utf8(text).ok()?.parse::<u16>().ok());
    domids.next().zip(domids.next()).is_some_and(|(domid, target)| domid <= target)
}

/// Whether what has to be a number is one: digits only, and a domain id in 16 bits.
fn has_plain_numbers(step: &Step) -> bool {
    let mut strings =
        step.payload.split(|&c| c == 0).map(|text| str::from_utf8(text).unwrap_or(""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let mut domid =
        || strings.next().is_some_and(|text| digits(text) && text.parse::<u16>().is_ok());
    match step.ty {
        MessageType::RELEASE
        | MessageType::RESUME
        | MessageType::IS_DOMAIN_INTRODUCED
        | MessageType::GET_DOMAIN_PATH => domid(),
        MessageType::SET_TARGET => domid() && domid(),
        MessageType::INTRODUCE => domid() && strings.take(2).all(digits),
        MessageType::SET_PERMS => !strings.skip(1).any(|perm| perm == "r-1" || perm == "r99999"),
        MessageType::DIRECTORY_PART => {
            strings.nth(1).is_some_and(|text| text.parse::<u32>().is_ok())
        }
        _ => true,
    }
}

/// Whether it starts with a special name that has no permissions.
fn is_of_unknown_special(payload: &[u8]) -> bool {
    let known = ["@introduceDomain\0", "@releaseDomain\0"];
    payload.starts_with(b"@") && !known.iter().any(|known| payload.starts_with(known.as_bytes()))
}

/// The difference that two replies to one request show.
pub(crate) fn of_replies(step: &Step, theirs: &Message, ours: &Message) -> Option<Difference> {
    match (step.ty, &*theirs.payload, &*ours.payload) {
        (MessageType::UNWATCH, b"ENOENT\0", b"EINVAL\0") => Some(Difference::UnwatchOfNoPath),
        _ => None,
    }
}

/// Whether the request is about the permissions of a special name.
pub(crate) fn is_of_special_perms(ty: MessageType, payload: &[u8]) -> bool {
    matches!(ty, MessageType::GET_PERMS | MessageType::SET_PERMS) && payload.starts_with(b"@")
}

/// Whether a path is on the way to one of the others.
pub(crate) fn told_of_the_way(path: &[u8], others: &[Vec<u8>]) -> bool {
    let below = [path, b"/"].concat();
    others.iter().any(|other| other.starts_with(&below))
}

#[test]
fn every_difference_stands_in_the_documentation() {
    let documentation = include_str!("../../../../docs/xenstored-behaviour.md");
    for (difference, title, how, why) in ALL {
        assert!(documentation.contains(title), "{difference:?}: {title} is not documented");
        assert!(!how.is_empty() && !why.is_empty());
    }
}
