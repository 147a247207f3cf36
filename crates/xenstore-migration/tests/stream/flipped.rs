//! Length fields with a flipped bit.
//!
//! The format has no checksum: a reader notices a wrong length by what it does to the record's other fields. What it cannot
//! notice is a stream that says something else and is as well formed. This says which those are, for each field, and
//! that there are no others.

use std::collections::BTreeMap;

use xenstore_migration::{
    ByteOrder, Deviation, Peer, ReadError, ReadFailure, ReadOptions, Record, RecordType,
    StreamReader, StreamWriter, UnknownRecords,
};

use crate::{captured, rich};

/// A length field, where it is, and what depends on it.
#[derive(Clone, Debug)]
struct Field {
    name: &'static str,
    at: usize,
    width: usize,
    record: Extent,
}

/// A record: where it is, and how its octets are divided up.
#[derive(Clone, Debug)]
struct Extent {
    record_type: RecordType,
    offset: usize,
    /// What its length says.
    len: usize,
    /// Octets of its fields before the inner padding, if there is some.
    fields: usize,
    /// Whether a unique-id follows behind that.
    unique_id: bool,
    output_rest: usize,
}

/// What a reader makes of a flipped bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// An error at the record.
    Refused,
    /// An error at a later record.
    RefusedLater,
    /// Padding that is not zero.
    Padding,
    /// A mixture of forms that no server writes.
    NobodysForm,
    /// Nothing: the octets are those that a writer writes who means what they say.
    Unnoticed,
}

fn number(octets: &[u8], order: ByteOrder) -> usize {
    let digits = |number: usize, octet: &u8| number << 8 | usize::from(*octet);
    match order {
        ByteOrder::Little => octets.iter().rev().fold(0, digits),
        ByteOrder::Big => octets.iter().fold(0, digits),
    }
}

