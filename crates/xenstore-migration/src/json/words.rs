//! What has names: types of records, permissions, what a transaction did, byte orders and peers.

use std::fmt::Write;

use xenstore_proto::{Access, DomId};

use crate::peer::Peer;
use crate::preamble::{ByteOrder, Version};
use crate::record::{NodeAccess, NodePerm, PermFlags, RecordType};

/// `n0,r3`, the first entry the owner's; with those marked that count no more, as `r3(stale)`, and bits without a name,
/// as `r3(flags 0x6)`. `none` if there is none.
pub fn perms_to_text(perms: &[NodePerm]) -> String {
    let mut words = String::new();
    for perm in perms {
        if !words.is_empty() {
            words.push(',');
        }
        // Writing to a String cannot fail.
        let _ = write!(words, "{}{}", perm.access.letter(), perm.domid);
        if perm.flags.contains(PermFlags::STALE) {
            words.push_str("(stale)");
        }
        let rest = perm.flags.0 & !PermFlags::STALE.0;
        if rest != 0 {
            let _ = write!(words, "(flags {rest:#x})");
        }
    }
    if words.is_empty() { NONE.to_owned() } else { words }
}

const NONE: &str = "none";

/// What [`perms_to_text`] has written, or which entry is none.
pub(super) fn perms(text: &str) -> Result<Vec<NodePerm>, usize> {
    if text == NONE {
        return Ok(Vec::new());
    }
    let entries = text.split(',').enumerate();
    entries.map(|(number, entry)| perm(entry).ok_or(number)).collect()
}

fn perm(text: &str) -> Option<NodePerm> {
    let access = match text.chars().next()? {
        'n' => Access::None,
        'r' => Access::Read,
        'w' => Access::Write,
        'b' => Access::Both,
        _ => return None,
    };
    let rest = &text[1..];
    let (domid, mut marks) = rest.split_at(rest.find('(').unwrap_or(rest.len()));
    let domid = DomId::new(decimal(domid)?);
    let mut flags = 0;
    if let Some(rest) = marks.strip_prefix("(stale)") {
        flags |= PermFlags::STALE.0;
        marks = rest;
    }
    if !marks.is_empty() {
        let bits = marks.strip_prefix("(flags ")?.strip_suffix(')')?;
        flags |= u8::try_from(hexadecimal(bits)?).ok()?;
    }
    Some(NodePerm { access, flags: PermFlags(flags), domid })
}

/// `read,written`, with bits without a name as `0x10`; `removed` if there is none.
pub fn access_to_text(access: NodeAccess) -> String {
    if access == NodeAccess::REMOVED {
        return REMOVED.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = access.0;
    for (bit, word) in NAMED {
        if access.contains(bit) {
            words.push(word.to_owned());
            rest &= !bit.0;
        }
    }
    if rest != 0 {
        words.push(format!("{rest:#x}"));
    }
    words.join(",")
}

const REMOVED: &str = "removed";

const NAMED: [(NodeAccess, &str); 2] =
    [(NodeAccess::READ, "read"), (NodeAccess::WRITTEN, "written")];

/// What [`access_to_text`] has written.
pub(super) fn access(text: &str) -> Option<NodeAccess> {
    if text == REMOVED {
        return Some(NodeAccess::REMOVED);
    }
    let mut bits = 0;
    for word in text.split(',') {
        bits |= match NAMED.iter().find(|(_, name)| *name == word) {
            Some((bit, _)) => bit.0,
            None => u16::try_from(hexadecimal(word)?).ok()?,
        };
    }
    Some(NodeAccess(bits))
}

/// What a record's type prints itself as. END is among them.
pub(super) fn record_type(text: &str) -> Option<RecordType> {
    let named = (0..=8).map(RecordType).find(|known| known.name() == Some(text));
    named.or_else(|| text.strip_prefix("type ").and_then(hexadecimal).map(RecordType))
}

pub(super) fn byte_order_of(text: &str) -> Option<ByteOrder> {
    [ByteOrder::Little, ByteOrder::Big].into_iter().find(|order| order.name() == text)
}

pub(super) fn version_of(number: u32) -> Option<Version> {
    [Version::V1, Version::V2].into_iter().find(|version| version.number() == number)
}

pub(super) fn peer_of(name: &str) -> Option<Peer> {
    Peer::ALL.into_iter().find(|peer| peer.name() == name)
}

/// Digits alone: no sign, which `parse` would take.
fn decimal(text: &str) -> Option<u16> {
    text.bytes().all(|octet| octet.is_ascii_digit()).then(|| text.parse().ok())?
}

fn hexadecimal(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    digits
        .bytes()
        .all(|octet| octet.is_ascii_hexdigit())
        .then(|| u32::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_without_a_name_are_shown_and_read_again() {
        for (bits, text) in [
            (0, "removed"),
            (1, "read"),
            (3, "read,written"),
            (0x12, "written,0x10"),
            (0x8000, "0x8000"),
        ] {
            assert_eq!(access_to_text(NodeAccess(bits)), text);
            assert_eq!(access(text), Some(NodeAccess(bits)));
        }
        for flags in 0..=u8::MAX {
            let entry = |domid| NodePerm { access: Access::Read, flags: PermFlags(flags), domid };
            let entries = [entry(DomId::new(3)), entry(DomId::new(u16::MAX))];
            assert_eq!(perms(&perms_to_text(&entries)), Ok(entries.to_vec()));
        }
        let text = "n0,r3(stale),w4(flags 0x6),b5(stale)(flags 0x2)";
        assert_eq!(perms_to_text(&perms(text).unwrap()), text);
        assert_eq!((perms("none"), perms_to_text(&[])), (Ok(vec![]), "none".to_owned()));
    }

    #[test]
    fn what_is_no_permission_is_named_by_its_number() {
        for (text, number) in [
            ("", 0),
            ("n", 0),
            ("n0,", 1),
            ("n0,x3", 1),
            ("n0,r+3", 1),
            ("n0,r65536", 1),
            ("n0,r3,none", 2),
            ("n0(stale)x", 0),
            ("n0(flags 6)", 0),
            ("n0(flags 0x100)", 0),
            ("n0(flags 0x)", 0),
            ("n0(stale)(stale)", 0),
            ("n0 ", 0),
            ("\u{e4}0", 0),
        ] {
            assert_eq!(perms(text), Err(number), "{text:?}");
        }
        for text in ["", "read,", "seen", "removed,read", "0x10000", "0x", "0x+1", "16"] {
            assert_eq!(access(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_type_is_read_as_it_is_printed() {
        for number in (0..20).chain([255, 0x1234_5678, u32::MAX]) {
            let printed = RecordType(number).to_string();
            assert_eq!(record_type(&printed), Some(RecordType(number)), "{printed}");
        }
        for text in ["", "type", "type 9", "type 0x", "type 0x100000000", "node_data", "type 0x+9"]
        {
            assert_eq!(record_type(text), None, "{text:?}");
        }
    }
}
