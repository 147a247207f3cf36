//! Every layout as `docs/xenstore-migration.md` draws it, octet by octet, written out by hand.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData,
    GlobalQuotaData, NodeAccess, NodeData, NodePerm, NodeScope, Peer, PermFlags, Preamble,
    QuotaTable, ReadOptions, Record, RecordType, StreamReader, StreamWriter, TransactionData,
    UnknownData, Version, WatchData, WatchDepth, WatchExtendedData,
};
use xenstore_proto::{Access, DomId, Features, TxId};

/// Octets from words of two hexadecimal digits; a word `"text"` stands for itself, and `|` between fields for nothing.
fn octets(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    for word in text.split_whitespace().filter(|word| *word != "|") {
        match word.strip_prefix('"') {
            Some(quoted) => octets.extend_from_slice(quoted.trim_end_matches('"').as_bytes()),
            None => octets.push(u8::from_str_radix(word, 16).unwrap()),
        }
    }
    octets
}

/// Checks that the record, alone in a stream, is these octets for this peer, and is read from them.
fn check(version: Version, byte_order: ByteOrder, peer: Peer, record: Record<'_>, text: &str) {
    let preamble = Preamble::new(version, byte_order);
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    writer.write(&record).unwrap();
    let stream = writer.finish().unwrap();
    let (body, end) = stream[16..].split_at(stream.len() - 24);
    assert_eq!(body, octets(text), "{record:?} {byte_order}");
    assert_eq!(end, [0; 8]);
    let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
    assert_eq!(reader.next_record().unwrap().unwrap().record, record);
    assert_eq!(reader.next_record().unwrap(), None);
}

fn little(record: Record<'_>, text: &str) {
    check(Version::V2, ByteOrder::Little, Peer::Specification, record, text);
}

fn big(record: Record<'_>, text: &str) {
    check(Version::V2, ByteOrder::Big, Peer::Specification, record, text);
}

fn id(number: u32) -> ConnectionId {
    ConnectionId::new(number).unwrap()
}

#[test]
fn the_preamble() {
    let preamble = Preamble::new(Version::V2, ByteOrder::Big);
    assert_eq!(preamble.to_octets().to_vec(), octets("\"xenstore\" 00 00 00 02 | 00 00 00 01"));
}

#[test]
fn global_data() {
    let global = Record::Global(GlobalData { socket_fd: Some(3), event_channel_fd: None });
    little(global, "01 00 00 00 | 08 00 00 00 | 03 00 00 00 | ff ff ff ff");
    big(global, "00 00 00 01 | 00 00 00 08 | 00 00 00 03 | ff ff ff ff");
}

#[test]
fn connection_data() {
    let ring = |target, unique_id| {
        Record::Connection(ConnectionData {
            id: id(4),
            spec: ConnectionSpec::Ring { domid: DomId::new(1), target, port: 0x1020 },
            input: b"abc",
            output_rest: 1,
            output: b"xy",
            unique_id,
        })
    };
    little(
        ring(None, None),
        "02 00 00 00 | 1d 00 00 00 | 04 00 00 00 | 00 00 | 00 00 | 01 00 | f4 7f | 20 10 00 00 | \
         03 00 | 01 00 | 02 00 00 00 | \"abc\" \"xy\" 00 00 00",
    );
    big(
        ring(Some(DomId::new(7)), Some(9)),
        "00 00 00 02 | 00 00 00 28 | 00 00 00 04 | 00 00 | 00 01 | 00 01 | 00 07 | 00 00 10 20 | \
         00 03 | 00 01 | 00 00 00 02 | \"abc\" \"xy\" 00 00 00 | 00 00 00 00 00 00 00 09",
    );
    let spec = ConnectionSpec::Socket { fd: 8 };
    let none: &[u8] = &[];
    little(
        Record::Connection(ConnectionData {
            id: id(4),
            spec,
            input: none,
            output_rest: 0,
            output: none,
            unique_id: None,
        }),
        "02 00 00 00 | 18 00 00 00 | 04 00 00 00 | 01 00 | 00 00 | 08 00 00 00 00 00 00 00 | 00 00 | 00 00 | 00 00 00 00",
    );
}