fn fields(stream: &[u8]) -> Vec<Field> {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let order = reader.preamble().byte_order;
    let mut all = Vec::new();
    while let Some(placed) = reader.next_record().unwrap() {
        let offset = usize::try_from(placed.place.offset).unwrap();
        let len = number(&stream[offset + 4..offset + 8], order);
        let (unique_id, output_rest, fields) = match placed.record {
            Record::Connection(connection) => (
                connection.unique_id.is_some(),
                connection.output_rest.into(),
                24 + connection.input.len() + connection.output.len(),
            ),
            Record::Node(node) => {
                (false, 0, 16 + 4 * node.perms.len() + node.path.len() + 1 + node.value.len())
            }
            _ => (false, 0, len),
        };
        let record_type = placed.record.record_type();
        let record = Extent { record_type, offset, len, fields, unique_id, output_rest };
        let names: &[(&'static str, usize, usize)] = match placed.record {
            Record::Connection(_) => {
                &[("in-data-len", 16, 2), ("out-resp-len", 18, 2), ("out-data-len", 20, 4)]
            }
            Record::Watch(_) | Record::WatchExtended(_) => {
                &[("wpath-len", 4, 2), ("token-len", 6, 2)]
            }
            Record::Node(_) => &[("path-len", 8, 2), ("value-len", 10, 2), ("perm-count", 14, 2)],
            Record::GlobalQuota(_) => &[("n-dom-quota", 0, 2), ("n-glob-quota", 2, 2)],
            Record::Domain(_) => &[("n-quota", 2, 2)],
            _ => &[],
        };
        let length = Field { name: "len", at: offset + 4, width: 4, record: record.clone() };
        all.push(length);
        all.extend(names.iter().map(|(name, at, width)| {
            let (name, at, width) = (*name, offset + 8 + at, *width);
            Field { name, at, width, record: record.clone() }
        }));
    }
    let record_type = RecordType::END;
    let offset = stream.len() - 8;
    let record =
        Extent { record_type, offset, len: 0, fields: 0, unique_id: false, output_rest: 0 };
    all.push(Field { name: "len", at: offset + 4, width: 4, record });
    all
}

/// Whether no reader can notice that a length field has another value: what its octets say is then as well formed.
///
/// Texts end in the only NUL they have, so that their lengths have one right value, and names of quotas are counted. What is
/// left is data: where it is the last in the record, or before inner padding, its length can take zeros of padding in, and
/// leave zeros to it. Padding at the end of a record that its length does not count is left out of it, and what the length of the
/// record then says about padding must not contradict other records.
fn is_unnoticeable(
    stream: &[u8],
    peer: Peer,
    fields: &[Field],
    field: &Field,
    value: usize,
) -> bool {
    let record = &field.record;
    let body = &stream[record.offset + 8..];
    let old = number(&stream[field.at..field.at + field.width], stream_order(stream));
    let is_zero = |from: usize, to: usize| body[from..to].iter().all(|octet| *octet == 0);
    let end = (record.fields + value).wrapping_sub(old);
    match (field.name, record.record_type) {
        ("out-resp-len", _) => {
            let output = number(&body[20..24], stream_order(stream));
            value <= output
        }
        ("out-data-len", _) if value < record.output_rest => false,
        ("in-data-len" | "out-data-len", _) if record.unique_id => {
            let unique_id = record.fields.next_multiple_of(8);
            end.checked_next_multiple_of(8) == Some(unique_id) && is_zero(end, unique_id)
        }
        ("in-data-len" | "out-data-len" | "value-len", _) => {
            let len = record.len;
            (end == len || end.checked_next_multiple_of(8) == Some(len))
                && is_zero(end, len)
                && (end == len || is_consistent(peer, fields, record.offset))
        }
        ("len", RecordType(9..)) => {
            let padded = record.len.next_multiple_of(8);
            value.next_multiple_of(8) == padded && is_zero(value.min(record.len), padded)
        }
        // Without a depth, the first two octets of the path can pass for one; then nothing else may tell the form.
        ("wpath-len", RecordType::WATCH_DATA_EXTENDED) => {
            let texts = value + number(&body[6..8], stream_order(stream));
            peer == Peer::C2026Written
                && stream[11] == 2
                && value + 2 == old
                && (10 + texts).next_multiple_of(8) == record.len
                && fields.iter().all(|other| {
                    other.record.offset == record.offset
                        || other.record.record_type != RecordType::WATCH_DATA_EXTENDED
                })
        }
        _ => false,
    }
}

/// Whether a length that counts padding does not contradict any other.
fn is_consistent(peer: Peer, fields: &[Field], but: usize) -> bool {
    peer != Peer::Specification
        || fields.iter().all(|field| field.record.offset == but || field.record.len % 8 == 0)
}

fn stream_order(stream: &[u8]) -> ByteOrder {
    if stream[15] == 1 { ByteOrder::Big } else { ByteOrder::Little }
}

fn read(stream: &[u8], options: ReadOptions) -> Result<(Option<Peer>, u64), ReadError> {
    let mut reader = StreamReader::open(stream, options).unwrap();
    while reader.next_record()?.is_some() {}
    Ok((reader.peer(), reader.deviations().count(Deviation::PaddingNotZero)))
}

fn written_again(stream: &[u8], peer: Peer) -> Vec<u8> {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut writer = StreamWriter::create(Vec::new(), reader.preamble(), peer).unwrap();
    while let Some(placed) = reader.next_record().unwrap() {
        writer.write(&placed.record).unwrap();
    }
    writer.finish().unwrap()
}

/// The first records of a stream, and an END.
fn beginning(stream: &[u8], records: usize) -> Vec<u8> {
    let mut ends = fields(stream).into_iter().filter(|field| field.name == "len").skip(records);
    let end = ends.next().map_or(stream.len() - 8, |field| field.record.offset);
    [&stream[..end], &[0; 8]].concat()
}

/// How often each field had each outcome, first for a tolerant reader, then how often a strict one took it.
type Counts = BTreeMap<(&'static str, Outcome), usize>;

fn check_flips(stream: &[u8], peer: Peer, counts: &mut Counts, strictly: &mut usize) {
    let fields = fields(stream);
    for field in &fields {
        for bit in 0..field.width * 8 {
            let mut flipped = stream.to_vec();
            flipped[field.at + bit / 8] ^= 1 << (bit % 8);
            let order = stream_order(stream);
            let value = number(&flipped[field.at..field.at + field.width], order);
            let outcome = outcome(&flipped, field);
            let what = format!("{} of {:?} set to {value}, for {peer}", field.name, field.record);
            let expected = is_unnoticeable(stream, peer, &fields, field, value);
            assert_eq!(outcome == Outcome::Unnoticed, expected, "{what}: {outcome:?}");
            *counts.entry((field.name, outcome)).or_default() += 1;
            let strict = read(&flipped, ReadOptions::default().strict());
            if strict.is_ok() {
                assert_eq!(outcome, Outcome::Unnoticed, "{what}: taken by a strict reader");
                *strictly += 1;
            }
        }
    }
}

fn outcome(flipped: &[u8], field: &Field) -> Outcome {
    let options = ReadOptions::default();
    assert_eq!(options.unknown, UnknownRecords::Keep);
    match read(flipped, options) {
        Err(error) => {
            let offset = usize::try_from(error.place.offset).unwrap();
            if offset == field.record.offset {
                return Outcome::Refused;
            }
            // Another's length contradicts this one, or the stream is out of step behind a record of a length that only
            // its header tells.
            let contradicts = matches!(error.failure, ReadFailure::MixedLengths { .. });
            let only_told = field.name == "len" && field.record.record_type.name().is_none();
            assert!(
                offset > field.record.offset && (contradicts || only_told),
                "{field:?}: {error}"
            );
            Outcome::RefusedLater
        }
        Ok((_, padding)) if padding > 0 => Outcome::Padding,
        Ok((None, _)) => Outcome::NobodysForm,
        Ok((Some(peer), _)) => {
            assert!(written_again(flipped, peer) == flipped, "{field:?}: written otherwise");
            Outcome::Unnoticed
        }
    }
}

fn print(name: &str, counts: &Counts, strictly: usize) {
    println!("{name}:");
    for ((field, outcome), count) in counts {
        println!("  {field:<13} {outcome:?} {count}");
    }
    println!("  taken by a strict reader: {strictly}");
}

#[test]
fn a_length_with_a_flipped_bit_is_noticed_unless_it_makes_another_well_formed_stream() {
    for peer in Peer::ALL {
        let (mut counts, mut strictly) = (Counts::new(), 0);
        for rich in rich::streams().iter().filter(|rich| rich.peer == peer) {
            check_flips(&rich.stream, rich.peer, &mut counts, &mut strictly);
        }
        print(peer.name(), &counts, strictly);
    }
}

#[test]
fn a_length_of_a_capture_with_a_flipped_bit_is_noticed_unless_it_makes_another_well_formed_stream()
{
    const TEST: &str = "a_length_of_a_capture_with_a_flipped_bit_is_noticed_unless_it_makes_another_well_formed_stream";
    for (name, peer) in captured::STREAMS {
        let Some(stream) = captured::captured(TEST, &format!("migration/{name}")) else { continue };
        // The rest of a long one is alike.
        let stream = beginning(&stream, 80);
        let (mut counts, mut strictly) = (Counts::new(), 0);
        check_flips(&stream, peer, &mut counts, &mut strictly);
        print(name, &counts, strictly);
    }
}
