//! Which pages a stream has told of.

use std::collections::BTreeMap;

/// Most pieces of contiguous pages that are kept track of, in some 20 MiB. A guest's memory has some ten; what is ballooned out is
/// told of as well.
pub(super) const PIECES_MAX: usize = 1 << 19;

/// Which pages have been told of, as pieces of contiguous ones.
#[derive(Debug, Default)]
pub(super) struct SeenPages {
    /// First page, and one more than the last.
    pieces: BTreeMap<u64, u64>,
    /// The piece that grew last.
    current: Option<(u64, u64)>,
}

/// What came of adding a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Again,
    TooMany,
}

impl SeenPages {
    pub(super) fn add(&mut self, pfn: u64) -> Added {
        if let Some((first, end)) = self.current {
            let next_piece = self.pieces.range(end..).next().map(|(first, _)| *first);
            if pfn == end && next_piece != Some(pfn) {
                self.grow(first, end + 1);
                return Added::New;
            }
        }
        let before = self.pieces.range(..=pfn).next_back().map(|(first, end)| (*first, *end));
        if before.is_some_and(|(_, end)| pfn < end) {
            return Added::Again;
        }
        match before {
            Some((first, end)) if end == pfn => self.grow(first, pfn + 1),
            _ if self.pieces.len() >= PIECES_MAX => return Added::TooMany,
            _ => self.grow(pfn, pfn + 1),
        }
        Added::New
    }

    /// Makes a piece end later, and joins it with the one that it then touches.
    fn grow(&mut self, first: u64, end: u64) {
        let end = self.pieces.remove(&end).unwrap_or(end);
        self.pieces.insert(first, end);
        self.current = Some((first, end));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_in_order_is_one_piece() {
        let mut seen = SeenPages::default();
        assert!((0..10_000).all(|pfn| seen.add(pfn) == Added::New));
        assert_eq!(seen.pieces.len(), 1);
        assert!((0..10_000).all(|pfn| seen.add(pfn) == Added::Again));
    }

    #[test]
    fn more_pieces_than_can_be_kept_are_refused() {
        let mut seen = SeenPages::default();
        let most = PIECES_MAX as u64;
        assert!((0..most).all(|piece| seen.add(piece * 2) == Added::New));
        assert_eq!(seen.add(most * 2), Added::TooMany);
        assert_eq!(seen.add(1), Added::New);
        assert_eq!(seen.add(most * 2), Added::New);
    }

    proptest! {
        #[test]
        fn a_page_is_seen_again_exactly_if_it_was_seen(pfns in proptest::collection::vec(0u64..64, 0..200)) {
            let (mut seen, mut model) = (SeenPages::default(), BTreeSet::new());
            for pfn in pfns {
                let expected = if model.insert(pfn) { Added::New } else { Added::Again };
                prop_assert_eq!(seen.add(pfn), expected);
            }
        }
    }
}
