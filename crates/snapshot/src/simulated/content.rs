//! What a simulated guest's memory, virtual CPUs and disks hold at a tick: pure functions.
//!
//! A tick is one round of writing. The guest does in this order, and may be paused between any two steps:
//!
//! 1. page 0 says that tick `t` has begun;
//! 2. four pages of the working set, in turn, get the content of `t`;
//! 3. the log in page 1 gets an entry for `t`;
//! 4. each disk, in order, gets a record for `t` in its slot `t % 1024`;
//! 5. page 0 says that tick `t` is done, and so do the virtual CPUs' registers.
//!
//! It acknowledges a suspend only between ticks. So in a snapshot with memory, page 0 says `begun == done == t`, every other page
//! and the registers are those of `t`, and so is every disk. A disk copied before the suspend lacks records, one copied after
//! the resume has records that the memory does not know of, and memory streamed while the guest runs has pages of several ticks.
//! In a snapshot of disks alone each disk is at the tick of the one before it, or one behind.
//!
//! | pages | content |
//! |---|---|
//! | 0 | the head: what the guest is, which tick has begun, which is done |
//! | 1 | the log: the last 256 ticks |
//! | 2.. | the table of frames, 512 entries a page |
//! | then, up to 256 | the working set |
//! | the rest | by seed: zero, words, random, or one of 16 pages that exist many times |

use super::spec::{GuestSpec, Population};

pub(crate) const PAGE_SIZE: usize = 4096;
pub(crate) type Page = [u8; PAGE_SIZE];

/// The head and the log.
pub(crate) const HEAD_PAGES: u64 = 2;
pub(crate) const P2M_ENTRIES: u64 = 512;
pub(crate) const PAGES_PER_TICK: u64 = 4;
/// The head, a page of the working set at a time, the log; the disks follow.
pub(crate) const STEPS_BEFORE_DISKS: usize = 6;
const _: () = assert!(STEPS_BEFORE_DISKS as u64 == PAGES_PER_TICK + 2);
const LOG_ENTRIES: u64 = 256;
const DUPLICATES: u64 = 16;

/// Xen's entry of a page that is not there.
const NO_FRAME: u64 = u64::MAX;
/// XTAB: no such page. One of the types without data in a stream.
const TYPE_ABSENT: u8 = 0xf;

/// One record a tick, as large as a disk can be relied on to write at once.
pub(crate) const RECORD_SIZE: usize = 512;
/// After so many ticks a record is overwritten.
pub(crate) const RECORDS: u64 = 1024;

/// As large as Xen's `vcpu_guest_context` of x86-64.
pub(crate) const VCPU_SIZE: usize = 5168;
/// Where the user registers are in it: behind the FPU context and the flags.
const VCPU_REGISTERS: usize = 520;

const HEAD_MAGIC: u64 = u64::from_le_bytes(*b"DKGUEST1");
const RECORD_MAGIC: u64 = u64::from_le_bytes(*b"DKRECORD");

/// The head of a guest's memory, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) spec: GuestSpec,
    pub(crate) disks: u64,
    pub(crate) begun: u64,
    pub(crate) done: u64,
}

impl Head {
    pub(crate) fn to_page(&self) -> Page {
        let Self { spec, disks, begun, done } = self;
        let GuestSpec { seed, pages, absent, vcpus, population, tick_us } = spec;
        let Population { text, random, duplicate } = *population;
        let fields = [
            HEAD_MAGIC,
            *seed,
            *pages,
            *absent,
            u64::from(*vcpus),
            u64::from(text),
            u64::from(random),
            u64::from(duplicate),
            *tick_us,
            *disks,
            *begun,
            *done,
        ];
        let mut page = [0; PAGE_SIZE];
        for (at, field) in page.chunks_exact_mut(8).zip(fields) {
            at.copy_from_slice(&field.to_le_bytes());
        }
        page
    }

