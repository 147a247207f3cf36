//! What readers and writers refuse, and how they say so.

use std::error::Error;

use xenstore_migration::{
    BodyError, ByteOrder, ConnectionData, ConnectionSpec, CreateError, Deviation, EncodeError,
    NodeData, NodePerm, NodeScope, OpenError, Peer, Preamble, PreambleError, ReadError,
    ReadFailure, ReadOptions, Record, RecordType, StreamReader, StreamWriter, TransactionData,
    UnknownData, Version, WatchData, WatchDepth, WatchExtendedData, WriteFailure,
};
use xenstore_proto::{Access, DomId};

use crate::rich::{self, id, preambles};
use crate::round_trips::written;

const V1: Preamble = Preamble::new(Version::V1, ByteOrder::Little);
const V2: Preamble = Preamble::new(Version::V2, ByteOrder::Little);

/// A stream of records made by hand, and END.
fn stream(preamble: Preamble, records: &[(u32, &[u8])]) -> Vec<u8> {
    let number = |number: u32| match preamble.byte_order {
        ByteOrder::Little => number.to_le_bytes(),
        ByteOrder::Big => number.to_be_bytes(),
    };
    let mut stream = preamble.to_octets().to_vec();
    for (record_type, body) in records {
        stream.extend(number(*record_type));
        stream.extend(number(body.len().try_into().unwrap()));
        stream.extend(*body);
        stream.resize(stream.len().next_multiple_of(8), 0);
    }
    stream.extend([0; 8]);
    stream
}

fn read(stream: &[u8], options: ReadOptions) -> Result<Vec<Deviation>, ReadError> {
    let mut reader = StreamReader::open(stream, options).unwrap();
    while reader.next_record()?.is_some() {}
    Ok(reader.deviations().iter().map(|(deviation, ..)| deviation).collect())
}

/// An error and its causes, as a report prints them.
fn told(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", told(source)),
        None => error.to_string(),
    }
}

fn refused(octets: &[u8]) -> String {
    told(&read(octets, ReadOptions::default()).unwrap_err())
}

/// `conn-id`, lengths with their NULs, and what follows.
fn watch(path: &[u8], token: &[u8], between: &[u8]) -> Vec<u8> {
    let len = |text: &[u8]| u8::try_from(text.len() + 1).unwrap();
    let mut body = vec![1, 0, 0, 0, len(path), 0, len(token), 0];
    for part in [between, path, &[0], token, &[0]] {
        body.extend(part);
    }
    body
}

#[test]
fn an_extended_watch_of_version_2_is_refused_in_version_1() {
    let body = watch(b"/a", b"t", &[1, 0, 0, 0]);
    assert_eq!(read(&stream(V2, &[(8, &body)]), ReadOptions::default().strict()).unwrap(), []);
    assert_eq!(
        refused(&stream(V1, &[(8, &body)])),
        "record 0 (WATCH_DATA_EXTENDED) at octet 16: a record of version 2 in a stream of version 1"
    );
}

#[test]
fn the_extended_watches_that_c_writes_in_version_1_are_a_deviation() {
    for preamble in preambles().filter(|preamble| preamble.version == Version::V1) {
        let records = rich::records(Version::V1, Peer::C2026Written);
        let octets = written(preamble, Peer::C2026Written, &records);
        let mut reader = StreamReader::open(&*octets, ReadOptions::default()).unwrap();
        while reader.next_record().unwrap().is_some() {}
        let deviations = reader.deviations();
        assert_eq!(deviations.count(Deviation::ExtendedWatchInVersion1), 4);
        assert_eq!(deviations.count(Deviation::ExtendedWatchWithoutDepth), 4);
        assert_eq!(reader.peer(), Some(Peer::C2026Written));
        let error = read(&octets, ReadOptions::default().strict()).unwrap_err();
        assert!(matches!(error.failure, ReadFailure::Deviation { .. }), "{error}");
    }
}

#[test]
fn a_record_of_an_unknown_type_is_kept_or_refused_as_wanted() {
    let octets = stream(V2, &[(4, &[1, 0, 0, 0, 2, 0, 0, 0]), (0x8000_0009, b"any")]);
    let mut reader = StreamReader::open(&*octets, ReadOptions::default().strict()).unwrap();
    reader.next_record().unwrap();
    let unknown = UnknownData { record_type: RecordType(0x8000_0009), body: b"any" };
    assert_eq!(reader.next_record().unwrap().unwrap().record, Record::Unknown(unknown));
    let error = read(&octets, ReadOptions::default().known_only()).unwrap_err();
    assert_eq!(
        told(&error),
        "record 1 (type 0x80000009) at octet 32: the type of the record is not known"
    );
}