#[test]
fn watch_data() {
    let watch = Record::Watch(WatchData { connection: id(3), path: b"/local", token: b"tokA" });
    little(
        watch,
        "03 00 00 00 | 14 00 00 00 | 03 00 00 00 | 07 00 | 05 00 | \"/local\" 00 | \"tokA\" 00 | 00 00 00 00",
    );
    let for_c = "03 00 00 00 | 18 00 00 00 | 03 00 00 00 | 07 00 | 05 00 | \"/local\" 00 | \"tokA\" 00 | 00 00 00 00";
    check(Version::V1, ByteOrder::Little, Peer::C417, watch, for_c);
}

#[test]
fn watch_data_extended() {
    let watch = |depth| {
        let (connection, path, token) = (id(3), &b"/ab"[..], &b"tok"[..]);
        Record::WatchExtended(WatchExtendedData { connection, depth, path, token })
    };
    little(
        watch(WatchDepth::Levels(1)),
        "08 00 00 00 | 14 00 00 00 | 03 00 00 00 | 04 00 | 04 00 | 01 00 | 00 00 | \"/ab\" 00 | \"tok\" 00 | 00 00 00 00",
    );
    big(
        watch(WatchDepth::Unlimited),
        "00 00 00 08 | 00 00 00 14 | 00 00 00 03 | 00 04 | 00 04 | ff ff | 00 00 | \"/ab\" 00 | \"tok\" 00 | 00 00 00 00",
    );
    check(
        Version::V2,
        ByteOrder::Little,
        Peer::C2026,
        watch(WatchDepth::Levels(1)),
        "08 00 00 00 | 18 00 00 00 | 03 00 00 00 | 04 00 | 04 00 | 01 00 | \"/ab\" 00 | \"tok\" 00 | 00 00 00 00 00 00",
    );
    // The length counts 8 octets that are not there.
    check(
        Version::V1,
        ByteOrder::Little,
        Peer::C2026Written,
        watch(WatchDepth::Untold),
        "08 00 00 00 | 18 00 00 00 | 03 00 00 00 | 04 00 | 04 00 | \"/ab\" 00 | \"tok\" 00",
    );
}

#[test]
fn transaction_data() {
    let transaction = TransactionData { connection: id(5), transaction: TxId(0x0102) };
    little(
        Record::Transaction(transaction),
        "04 00 00 00 | 08 00 00 00 | 05 00 00 00 | 02 01 00 00",
    );
}

#[test]
fn node_data() {
    let perms = [
        NodePerm::new(Access::None, DomId::new(1)),
        NodePerm { access: Access::Both, flags: PermFlags::STALE, domid: DomId::new(0x0203) },
    ];
    let node =
        |scope| Record::Node(NodeData { scope, perms: &perms, path: b"/a", value: b"v\x00" });
    little(
        node(NodeScope::Committed),
        "05 00 00 00 | 1d 00 00 00 | 00 00 00 00 | 00 00 00 00 | 03 00 | 02 00 | 00 00 | 02 00 | \
         \"n\" 00 01 00 | \"b\" 01 03 02 | \"/a\" 00 | \"v\" 00 | 00 00 00",
    );
    let (connection, transaction, access) = (id(2), TxId(7), NodeAccess::WRITTEN);
    big(
        node(NodeScope::Pending { connection, transaction, access }),
        "00 00 00 05 | 00 00 00 1d | 00 00 00 02 | 00 00 00 07 | 00 03 | 00 02 | 00 02 | 00 02 | \
         \"n\" 00 00 01 | \"b\" 01 02 03 | \"/a\" 00 | \"v\" 00 | 00 00 00",
    );
}

