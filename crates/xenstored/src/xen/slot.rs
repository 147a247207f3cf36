//! The messages in flight of one ring.

use xenstore_proto::DomId;
use xenstore_proto::limits::{HEADER_LEN, PAYLOAD_MAX};

use super::hypervisor::DomainHandle;
use super::page::{Indices, RING};
use super::raw::{Mapping, PAGE};

/// Pages of a slot.
pub(super) const SLOT_PAGES: usize = 5;

/// Octets at its beginning that say whose it is, and what is valid.
pub(super) const HEAD: usize = 96;

/// Most octets of requests, or of responses, that a slot holds: more than any message. They stand where their index modulo
/// this is, so it divides 2^32.
pub(super) const CAPACITY: u32 = 8192;

const _: () = assert!(HEADER_LEN + PAYLOAD_MAX < CAPACITY as usize);

const VALID: usize = 0;
const DOMID: usize = 4;
const HANDLE: usize = 8;
const RECORDS: [usize; 2] = [32, 64];
const REQUESTS: usize = PAGE;
const RESPONSES: usize = PAGE + CAPACITY as usize;

/// What is kept of one ring: a part of a file, mapped.
///
/// ```text
/// octet     0  which of the two records is valid: 0 none, 1, 2
///           4  domid u32
///           8  handle of the domain: 16 octets
///          32  first record: five u32, see `Record`
///          64  second record
///        4096  requests: 8192 octets, each at its index modulo 8192
///       12288  responses: likewise
/// ```
///
/// Numbers are in the byte order of the machine. What a record tells of is written before it, and it is written where the
/// valid one is not: so at whatever moment the process dies, one of the two states is found, whole.
#[derive(Debug)]
pub(crate) struct Slot {
    mapping: Mapping,
    /// Which record is valid.
    valid: u32,
}

/// How far a server had got with a ring. All indices are the ring's: modulo 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// The responses from here on are kept.
    pub(super) put_from: u32,
    /// Up to here.
    pub(super) put_to: u32,
    /// How many octets at the start of these belong to a message that had been begun before.
    pub(super) rest: u32,
    /// The requests up to here are answered: by what the domain has been sent, and what is kept.
    pub(super) answered: u32,
    /// Those from there to here are kept: the domain may have been told that they are taken.
    pub(super) taken: u32,
}

/// What a dead server has left of a ring.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Octets of requests that it had taken and not answered.
    pub(crate) input: Vec<u8>,
    /// Responses that it had begun to put.
    pub(crate) output: Vec<u8>,
    /// How much of these is in the ring, or has been read.
    pub(crate) written: usize,
    /// How many octets at the start of these belong to a message that had been begun before.
    pub(crate) rest: usize,
    /// How many octets that are still in the ring have been answered.
    pub(super) ahead: u32,
}

impl Record {
    /// Nothing is in flight.
    pub(super) fn at_rest(requests_taken: u32, responses_put: u32) -> Self {
        Self {
            put_from: responses_put,
            put_to: responses_put,
            rest: 0,
            answered: requests_taken,
            taken: requests_taken,
        }
    }
}

impl Slot {
    /// The domain that the first octets of a slot name, if anything is valid there.
    pub(super) fn owner_in(head: &[u8; HEAD]) -> Option<(DomId, DomainHandle)> {
        let number = |at: usize| {
            head[at..].first_chunk::<4>().map_or(0, |octets| u32::from_ne_bytes(*octets))
        };
        let handle = *head[HANDLE..].first_chunk::<16>()?;
        let domid = DomId::new(u16::try_from(number(DOMID)).ok()?);
        matches!(number(VALID), 1 | 2).then_some((domid, DomainHandle(handle)))
    }

    /// As a dead server has left it.
    pub(super) fn found(mapping: Mapping) -> Self {
        let valid = mapping.load(VALID);
        Self { mapping, valid }
    }

    /// A domain's, with nothing in it.
    pub(super) fn fresh(mapping: Mapping, domid: DomId, handle: DomainHandle) -> Self {
        mapping.store(VALID, 0);
        mapping.store(DOMID, domid.get().into());
        mapping.copy_in(HANDLE, &handle.0);
        // They may be an earlier domain's.
        mapping.copy_in(REQUESTS, &[0; 2 * CAPACITY as usize]);
        Self { mapping, valid: 0 }
    }

    /// The valid record, if there is one.
    pub(super) fn record(&self) -> Option<Record> {
        let at = match self.valid {
            1 => RECORDS[0],
            2 => RECORDS[1],
            _ => return None,
        };
        let [put_from, put_to, rest, answered, taken] =
            [0, 4, 8, 12, 16].map(|offset| self.mapping.load(at + offset));
        Some(Record { put_from, put_to, rest, answered, taken })
    }

    /// Has another record valid from now on.
    pub(super) fn keep(&mut self, record: Record) {
        let (next, at) = if self.valid == 1 { (2, RECORDS[1]) } else { (1, RECORDS[0]) };
        let Record { put_from, put_to, rest, answered, taken } = record;
        for (offset, number) in [(0, put_from), (4, put_to), (8, rest), (12, answered), (16, taken)]
        {
            self.mapping.store(at + offset, number);
        }
        self.mapping.store(VALID, next);
        self.valid = next;
    }

    /// Has no record valid any more.
    pub(super) fn void(&mut self) {
        self.mapping.store(VALID, 0);
        self.valid = 0;
    }

