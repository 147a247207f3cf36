//! What is not the same, and why: all of it. docs/xenstored-behaviour.md says the same in prose.

use std::collections::BTreeMap;

use xenstore_proto::{Message, MessageType};

use crate::steps::{DOM0_CLIENTS, Step};

/// A difference that is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    ReadsAtTheStart,
    NoConflict,
    ReadOnlyCommits,
    LateFirstAccess,
    ToldOfTheWay,
    OrderInACommit,
    ParentGoneToo,
    StaleErrno,
    OctetsLeftOver,
    LooseNumbers,
    SpecialPermsAreRead,
    UnwatchOfNoPath,
    MutualTargets,
    ReservedDomains,
    TargetsAdd,
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
        MessageType::DIRECTORY_PART if left_over => Some(Difference::OctetsLeftOver),
        MessageType::SET_TARGET if left_over || strings != 2 => {
            Some(Difference::OctetsLeftOver)
        }
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
        MessageType::INTRODUCE if step.payload.starts_with(b"32") || step.payload.starts_with(b"65535") => {
            Some(Difference::ReservedDomains)
        }
        MessageType::SET_PERMS
            if step.payload.split(|&c| c == 0).nth(1).is_some_and(|owner| owner.ends_with(b"32752")) =>
        {
            Some(Difference::ReservedDomains)
        }
        _ if !has_plain_numbers(step) => Some(Difference::LooseNumbers),
        _ => None,
    }
}

/// Whether a domain could become the target of its own target: only lower ones are targets.
fn is_of_mutual_targets(payload: &[u8]) -> bool {
    let mut domids = payload.split(|&c| c == 0).filter_map(|text| str::from_utf8(text).ok()?.parse::<u16>().ok());
    domids.next().zip(domids.next()).is_some_and(|(domid, target)| domid <= target)
}

/// Whether what has to be a number is one: digits only, and a domain id in 16 bits.
fn has_plain_numbers(step: &Step) -> bool {
    let mut strings = step.payload.split(|&c| c == 0).map(|text| str::from_utf8(text).unwrap_or(""));
    let digits = |text: &str| text.bytes().all(|c| c.is_ascii_digit());
    let mut domid = || strings.next().is_some_and(|text| digits(text) && text.parse::<u16>().is_ok());
    match step.ty {
        MessageType::RELEASE
        | MessageType::RESUME
        | MessageType::IS_DOMAIN_INTRODUCED
        | MessageType::GET_DOMAIN_PATH => domid(),
        MessageType::SET_TARGET => domid() && domid(),
        MessageType::INTRODUCE => domid() && strings.take(2).all(digits),
        MessageType::SET_PERMS => !strings.skip(1).any(|perm| perm == "r-1" || perm == "r99999"),
        MessageType::DIRECTORY_PART => strings.nth(1).is_some_and(|text| text.parse::<u32>().is_ok()),
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
