//! How a node is laid out in a database of small entries.
//!
//! ```text
//! key     id (8) | number of the piece (2)
//! value   the piece: at most 4096 octets of
//!         parent (8) | length of the name (2) | name | number of permissions (2)
//!         | for each: letter (1) domid (2) | value
//! ```
//!
//! All numbers big-endian, so that the entries of one node stand together and those of its parent before them.
//!
//! In pieces, because sled writes what is over 128 KiB, a page with its up to 17 or so entries, into a file of its own,
//! which it neither syncs nor removes in an order that a crash could not spoil. With pieces of 4 KiB no page comes near
//! that, and everything is in the one file that is synced.

use xenstore_proto::{Access, DomId, Perm, Perms};

use super::{BackendError, KeptNode};

/// Octets of a node in one entry.
const PIECE: usize = 4096;

/// What the keys of a node's entries start with.
pub(super) fn prefix(id: u64) -> [u8; 8] {
    id.to_be_bytes()
}

/// The entries of a node.
pub(super) fn entries(node: &KeptNode) -> Vec<([u8; 10], Vec<u8>)> {
    let perms = node.perms.entries();
    let mut octets = Vec::new();
    octets.extend_from_slice(&node.parent.to_be_bytes());
    octets.extend_from_slice(&short(node.name.len()).to_be_bytes());
    octets.extend_from_slice(node.name.as_bytes());
    octets.extend_from_slice(&short(perms.len()).to_be_bytes());
    for perm in perms {
        octets.push(match perm.access {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        });
        octets.extend_from_slice(&perm.domid.get().to_be_bytes());
    }
    octets.extend_from_slice(&node.value);
    let pieces = octets.chunks(PIECE).map(<[u8]>::to_vec);
    (0_u16..).map(|number| key(node.id, number)).zip(pieces).collect()
}

/// The nodes of all entries, in the order of their keys.
pub(super) fn nodes<E>(
    entries: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>>,
) -> Result<Result<Vec<KeptNode>, BackendError>, E> {
    let mut nodes = Vec::new();
    let mut current: Option<(u64, u16, Vec<u8>)> = None;
    let mut take = |done: Option<(u64, u16, Vec<u8>)>| -> Result<(), BackendError> {
        if let Some((id, _, octets)) = done {
            nodes.push(node(id, &octets).ok_or(damaged(id, "not laid out as a node"))?);
        }
        Ok(())
    };
    for entry in entries {
        let (key, piece) = entry?;
        let Some((id, number)) = split(&key) else {
            return Ok(Err(damaged(0, "an entry that is no node's")));
        };
        match &mut current {
            Some((known, last, octets)) if *known == id && number == *last + 1 => {
                *last = number;
                octets.extend_from_slice(&piece);
            }
            _ if number != 0 => return Ok(Err(damaged(id, "a piece is missing"))),
            _ => {
                if let Err(error) = take(current.replace((id, 0, piece))) {
                    return Ok(Err(error));
                }
            }
        }
    }
    let last = take(current);
    Ok(last.map(|()| nodes))
}

fn key(id: u64, number: u16) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&prefix(id));
    key[8..].copy_from_slice(&number.to_be_bytes());
    key
}

fn split(key: &[u8]) -> Option<(u64, u16)> {
    let (id, number) = key.split_first_chunk()?;
    Some((u64::from_be_bytes(*id), u16::from_be_bytes(number.try_into().ok()?)))
}

fn node(id: u64, octets: &[u8]) -> Option<KeptNode> {
    let (parent, rest) = octets.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
    let (count, rest) = rest.split_first_chunk()?;
    let (perms, value) = rest.split_at_checked(3 * usize::from(u16::from_be_bytes(*count)))?;
    let perm = |octets: &[u8]| {
        let access = match octets[0] {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return None,
        };
        Some(Perm::new(access, DomId::new(u16::from_be_bytes([octets[1], octets[2]]))))
    };
    let perms = perms.chunks_exact(3).map(perm).collect::<Option<Vec<_>>>()?;
    Some(KeptNode {
        id,
        parent: u64::from_be_bytes(*parent),
        name: str::from_utf8(name).ok()?.into(),
        value: value.to_vec(),
        perms: Perms::new(perms).ok()?,
    })
}

fn damaged(id: u64, what: &'static str) -> BackendError {
    BackendError::Damaged { id, what }
}

/// Names are shorter than paths, and permissions than messages.
fn short(len: usize) -> u16 {
    u16::try_from(len).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn sample(id: u64, len: usize) -> KeptNode {
        KeptNode {
            id,
            parent: id / 2,
            name: "n".repeat(len).into(),
            value: vec![0xa5; len],
            perms: "b0,r7,w65535,n3".parse().unwrap(),
        }
    }

    fn read(entries: Vec<([u8; 10], Vec<u8>)>) -> Result<Vec<KeptNode>, BackendError> {
        let entries = entries.into_iter().map(|(key, value)| Ok((key.to_vec(), value)));
        nodes::<Infallible>(entries).unwrap()
    }

    #[test]
    fn nodes_of_any_length_are_read_back() {
        let written: Vec<_> =
            [0, 1, 2000, 3071].iter().zip(1..).map(|(&len, id)| sample(id, len)).collect();
        let all: Vec<_> = written.iter().flat_map(entries).collect();
        assert!(all.iter().all(|(_, piece)| piece.len() <= PIECE));
        assert_eq!(all.len(), 5, "only the longest takes two");
        assert_eq!(read(all).unwrap(), written);
        assert_eq!(read(Vec::new()).unwrap(), []);
    }

    #[test]
    fn a_layout_is_the_same_for_ever() {
        let node = KeptNode {
            id: 258,
            parent: 3,
            name: "ab".into(),
            value: b"v".to_vec(),
            perms: "n0,r7".parse().unwrap(),
        };
        let expected = b"\0\0\0\0\0\0\0\x03\0\x02ab\0\x02n\0\0r\0\x07v".to_vec();
        assert_eq!(entries(&node), [(*b"\0\0\0\0\0\0\x01\x02\0\0", expected)]);
    }

    #[test]
    fn entries_that_are_no_node_are_named() {
        let whole = entries(&sample(9, 3000));
        let mut lacking = whole.clone();
        lacking.remove(0);
        assert!(matches!(read(lacking), Err(BackendError::Damaged { id: 9, .. })));
        let mut short = whole.clone();
        short.truncate(1);
        short[0].1.truncate(11);
        assert!(matches!(read(short), Err(BackendError::Damaged { id: 9, .. })));
        let mut letter = entries(&sample(9, 1));
        letter[0].1[13] = b'x';
        assert!(matches!(read(letter), Err(BackendError::Damaged { id: 9, .. })));
    }
}