#[test]
fn quotas_of_the_server_and_of_a_domain() {
    let mut per_domain = QuotaTable::new();
    per_domain.push(b"nodes", 1000).unwrap();
    let mut global = QuotaTable::new();
    global.push(b"g", 0).unwrap();
    little(
        Record::GlobalQuota(GlobalQuotaData {
            per_domain: per_domain.quotas(),
            global: global.quotas(),
        }),
        "06 00 00 00 | 14 00 00 00 | 01 00 | 01 00 | e8 03 00 00 | 00 00 00 00 | \"nodes\" 00 \"g\" 00 | 00 00 00 00",
    );
    let domain = |features| {
        let (domid, quotas) = (DomId::new(2), per_domain.quotas());
        Record::Domain(DomainData { domid, features, quotas })
    };
    big(
        domain(Some(Features(14))),
        "00 00 00 07 | 00 00 00 12 | 00 02 | 00 01 | 00 00 00 0e | 00 00 03 e8 | \"nodes\" 00 | 00 00 00 00 00 00",
    );
    let text = "07 00 00 00 | 12 00 00 00 | 02 00 | 01 00 | 00 00 00 00 | e8 03 00 00 | \"nodes\" 00 | 00 00 00 00 00 00";
    check(Version::V1, ByteOrder::Little, Peer::Specification, domain(None), text);
}

#[test]
fn unknown_records() {
    let unknown = Record::Unknown(UnknownData { record_type: RecordType(9), body: b"abc" });
    little(unknown, "09 00 00 00 | 03 00 00 00 | \"abc\" 00 00 00 00 00");
}

fn page() -> String {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/xenstore-migration.md");
    std::fs::read_to_string(page).unwrap()
}

#[test]
fn every_record_and_peer_is_on_the_page() {
    let page = page();
    for number in 0..9 {
        let name = RecordType(number).name().unwrap();
        assert!(page.contains(&format!("| {number} | {name} |")), "{name}");
        assert!(number == 0 || page.contains(&format!("\n**{name}**")), "{name} has no grid");
    }
    for peer in Peer::ALL {
        assert!(peer == Peer::Specification || page.contains(peer.name()), "{peer}");
    }
}

/// The body that a grid's last column shows, and its fields, having seen that each begins where the one before it ends.
fn drawn(grid: &str) -> (Vec<u8>, Vec<&str>) {
    let (mut body, mut fields) = (Vec::new(), Vec::new());
    let rows = grid.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    for row in rows.take_while(|line| line.starts_with('|')) {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{row}");
        let [octet, len, field, example] = [0, 1, 2, 3].map(|column| cells[column]);
        assert_eq!(octet.parse::<usize>().unwrap(), body.len(), "{row}");
        let example = octets(example.trim_matches('`'));
        assert!(len == "-" || len.parse::<usize>().unwrap() == example.len(), "{row}");
        body.extend(example);
        fields.push(field);
    }
    (body, fields)
}

#[test]
fn every_grid_of_the_page_is_a_record_that_is_read_and_written_as_drawn() {
    let page = page();
    let mut grids = 0;
    for section in page.split("\n**").skip(1) {
        let (name, grid) = section.split_once("**").unwrap();
        let Some(number) = (0..9).find(|number| RecordType(*number).name() == Some(name)) else {
            continue;
        };
        let (body, fields) = drawn(grid);
        assert!(!fields.is_empty(), "{name}");
        let versions = if name == "WATCH_DATA_EXTENDED" {
            &[Version::V2][..]
        } else {
            &[Version::V1, Version::V2]
        };
        for version in versions {
            let preamble = Preamble::new(*version, ByteOrder::Little);
            let mut stream = preamble.to_octets().to_vec();
            stream.extend(number.to_le_bytes());
            stream.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
            stream.extend(&body);
            stream.resize(stream.len().next_multiple_of(8), 0);
            stream.extend([0; 8]);
            let options = ReadOptions::default().strict();
            let mut reader = StreamReader::open(&*stream, options).unwrap();
            let mut writer =
                StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
            let read = reader.next_record().unwrap().unwrap();
            assert_eq!(read.record.record_type().name(), Some(name));
            writer.write(&read.record).unwrap();
            assert_eq!(writer.finish().unwrap(), stream, "{name} {version:?}");
        }
        grids += 1;
    }
    assert_eq!(grids, 9);
}