#[test]
fn nothing_is_read_behind_a_record_that_does_not_make_sense() {
    let octets = stream(V1, &[(4, &[0; 8]), (4, &[1; 8])]);
    let mut reader = StreamReader::open(&*octets, ReadOptions::default()).unwrap();
    let error = reader.next_record().unwrap_err();
    assert_eq!(told(&error), "record 0 (TRANSACTION_DATA) at octet 16: conn-id is zero");
    for _ in 0..2 {
        let error = reader.next_record().unwrap_err();
        assert!(matches!(error.failure, ReadFailure::AfterError));
    }
}

#[test]
fn a_field_out_of_its_range_is_refused_with_the_record_and_the_field() {
    let connection = |at: usize, octet: u8| {
        let mut body = [0; 24];
        (body[0], body[at]) = (1, octet);
        body.to_vec()
    };
    let node = |letter: u8| {
        let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 2, 0];
        body.extend(*b"n\0\0\0");
        body.extend([letter, 0, 3, 0]);
        body.extend(*b"/\0");
        body
    };
    for (record_type, body, said) in [
        (2, connection(0, 0), "conn-id is zero"),
        (3, [vec![0; 4], watch(b"/a", b"t", &[])[4..].to_vec()].concat(), "conn-id is zero"),
        (
            8,
            [vec![0; 4], watch(b"/a", b"t", &[1, 0, 0, 0])[4..].to_vec()].concat(),
            "conn-id is zero",
        ),
        (2, connection(6, 2), "the bits 0x0002 announce fields that are not known"),
        (2, connection(7, 0x80), "the bits 0x8000 announce fields that are not known"),
        (2, connection(18, 1), "out-resp-len is 1, more than out-data-len, 0"),
        (2, connection(16, 9), "in-data at octet 24 of the body needs 9 octets, and 0 are left"),
        (
            2,
            connection(23, 0xFF),
            "out-data at octet 24 of the body needs 4278190080 octets, and 0 are left",
        ),
        (5, node(b'x'), "permission 1 is 0x78, none of `n`, `r`, `w`, `b`"),
        (5, node(0), "permission 1 is 0x00, none of `n`, `r`, `w`, `b`"),
        (3, watch(b"/a\0b", b"t", &[]), "wpath has a NUL in it, at octet 10 of the body"),
        (1, vec![0; 4], "evtchn-fd at octet 4 of the body needs 4 octets, and 0 are left"),
        (1, vec![0; 16], "the record's length is 16, and its fields take 8 octets"),
        (6, vec![1, 0, 0, 0, 9, 0, 0, 0, 0], "quota 0 has no name"),
        (6, vec![1, 0, 0, 0, 9, 0, 0, 0], "quota-names does not end in NUL at octet 8 of the body"),
        (
            7,
            vec![3, 0, 1, 0, 0, 0, 0, 0],
            "quota-val at octet 8 of the body needs 4 octets, and 0 are left",
        ),
        (8, vec![1, 0, 0, 0], "wpath-len at octet 4 of the body needs 2 octets, and 0 are left"),
        (8, vec![], "conn-id at octet 0 of the body needs 4 octets, and 0 are left"),
    ] {
        let name = RecordType(record_type).to_string();
        for options in [ReadOptions::default(), ReadOptions::default().strict()] {
            // A good record before it, so that the place is not the first.
            let octets = stream(V2, &[(4, &[1, 0, 0, 0, 2, 0, 0, 0]), (record_type, &body)]);
            let error = read(&octets, options).unwrap_err();
            assert_eq!(told(&error), format!("record 1 ({name}) at octet 32: {said}"));
        }
    }
}

#[test]
fn an_end_with_a_length_is_refused() {
    for len in [1, 8, u32::MAX] {
        let mut octets = stream(V1, &[]);
        octets[20..24].copy_from_slice(&len.to_le_bytes());
        octets.extend([0; 16]);
        assert_eq!(
            refused(&octets),
            format!(
                "record 0 (END) at octet 16: the record's length is {len}, and its fields take 0 octets"
            )
        );
    }
}