    /// `None` if the page is no head of a possible guest.
    pub(crate) fn from_page(page: &Page) -> Option<Self> {
        let mut fields = page.chunks_exact(8).map(word);
        let mut next = || fields.next().unwrap_or_default();
        if next() != HEAD_MAGIC {
            return None;
        }
        let (seed, pages, absent) = (next(), next(), next());
        let vcpus = next().try_into().ok()?;
        let population = Population {
            text: next().try_into().ok()?,
            random: next().try_into().ok()?,
            duplicate: next().try_into().ok()?,
        };
        let spec = GuestSpec { seed, pages, absent, vcpus, population, tick_us: next() };
        let head = Self { spec, disks: next(), begun: next(), done: next() };
        head.spec.is_possible().then_some(head)
    }
}

/// Page `pfn` after tick `tick` is done.
pub(crate) fn page(spec: &GuestSpec, disks: u64, pfn: u64, tick: u64) -> Page {
    let working = spec.working_first()..spec.working_first() + spec.working_pages();
    match pfn {
        0 => Head { spec: spec.clone(), disks, begun: tick, done: tick }.to_page(),
        1 => log_page(spec, tick),
        _ if pfn < working.start => p2m_page(spec, pfn - HEAD_PAGES),
        _ if working.contains(&pfn) => {
            working_page(spec, pfn, last_written(spec, pfn - working.start, tick))
        }
        _ => resting_page(spec, pfn),
    }
}

/// Page `pfn` when tick `tick` is done, and so are `steps` steps of the next one.
pub(crate) fn page_within(spec: &GuestSpec, disks: u64, pfn: u64, tick: u64, steps: usize) -> Page {
    let next = tick + 1;
    let written = steps.saturating_sub(1);
    match pfn {
        0 if steps > 0 => Head { spec: spec.clone(), disks, begun: next, done: tick }.to_page(),
        1 if steps >= STEPS_BEFORE_DISKS => page(spec, disks, pfn, next),
        _ if pfn > 1 && written_in(spec, next).take(written).any(|other| other == pfn) => {
            page(spec, disks, pfn, next)
        }
        _ => page(spec, disks, pfn, tick),
    }
}

/// Whether the page is zero for as long as the guest lives, so that nobody needs to work it out.
pub(crate) fn is_always_zero(spec: &GuestSpec, pfn: u64) -> bool {
    pfn >= spec.working_first() + spec.working_pages() && class(spec, pfn) == Class::Zero
}

/// The pages of the working set that tick `tick` writes.
pub(crate) fn written_in(spec: &GuestSpec, tick: u64) -> impl Iterator<Item = u64> + use<> {
    let first = spec.working_first() + tick * PAGES_PER_TICK % spec.working_pages();
    first..first + PAGES_PER_TICK
}

/// The type of the page in a stream, as in the upper four bits of its pfn: a few are page tables, pinned or not.
pub(crate) fn page_type(spec: &GuestSpec, pfn: u64) -> u8 {
    const LEVEL_1: u8 = 1;
    const LEVEL_4_PINNED: u8 = 0xc;
    if pfn >= spec.pages {
        return TYPE_ABSENT;
    }
    match mix(&[spec.seed, pfn, 0x7479_7065]) % 512 {
        0 => LEVEL_4_PINNED,
        1..=4 => LEVEL_1,
        _ => 0,
    }
}

/// The record of tick `tick`, from 1, on disk number `disk`; zeros for tick 0, which is that of an empty slot.
pub(crate) fn record(seed: u64, disk: u64, tick: u64) -> [u8; RECORD_SIZE] {
    let mut record = [0; RECORD_SIZE];
    if tick > 0 {
        fill(&mut record, mix(&[seed, disk, tick, 0x7265_636f]));
        for (at, field) in record.chunks_exact_mut(8).zip([RECORD_MAGIC, seed, disk, tick]) {
            at.copy_from_slice(&field.to_le_bytes());
        }
    }
    record
}

/// Which tick a slot claims to be of; 0 if it is none.
pub(crate) fn record_tick(record: &[u8; RECORD_SIZE]) -> u64 {
    let mut fields = record.chunks_exact(8).map(word);
    if fields.next() == Some(RECORD_MAGIC) { fields.nth(2).unwrap_or_default() } else { 0 }
}

