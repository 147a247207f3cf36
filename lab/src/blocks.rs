//! Contents of disks that can be told from any other: patterns, and numbered blocks for crash consistency.
//!
//! The guest writes them, and the guest or the host checks them, on any file that holds the disk's octets.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What is written at once, and what O_DIRECT aligns to on every device here.
pub const BLOCK: usize = 4096;

/// The octets of block `index` of the pattern `seed`: no two blocks of any patterns are alike.
pub fn pattern(seed: u64, index: u64) -> Vec<u8> {
    filled(seed, index, 0x7061_7474)
}

/// A block that says that it is the `number`th write of a stream.
pub fn numbered(number: u64) -> Vec<u8> {
    filled(number, number, 0x6e75_6d62)
}

/// The number of a numbered block, or `None` of a block that was not written whole by [`numbered`].
pub fn number_of(block: &[u8]) -> Option<u64> {
    let number = u64::from_le_bytes(block.get(..8)?.try_into().ok()?);
    (block == numbered(number)).then_some(number)
}

/// Fills a block from three words, the first of which it begins with.
fn filled(first: u64, second: u64, kind: u64) -> Vec<u8> {
    let mut block = Vec::with_capacity(BLOCK);
    block.extend(first.to_le_bytes());
    let mut state = first ^ second.rotate_left(32) ^ kind.rotate_left(48);
    while block.len() < BLOCK {
        // splitmix64: every octet depends on all the words.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        block.extend((word ^ (word >> 31)).to_le_bytes());
    }
    block
}

/// The first block among `count` from block `start` on that does not hold the pattern.
pub fn first_difference(file: &File, seed: u64, start: u64, count: u64) -> io::Result<Option<u64>> {
    let mut memory = AlignedBlock::new();
    for index in start..start + count {
        let block = memory.octets();
        file.read_exact_at(block, index * BLOCK as u64)?;
        if *block != pattern(seed, index) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

/// Where a stream of numbered blocks, each written to slot `number % slots` after the one before it was on the disk, had
/// got to when the disk was frozen.
///
/// The answer is the last number, 0 if there is none. An error says which slot should hold what and does not: then later
/// writes were kept and an earlier one was lost.
pub fn last_of_stream(file: &File, slots: u64) -> io::Result<Result<u64, String>> {
    let mut memory = AlignedBlock::new();
    let mut held = Vec::new();
    for slot in 0..slots {
        let block = memory.octets();
        file.read_exact_at(block, slot * BLOCK as u64)?;
        held.push(number_of(block).filter(|number| number % slots == slot));
    }
    Ok(judge_stream(&held))
}

fn judge_stream(held: &[Option<u64>]) -> Result<u64, String> {
    let slots = held.len() as u64;
    let last = held.iter().flatten().copied().max().unwrap_or(0);
    for number in last.saturating_sub(slots - 1).max(1)..last {
        let found = held[usize::try_from(number % slots).unwrap_or(usize::MAX)];
        // The slot that is written next may be torn.
        let torn_next = found.is_none() && number % slots == (last + 1) % slots;
        if found != Some(number) && !torn_next {
            return Err(format!(
                "write {last} is there, and where {number} should be is {found:?}"
            ));
        }
    }
    Ok(last)
}

/// Memory for one block of O_DIRECT.
#[derive(Debug)]
pub struct AlignedBlock {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBlock {
    /// A block of zeros.
    pub fn new() -> AlignedBlock {
        let memory = vec![0; 2 * BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        AlignedBlock { memory, start }
    }

    /// Its octets, which start at a multiple of [`BLOCK`] in memory.
    pub fn octets(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + BLOCK]
    }
}

impl Default for AlignedBlock {
    fn default() -> AlignedBlock {
        AlignedBlock::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_was_not_written_whole_has_no_number() {
        let block = numbered(7);
        assert_eq!(number_of(&block), Some(7));
        let mut torn = numbered(8);
        torn[512..].copy_from_slice(&block[512..]);
        assert_eq!(number_of(&torn), None);
        assert_eq!(number_of(&[0; BLOCK]), None);
    }

    #[test]
    fn a_lost_write_before_a_kept_one_is_found() {
        // Four slots, written up to 9: slot 0 holds 8, slot 1 9, slot 2 6, slot 3 7.
        let whole = [Some(8), Some(9), Some(6), Some(7)];
        assert_eq!(judge_stream(&whole), Ok(9));
        let torn_next = [Some(8), Some(9), None, Some(7)];
        assert_eq!(judge_stream(&torn_next), Ok(9));
        let lost = [Some(4), Some(9), Some(6), Some(7)];
        assert!(judge_stream(&lost).unwrap_err().contains("where 8 should be is Some(4)"));
        let lost = [None, Some(9), Some(6), Some(7)];
        assert!(judge_stream(&lost).is_err());
        assert_eq!(judge_stream(&[None, Some(1), Some(2), None]), Ok(2));
        assert_eq!(judge_stream(&[None; 4]), Ok(0));
    }

    #[test]
    fn a_changed_block_of_a_pattern_is_named() {
        let file = tempfile::tempfile().unwrap();
        for index in 2..5 {
            file.write_all_at(&pattern(9, index), index * BLOCK as u64).unwrap();
        }
        assert_eq!(first_difference(&file, 9, 2, 3).unwrap(), None);
        file.write_all_at(b"x", 3 * BLOCK as u64 + 4000).unwrap();
        assert_eq!(first_difference(&file, 9, 2, 3).unwrap(), Some(3));
        assert_eq!(first_difference(&file, 8, 2, 1).unwrap(), Some(2));
    }
}