#[test]
fn a_record_longer_than_wanted_is_refused_before_it_is_read() {
    let octets = stream(V1, &[(9, &[7; 100])]);
    assert_eq!(read(&octets, ReadOptions::default().record_max(100)).unwrap(), []);
    let error = read(&octets[..24], ReadOptions::default().record_max(99)).unwrap_err();
    let said =
        "record 0 (type 0x9) at octet 16: the record has 100 octets, and no more than 99 are read";
    assert_eq!(told(&error), said);
    let mut huge = octets;
    huge[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = read(&huge, ReadOptions::default()).unwrap_err();
    assert!(matches!(error.failure, ReadFailure::TooLong { len: u32::MAX, .. }));
}

#[test]
fn a_stream_of_another_format_or_version_is_refused() {
    let open = |at: usize, octet: u8| {
        let mut octets = stream(V1, &[]);
        octets[at] = octet;
        StreamReader::open(&*octets, ReadOptions::default()).map(drop)
    };
    for (at, octet, said) in [
        (0, b'X', "no xenstore-migration stream: the octets from 0 to 7 are not `xenstore`"),
        (11, 0, "version 0 at octet 8 is neither 1 nor 2"),
        (11, 3, "version 3 at octet 8 is neither 1 nor 2"),
        (15, 2, "flags 0x00000002 at octet 12 have reserved bits set"),
        (12, 0x80, "flags 0x80000000 at octet 12 have reserved bits set"),
    ] {
        assert_eq!(told(&open(at, octet).unwrap_err()), said);
    }
    assert!(matches!(
        open(11, 7),
        Err(OpenError::Preamble { source: PreambleError::Version { version: 7 } })
    ));
}

#[test]
fn what_says_nothing_and_is_not_zero_is_told_and_strictly_refused() {
    let committed = |at: usize| {
        let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, b'/', 0];
        body[at] = 1;
        body
    };
    let mut socket = vec![1, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0];
    socket.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let padded = watch(b"/a", b"t", &[1, 0, 0, 5]);
    let domain = [3, 0, 0, 0, 14, 0, 0, 0];
    let mut behind = stream(V1, &[(9, b"body")]);
    behind[16 + 8 + 7] = 1;
    for octets in [
        stream(V1, &[(5, &committed(4))]),
        stream(V1, &[(5, &committed(12))]),
        stream(V1, &[(2, &socket)]),
        stream(V2, &[(8, &padded)]),
        stream(V1, &[(7, &domain)]),
        behind,
    ] {
        assert_eq!(read(&octets, ReadOptions::default()).unwrap(), [Deviation::PaddingNotZero]);
        let error = read(&octets, ReadOptions::default().strict()).unwrap_err();
        let deviation = Deviation::PaddingNotZero;
        assert!(
            matches!(error.failure, ReadFailure::Deviation { deviation: found } if found == deviation)
        );
    }
    assert_eq!(read(&stream(V2, &[(7, &domain)]), ReadOptions::default()).unwrap(), []);
}

#[test]
fn an_empty_record_of_an_unknown_type_is_of_no_c_xenstored() {
    let octets = stream(V1, &[(9, &[]), (5, b"\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0/\0\0\0\0\0\0\0")]);
    let mut reader = StreamReader::open(&*octets, ReadOptions::default()).unwrap();
    reader.next_record().unwrap();
    assert_eq!(reader.peer(), Some(Peer::Specification));
    reader.next_record().unwrap();
    assert_eq!(reader.peer(), None);
}

/// Why a record is not written.
fn not_written(preamble: Preamble, peer: Peer, record: &Record<'_>) -> EncodeError {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    let error = writer.write(record).unwrap_err();
    let octets = writer.finish().unwrap();
    assert_eq!(octets.len(), 24, "something was written of {record:?}");
    match error.failure {
        WriteFailure::Record { source } => source,
        other => unreachable!("{other}"),
    }
}