/// The tick whose record is in a slot when `tick` was the last one to be written; 0 if none is.
pub(crate) fn last_in_slot(slot: u64, tick: u64) -> u64 {
    last_of_residue(slot, RECORDS, tick)
}

/// A virtual CPU's context after a tick.
pub(crate) fn vcpu(spec: &GuestSpec, number: u32, tick: u64) -> Vec<u8> {
    let mut context = vec![0; VCPU_SIZE];
    fill(&mut context, mix(&[spec.seed, u64::from(number), tick, 0x7663_7075]));
    context[VCPU_REGISTERS..VCPU_REGISTERS + 8].copy_from_slice(&tick.to_le_bytes());
    context
}

/// The tick in a virtual CPU's registers.
pub(crate) fn vcpu_tick(context: &[u8]) -> Option<u64> {
    context.get(VCPU_REGISTERS..VCPU_REGISTERS + 8).map(word)
}

fn log_page(spec: &GuestSpec, tick: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    for (slot, entry) in (0..LOG_ENTRIES).zip(page.chunks_exact_mut(16)) {
        let written = last_of_residue(slot, LOG_ENTRIES, tick);
        if written > 0 {
            entry[..8].copy_from_slice(&written.to_le_bytes());
            entry[8..].copy_from_slice(&mix(&[spec.seed, written]).to_le_bytes());
        }
    }
    page
}

fn p2m_page(spec: &GuestSpec, index: u64) -> Page {
    let first_frame = 0x10_0000 + (spec.seed & 0xffff);
    let mut page = [0; PAGE_SIZE];
    let pfns = index * P2M_ENTRIES..spec.pages_max();
    for (pfn, entry) in pfns.zip(page.chunks_exact_mut(8)) {
        let frame = if pfn < spec.pages { first_frame + pfn } else { NO_FRAME };
        entry.copy_from_slice(&frame.to_le_bytes());
    }
    page
}

fn working_page(spec: &GuestSpec, pfn: u64, tick: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    fill(&mut page, mix(&[spec.seed, pfn, tick, 0x776f_726b]));
    page[..8].copy_from_slice(&tick.to_le_bytes());
    page
}

/// The last tick that wrote a page of the working set, by its number in there.
fn last_written(spec: &GuestSpec, index: u64, tick: u64) -> u64 {
    let rounds = spec.working_pages() / PAGES_PER_TICK;
    last_of_residue(index / PAGES_PER_TICK, rounds, tick)
}

/// The greatest number from 1 to `tick` that is `residue` modulo `modulus`; 0 if there is none.
fn last_of_residue(residue: u64, modulus: u64, tick: u64) -> u64 {
    let back = (tick % modulus + modulus - residue) % modulus;
    tick.saturating_sub(back)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Zero,
    Text,
    Random,
    Duplicate,
}

fn class(spec: &GuestSpec, pfn: u64) -> Class {
    let Population { text, random, duplicate } = spec.population;
    let (text, random, duplicate) = (u64::from(text), u64::from(random), u64::from(duplicate));
    match mix(&[spec.seed, pfn]) % 1024 {
        at if at < text => Class::Text,
        at if at < text + random => Class::Random,
        at if at < text + random + duplicate => Class::Duplicate,
        _ => Class::Zero,
    }
}

fn resting_page(spec: &GuestSpec, pfn: u64) -> Page {
    let mut page = [0; PAGE_SIZE];
    match class(spec, pfn) {
        Class::Zero => {}
        Class::Text => fill_words(&mut page, mix(&[spec.seed, pfn, 0x7465_7874])),
        Class::Random => fill(&mut page, mix(&[spec.seed, pfn, 0x7261_6e64])),
        Class::Duplicate => fill(&mut page, mix(&[spec.seed, pfn % DUPLICATES, 0x6475_706c])),
    }
    page
}