    /// Writes octets of requests down, from an index on.
    pub(super) fn keep_request(&self, index: u32, octets: &[u8]) {
        self.write(REQUESTS, index, octets);
    }

    /// Writes octets of responses down, from an index on.
    pub(super) fn keep_response(&self, index: u32, octets: &[u8]) {
        self.write(RESPONSES, index, octets);
    }

    /// Octets of requests.
    pub(super) fn requests(&self, index: u32, len: u32) -> Vec<u8> {
        self.read(REQUESTS, index, len)
    }

    /// What the record leaves of a ring with these indices: `None` if the two do not go together.
    pub(super) fn left(&self, requests: Indices, responses: Indices) -> Option<Left> {
        let Record { put_from, put_to, rest, answered, taken } = self.record()?;
        let (len, written) = (put_to.wrapping_sub(put_from), responses.put.wrapping_sub(put_from));
        if len > CAPACITY || written > len || rest > len {
            return None;
        }
        let kept = taken.wrapping_sub(answered);
        let behind = requests.taken.wrapping_sub(answered);
        let ahead = answered.wrapping_sub(requests.taken);
        let waiting = requests.waiting()?;
        let (input, ahead) = if behind == 0 {
            (Vec::new(), 0)
        } else if kept <= CAPACITY && behind <= kept {
            (self.requests(answered, behind), 0)
        } else if ahead <= waiting {
            (Vec::new(), ahead)
        } else {
            return None;
        };
        Some(Left {
            input,
            output: self.read(RESPONSES, put_from, len),
            written: octets(written),
            rest: octets(rest),
            ahead,
        })
    }

    fn write(&self, base: usize, index: u32, kept: &[u8]) {
        let place = octets(index % CAPACITY);
        let kept = &kept[..kept.len().min(octets(CAPACITY))];
        let (first, second) = kept.split_at(kept.len().min(octets(CAPACITY) - place));
        self.mapping.copy_in(base + place, first);
        self.mapping.copy_in(base, second);
    }

    fn read(&self, base: usize, index: u32, len: u32) -> Vec<u8> {
        let place = octets(index % CAPACITY);
        let mut read = vec![0; octets(len.min(CAPACITY))];
        let before_end = read.len().min(octets(CAPACITY) - place);
        let (first, second) = read.split_at_mut(before_end);
        self.mapping.copy_out(base + place, first);
        self.mapping.copy_out(base, second);
        read
    }
}

/// A number of octets that is no more than fits a slot, or does not fit one in any case.
const fn octets(number: u32) -> usize {
    number as usize
}

const _: () = assert!(RING < CAPACITY);

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> Slot {
        let file = rustix::fs::memfd_create(c"slot", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, (SLOT_PAGES * PAGE) as u64).unwrap();
        let mapping = Mapping::shared_pages(&file, 0, SLOT_PAGES).unwrap();
        Slot::fresh(mapping, DomId::new(7), DomainHandle([1; 16]))
    }

    fn indices(taken: u32, put: u32) -> Indices {
        Indices { taken, put }
    }

    #[test]
    fn what_is_left_is_what_the_indices_say_wherever_they_are() {
        for start in [0, 1, 8190, u32::MAX - 5, u32::MAX] {
            let at = |offset: u32| start.wrapping_add(offset);
            let mut slot = slot();
            slot.keep_request(at(10), b"a request");
            slot.keep_response(at(30), b"rest, and an answer");
            let (put_from, put_to, answered, taken) = (at(30), at(49), at(10), at(19));
            slot.keep(Record { put_from, put_to, rest: 4, answered, taken });
            let left = |taken: u32, put: u32, responses: u32| {
                slot.left(indices(at(taken), at(put)), indices(at(0), at(responses)))
            };
            for taken in 10..=19 {
                for responses in 30..=49 {
                    let left = left(taken, 20, responses).unwrap();
                    assert_eq!(left.input, b"a request"[..taken as usize - 10]);
                    assert_eq!(left.output, b"rest, and an answer");
                    assert_eq!((left.written, left.rest), (responses as usize - 30, 4));
                    assert_eq!(left.ahead, 0);
                }
            }
            assert_eq!(left(6, 20, 30).unwrap().ahead, 4, "answered, and in the ring still");
            for (taken, put, responses) in [
                // Answered before they were sent; taken and not kept; more put than was kept, or less.
                (6, 9, 30),
                (20, 20, 30),
                (19, 20, 50),
                (19, 20, 29),
                (19, 2000, 30),
            ] {
                assert_eq!(left(taken, put, responses), None, "{taken} {put} {responses}");
            }
            slot.void();
            assert_eq!(slot.left(indices(at(10), at(10)), indices(at(30), at(30))), None);
        }
    }

    #[test]
    fn numbers_that_make_no_sense_leave_nothing() {
        let whole = Record { put_from: 0, put_to: 0, rest: 0, answered: 0, taken: 0 };
        for record in [
            Record { put_to: CAPACITY + 1, ..whole },
            Record { rest: 1, ..whole },
            Record { answered: 1, taken: u32::MAX, ..whole },
            Record { answered: 0u32.wrapping_sub(CAPACITY + 1), ..whole },
            Record { answered: 0u32.wrapping_sub(20), taken: 0u32.wrapping_sub(1), ..whole },
        ] {
            let mut slot = slot();
            slot.keep(record);
            assert_eq!(slot.left(indices(0, 0), indices(0, 0)), None, "{record:?}");
        }
    }
}