#[test]
fn what_no_record_can_say_is_not_written() {
    let long = vec![b'a'; 65535];
    let (connection, token) = (id(1), &b"t"[..]);
    let ring = ConnectionSpec::Ring { domid: DomId::new(3), target: None, port: 0 };
    let data = ConnectionData {
        id: connection,
        spec: ring,
        input: &[],
        output_rest: 0,
        output: &[],
        unique_id: None,
    };
    let perms = vec![NodePerm::new(Access::None, DomId::DOM0); 65536];
    let node = NodeData { scope: NodeScope::Committed, perms: &[], path: b"/", value: &[] };
    let extended =
        |depth| Record::WatchExtended(WatchExtendedData { connection, depth, path: b"/", token });
    let unknown = |record_type, body| Record::Unknown(UnknownData { record_type, body });
    let spec = Peer::Specification;
    let too_long = |field, len| EncodeError::TooLong { field, len, max: 65535 };
    let max = xenstore_migration::limits::RECORD_MAX;
    let huge = vec![0; max + 1];
    for (preamble, peer, record, expected) in [
        (
            V1,
            spec,
            Record::Watch(WatchData { connection, path: &long, token }),
            too_long("wpath", 65536),
        ),
        (
            V1,
            spec,
            Record::Watch(WatchData { connection, path: b"a\0", token }),
            EncodeError::Nul { field: "wpath" },
        ),
        (
            V1,
            spec,
            Record::Watch(WatchData { connection, path: b"a", token: b"\0" }),
            EncodeError::Nul { field: "token" },
        ),
        (
            V1,
            spec,
            Record::Node(NodeData { value: &huge[..65536], ..node }),
            too_long("value", 65536),
        ),
        (V1, spec, Record::Node(NodeData { perms: &perms, ..node }), too_long("perms", 65536)),
        (
            V1,
            spec,
            Record::Connection(ConnectionData { input: &huge[..65536], ..data }),
            too_long("in-data", 65536),
        ),
        (
            V1,
            spec,
            Record::Connection(ConnectionData { output_rest: 1, ..data }),
            EncodeError::OutputRest { rest: 1, output: 0 },
        ),
        (V1, spec, unknown(RecordType(5), b""), EncodeError::KnownType),
        (V1, spec, unknown(RecordType::END, b""), EncodeError::KnownType),
        (
            V1,
            spec,
            unknown(RecordType(9), &huge),
            EncodeError::TooLong { field: "the record", len: max + 1, max },
        ),
        (V1, Peer::C417, unknown(RecordType(9), b""), EncodeError::Peer { peer: Peer::C417 }),
        (V1, spec, extended(WatchDepth::Levels(1)), EncodeError::Version),
        (V1, Peer::C2026, extended(WatchDepth::Levels(1)), EncodeError::Version),
        (V1, Peer::C417, extended(WatchDepth::Levels(1)), EncodeError::Peer { peer: Peer::C417 }),
        (V2, spec, extended(WatchDepth::Untold), EncodeError::Depth { depth: WatchDepth::Untold }),
        (
            V2,
            spec,
            extended(WatchDepth::Levels(65535)),
            EncodeError::Depth { depth: WatchDepth::Levels(65535) },
        ),
        (
            V2,
            Peer::C2026Written,
            extended(WatchDepth::Levels(1)),
            EncodeError::Depth { depth: WatchDepth::Levels(1) },
        ),
    ] {
        assert_eq!(not_written(preamble, peer, &record), expected);
    }
    let error = StreamWriter::create(Vec::new(), V2, Peer::C417).unwrap_err();
    assert!(matches!(error, CreateError::Version { peer: Peer::C417, version: 2 }));
}

#[test]
fn the_body_error_is_there_for_who_wants_it() {
    let error = read(&stream(V1, &[(4, &[0; 8])]), ReadOptions::default()).unwrap_err();
    assert!(matches!(error.failure, ReadFailure::Body { source: BodyError::ConnectionZero }));
}

/// Takes so many octets and then fails.
#[derive(Debug)]
struct Full(usize);

impl std::io::Write for Full {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        let taken = octets.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn nothing_is_written_behind_a_record_that_was_written_in_part() {
    let (connection, transaction) = (id(1), xenstore_proto::TxId(2));
    let record = Record::Transaction(TransactionData { connection, transaction });
    assert!(matches!(
        StreamWriter::create(Full(15), V1, Peer::Specification),
        Err(CreateError::Io { .. })
    ));
    for room in 16..48 {
        let mut writer = StreamWriter::create(Full(room), V1, Peer::Specification).unwrap();
        let whole = (room - 16) / 16;
        for _ in 0..whole {
            writer.write(&record).unwrap();
        }
        let error = writer.write(&record).unwrap_err();
        assert!(matches!(error.failure, WriteFailure::Io { .. }));
        assert_eq!((error.place.index, error.place.offset), (whole as u64, 16 + 16 * whole as u64));
        let error = writer.write(&record).unwrap_err();
        assert!(matches!(error.failure, WriteFailure::AfterError));
        assert!(matches!(writer.finish().unwrap_err().failure, WriteFailure::AfterError));
    }
}