fn fill(octets: &mut [u8], seed: u64) {
    let mut state = seed;
    for chunk in octets.chunks_mut(8) {
        let word = next(&mut state).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

fn fill_words(octets: &mut [u8], seed: u64) {
    const WORDS: [&[u8]; 8] =
        [b"domain ", b"page ", b"the ", b"guest ", b"of ", b"writes ", b"memory ", b"to\n"];
    let mut state = seed;
    let mut rest = octets;
    while !rest.is_empty() {
        let word = WORDS[(next(&mut state) % 8) as u8 as usize];
        let (at, behind) = rest.split_at_mut(word.len().min(rest.len()));
        at.copy_from_slice(&word[..at.len()]);
        rest = behind;
    }
}

/// One number out of several; the finalizer of splitmix64 over each.
fn mix(numbers: &[u64]) -> u64 {
    numbers.iter().fold(0x9e37_79b9_7f4a_7c15, |state, number| {
        let mut state = state ^ number;
        next(&mut state)
    })
}

/// splitmix64 (Steele, Lea, Flood 2014).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A little-endian number out of up to eight octets.
fn word(octets: &[u8]) -> u64 {
    octets.iter().rev().fold(0, |word, octet| word << 8 | u64::from(*octet))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn writing_tick_by_tick_gives_what_the_pages_of_a_tick_are_said_to_be() {
        let spec = GuestSpec::new(3, 200);
        let mut memory: BTreeMap<u64, Page> =
            (0..spec.pages).map(|pfn| (pfn, page(&spec, 1, pfn, 0))).collect();
        for tick in 1..=300 {
            let changed = written_in(&spec, tick).chain([0, 1]);
            memory.extend(changed.map(|pfn| (pfn, page(&spec, 1, pfn, tick))));
            for (pfn, held) in &memory {
                assert!(*held == page(&spec, 1, *pfn, tick), "page {pfn} at tick {tick}");
            }
        }
    }

    #[test]
    fn every_tick_is_told_from_the_one_before_in_memory_and_on_disk() {
        let spec = GuestSpec::new(3, 64);
        for tick in 1..2000 {
            let pfn = written_in(&spec, tick).next().unwrap();
            assert!(page(&spec, 0, pfn, tick) != page(&spec, 0, pfn, tick - 1));
            assert_ne!(vcpu(&spec, 0, tick), vcpu(&spec, 0, tick - 1));
            assert_eq!(vcpu_tick(&vcpu(&spec, 0, tick)), Some(tick));
            assert_eq!(record_tick(&record(spec.seed, 1, tick)), tick);
            assert_eq!(last_in_slot(tick % RECORDS, tick), tick);
            assert_eq!(
                last_in_slot((tick + 1) % RECORDS, tick),
                (tick + 1).saturating_sub(RECORDS)
            );
        }
    }

    #[test]
    fn the_population_has_all_classes_in_their_shares() {
        let spec = GuestSpec::new(9, 20_000);
        let resting = spec.working_first() + spec.working_pages()..spec.pages;
        let count = |wanted| resting.clone().filter(|pfn| class(&spec, *pfn) == wanted).count();
        let near = |found: usize, share: usize| found.abs_diff(20_000 * share / 1024) < 800;
        assert!(near(count(Class::Zero), 512));
        assert!(near(count(Class::Text), 256));
        assert!(near(count(Class::Random), 160));
        assert!(near(count(Class::Duplicate), 96));
        let zero = resting.clone().find(|pfn| class(&spec, *pfn) == Class::Zero).unwrap();
        assert!(page(&spec, 0, zero, 5) == [0; PAGE_SIZE] && is_always_zero(&spec, zero));
    }

    #[test]
    fn a_head_is_read_back_and_an_impossible_one_is_not() {
        let head = Head { spec: GuestSpec::new(1, 64), disks: 2, begun: 5, done: 4 };
        assert_eq!(Head::from_page(&head.to_page()), Some(head.clone()));
        assert_eq!(Head::from_page(&[0; PAGE_SIZE]), None);
        let spec = GuestSpec { pages: u64::MAX, ..head.spec.clone() };
        assert_eq!(Head::from_page(&Head { spec, ..head }.to_page()), None);
    }
}
