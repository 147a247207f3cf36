//! How a template is laid out in the database.
//!
//! A template is cut into pieces of at most [`PIECE`] octets, each an entry of its own:
//!
//! ```text
//! key:    domid (2, big-endian) | uuid (16) | number of the piece (4, big-endian)
//! value:  piece 0: revision (32) | octets      other pieces: octets
//! ```
//!
//! One more entry, [`LAST_CHANGE`], counts the changes (8, big-endian); its key is shorter than those of templates.
//!
//! In pieces, because the database writes what is over 128 KiB, a page with its up to 17 or so entries, into a file of
//! its own, which it neither syncs nor removes in an order that a crash could not spoil. With pieces of 4 KiB no page
//! comes near that, however large a template is, and everything is in the one file that is synced here.

use uuid::Uuid;

use crate::template::{DomId, Revision, Template, TemplateKey};

/// Name of the tree; another layout gets another name.
pub(super) const TREE: &[u8] = b"templates/1";

/// Key of the entry with the number of the last change.
pub(super) const LAST_CHANGE: &[u8] = b"\xff\xfflast change";

/// Octets of a template in one entry.
const PIECE: usize = 4096;

/// Octets of a revision at the start of piece 0.
const REVISION: usize = 32;

/// What the keys of all entries of templates with this domain id start with.
pub(super) fn domid_prefix(domid: DomId) -> [u8; 2] {
    domid.get().to_be_bytes()
}

/// What the keys of all pieces of a template start with.
pub(super) fn prefix(key: &TemplateKey) -> [u8; 18] {
    let mut prefix = [0; 18];
    prefix[..2].copy_from_slice(&domid_prefix(key.domid));
    prefix[2..].copy_from_slice(key.uuid.as_bytes());
    prefix
}

/// The database key of one piece.
pub(super) fn piece_key(key: &TemplateKey, number: u32) -> [u8; 22] {
    let mut piece = [0; 22];
    piece[..18].copy_from_slice(&prefix(key));
    piece[18..].copy_from_slice(&number.to_be_bytes());
    piece
}

/// Whose template starts with the entry that has this database key; `None` for other pieces and foreign keys.
pub(super) fn first_piece_of(key: &[u8]) -> Option<TemplateKey> {
    let (domid, rest) = key.split_first_chunk::<2>()?;
    let (uuid, number) = rest.split_first_chunk::<16>()?;
    if number != 0_u32.to_be_bytes() {
        return None;
    }
    Some(TemplateKey::new(DomId::new(u16::from_be_bytes(*domid)), Uuid::from_bytes(*uuid)))
}

/// The values of a template's entries, in the order of the pieces.
pub(super) fn pieces(octets: &[u8]) -> impl Iterator<Item = (u32, Vec<u8>)> {
    let digest = Revision::of(octets);
    (0_u32..).zip(octets.chunks(PIECE)).map(move |(number, piece)| match number {
        0 => (0, [digest.as_octets(), piece].concat()),
        number => (number, piece.to_vec()),
    })
}

/// The template of these values, joined in the order of their pieces; `None` if they are not what was stored.
pub(super) fn template(joined: &[u8]) -> Option<Template> {
    let (revision, octets) = joined.split_at_checked(REVISION)?;
    let template = Template::from_octets(octets.to_vec());
    (template.revision.as_octets() == revision).then_some(template)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_template_survives_being_cut_and_joined(octets in prop::collection::vec(any::<u8>(), 1..20_000)) {
            let cut = pieces(&octets).collect::<Vec<_>>();
            prop_assert!(cut.iter().map(|(number, _)| *number).eq(0..u32::try_from(cut.len()).unwrap()));
            prop_assert!(cut.iter().all(|(_, value)| value.len() <= PIECE + REVISION));
            let joined = cut.into_iter().flat_map(|(_, value)| value).collect::<Vec<_>>();
            prop_assert_eq!(template(&joined), Some(Template::from_octets(octets)));
        }

        #[test]
        fn keys_sort_in_the_database_as_they_do_elsewhere(
            keys in prop::collection::vec((any::<u16>(), any::<u128>()), 2)
        ) {
            let keys = keys
                .into_iter()
                .map(|(domid, uuid)| TemplateKey::new(DomId::new(domid), Uuid::from_u128(uuid)))
                .collect::<Vec<_>>();
            prop_assert_eq!(keys[0].cmp(&keys[1]), piece_key(&keys[0], 0).cmp(&piece_key(&keys[1], 0)));
            prop_assert_eq!(first_piece_of(&piece_key(&keys[0], 0)), Some(keys[0]));
            prop_assert_eq!(first_piece_of(&piece_key(&keys[0], 1)), None);
        }
    }

    #[test]
    fn a_piece_that_is_lost_or_changed_is_noticed() {
        let joined = pieces(&[b'x'; 10_000]).flat_map(|(_, value)| value).collect::<Vec<_>>();
        assert!(template(&joined).is_some());
        assert_eq!(template(&joined[..5000]), None);
        assert_eq!(template(&joined[..20]), None);
        let mut changed = joined;
        changed[9000] ^= 1;
        assert_eq!(template(&changed), None);
    }
}
