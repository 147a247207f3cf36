//! Sets of small numbers: virtual CPUs, host CPUs, NUMA nodes.

use std::collections::BTreeSet;

use super::field::{Field, Style, array, integer, lexeme};
use crate::finding::FindingKind;
use crate::json::{Place, Value};
use crate::sink::Sink;

/// A set of bit numbers.
///
/// In JSON a sorted list of the bits that are set. libxl sizes the bitmap by the last of them and drops earlier ones
/// that are larger; this reader keeps them all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Bitmap(BTreeSet<u32>);

impl Bitmap {
    /// No bit set, which libxl cannot tell from a bitmap that was never set.
    pub fn new() -> Bitmap {
        Bitmap::default()
    }

    /// Whether the bit is set.
    pub fn contains(&self, bit: u32) -> bool {
        self.0.contains(&bit)
    }

    /// Sets the bit.
    pub fn insert(&mut self, bit: u32) {
        self.0.insert(bit);
    }

    /// Clears the bit.
    pub fn remove(&mut self, bit: u32) {
        self.0.remove(&bit);
    }

    /// The bits that are set, from the lowest.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().copied()
    }

    /// How many bits are set.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no bit is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<u32> for Bitmap {
    fn from_iter<I: IntoIterator<Item = u32>>(bits: I) -> Bitmap {
        Bitmap(bits.into_iter().collect())
    }
}

impl Field for Bitmap {
    fn schema_type() -> String {
        "bitmap".to_owned()
    }

    fn parse(raw: &Value, place: &Place<'_>, sink: &mut Sink) -> Option<Bitmap> {
        let mut bits = BTreeSet::new();
        let mut last = None;
        for (index, element) in array(raw, place, sink)?.iter().enumerate() {
            let place = place.index(index, place.offset);
            let Some(value) = integer(element, &place, sink) else { continue };
            // libxl holds bit numbers in an int.
            let Some(bit) = i32::try_from(value).ok().and_then(|bit| u32::try_from(bit).ok())
            else {
                sink.note(&place, FindingKind::BitmapBit { lexeme: lexeme(element) });
                continue;
            };
            if last.is_some_and(|last| bit <= last) {
                sink.note(&place, FindingKind::BitmapOrder { bit });
            }
            last = Some(bit);
            bits.insert(bit);
        }
        Some(Bitmap(bits))
    }

    fn emit(&self, _raw: Option<&Value>, _style: Style) -> Value {
        self.iter().map(|bit| Value::from(u64::from(bit))).collect()
    }
}
