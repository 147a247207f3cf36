//! How much memory a reader and a writer take, whatever a stream claims and however long it is.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use xenstore_migration::domain_state::{DomainState, NodeState, RestorePolicy, plan};
use xenstore_migration::limits::{READ_AHEAD, RECORD_MAX};
use xenstore_migration::{
    ByteOrder, NodeData, NodePerm, NodeScope, Peer, Preamble, ReadFailure, ReadOptions, Record,
    StreamReader, StreamWriter, Version,
};
use xenstore_proto::{Access, DomId, Path, Perms};

/// The system's allocator, which counts for each thread what it holds and the most it has held: tests run side by side.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn count(more: usize, less: usize) {
    // Memory can be freed by another thread than that which took it.
    let held = (HELD.get() + more).saturating_sub(less);
    HELD.set(held);
    PEAK.set(PEAK.get().max(held));
}

#[expect(unsafe_code, reason = "there is no other way to see each allocation")]
// SAFETY: all calls are passed on to the system's allocator as they are. The counters are constants without a destructor, so
// that using them does not allocate and works to the end of a thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller keeps the contract of this function, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, octets: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above; what was allocated came from there.
        unsafe { System.dealloc(octets, layout) }
    }

    unsafe fn realloc(&self, octets: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both are held while one is copied to the other.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(octets, layout, size) }
    }
}

/// Most octets held at a time beyond what was held before, and what `run` gives.
fn peak<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = HELD.get();
    PEAK.set(before);
    let result = run();
    (PEAK.get() - before, result)
}

/// What it says it is, and only so many octets of it.
struct Claims {
    begin: Vec<u8>,
    at: usize,
    sent: usize,
}

impl Claims {
    fn new(record_type: u32, len: u32, sent: usize) -> Self {
        let preamble = Preamble::new(Version::V2, ByteOrder::Little);
        let mut begin = preamble.to_octets().to_vec();
        begin.extend(record_type.to_le_bytes());
        begin.extend(len.to_le_bytes());
        Self { sent: sent + begin.len(), begin, at: 0 }
    }
}

impl Read for Claims {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.sent - self.at);
        for octet in &mut buffer[..most] {
            *octet = self.begin.get(self.at).copied().unwrap_or(b'a');
            self.at += 1;
        }
        Ok(most)
    }
}

#[test]
fn what_a_record_claims_is_not_allocated_before_it_has_come() {
    for record_type in (1..=9).chain([u32::MAX]) {
        for sent in [0, 10, 1000, READ_AHEAD + 1, 10 * READ_AHEAD] {
            for len in [RECORD_MAX as u64, RECORD_MAX as u64 - 7, 1 << 20] {
                let input = Claims::new(record_type, u32::try_from(len).unwrap(), sent);
                let (held, ()) = peak(|| {
                    let mut reader = StreamReader::open(input, ReadOptions::default()).unwrap();
                    let error = reader.next_record().unwrap_err();
                    assert!(matches!(error.failure, ReadFailure::Cut { .. }));
                });
                // A buffer that grows is twice as large, and held together with the one it replaces.
                assert!(
                    held <= 3 * (sent + READ_AHEAD) && held < sent + RECORD_MAX,
                    "{held} for {sent} of type {record_type}"
                );
            }
        }
    }
}

#[test]
fn a_record_that_is_too_long_takes_no_memory() {
    for len in [u32::MAX, u32::MAX - 7, 1 << 31, u32::try_from(RECORD_MAX).unwrap() + 1] {
        let input = Claims::new(2, len, usize::MAX / 2);
        let (held, ()) = peak(|| {
            let mut reader = StreamReader::open(input, ReadOptions::default()).unwrap();
            let error = reader.next_record().unwrap_err();
            assert!(matches!(error.failure, ReadFailure::TooLong { .. }));
        });
        assert!(held < 1000, "{held} octets for a record of {len}");
    }
}

#[test]
fn the_longest_record_takes_no_more_than_itself_and_a_buffer_as_large() {
    let input = Claims::new(9, u32::try_from(RECORD_MAX).unwrap(), RECORD_MAX + 8);
    let (held, len) = peak(|| {
        let mut reader = StreamReader::open(input, ReadOptions::default()).unwrap();
        match reader.next_record().unwrap().unwrap().record {
            Record::Unknown(unknown) => unknown.body.len(),
            other => unreachable!("{other:?}"),
        }
    });
    assert_eq!(len, RECORD_MAX);
    assert!(held <= 2 * RECORD_MAX + READ_AHEAD, "{held}");
}

/// What lengths inside a record claim is not believed either, though the entries they count are held apart from it.
#[test]
fn what_a_count_within_a_record_claims_is_not_allocated() {
    let mut node = vec![0; 16];
    (node[8], node[14], node[15]) = (2, 0xFF, 0xFF);
    node.extend(*b"n\0\0\0r\0\x01\0/\0");
    let quotas = [0xFF, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 2, 0, 0, 0];
    let domain = [3, 0, 0xFF, 0xFF, 0, 0, 0, 0, 1, 0, 0, 0];
    for (record_type, body) in [(5, &node[..]), (6, &quotas[..]), (7, &domain[..])] {
        let mut stream = Preamble::new(Version::V2, ByteOrder::Little).to_octets().to_vec();
        stream.extend([record_type, 0, 0, 0, u8::try_from(body.len()).unwrap(), 0, 0, 0]);
        stream.extend(body);
        stream.resize(stream.len().next_multiple_of(8) + 8, 0);
        let (held, ()) = peak(|| {
            let mut reader = StreamReader::open(&*stream, ReadOptions::default()).unwrap();
            let error = reader.next_record().unwrap_err();
            assert!(matches!(error.failure, ReadFailure::Body { .. }));
        });
        assert!(held < 500, "{held} octets for type {record_type}");
    }
}

/// A stream of so many nodes, which is not there as a whole at any time.
struct Nodes {
    left: usize,
    writer: StreamWriter<Vec<u8>>,
    ready: io::Cursor<Vec<u8>>,
}

impl Nodes {
    fn new(count: usize) -> Self {
        let preamble = Preamble::new(Version::V1, ByteOrder::Big);
        let octets = preamble.to_octets().to_vec();
        let writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
        Self { left: count, writer, ready: io::Cursor::new(octets) }
    }

    fn record(&mut self) -> Vec<u8> {
        let preamble = self.writer.preamble();
        let fresh = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
        let mut writer = std::mem::replace(&mut self.writer, fresh);
        if self.left == 0 {
            return vec![0; 8];
        }
        self.left -= 1;
        let path = format!("/local/domain/{}/device/vif/0/state", 100 + self.left % 900);
        let perms = [NodePerm::new(Access::None, DomId::new(3))];
        let scope = NodeScope::Committed;
        let node = NodeData { scope, perms: &perms, path: path.as_bytes(), value: b"4" };
        writer.write(&Record::Node(node)).unwrap();
        let mut octets = writer.finish().unwrap();
        octets.truncate(octets.len() - 8);
        octets.split_off(16)
    }
}

impl Read for Nodes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.ready.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        self.ready = io::Cursor::new(self.record());
        self.ready.read(buffer)
    }
}

#[test]
fn memory_does_not_grow_with_the_number_of_records() {
    let [few, many] = [10, 100_000].map(|count| {
        peak(|| {
            let mut reader = StreamReader::open(Nodes::new(count), ReadOptions::default()).unwrap();
            let preamble = Preamble::new(Version::V1, ByteOrder::Little);
            let mut writer = StreamWriter::create(io::sink(), preamble, Peer::C417).unwrap();
            let mut nodes = 0;
            while let Some(placed) = reader.next_record().unwrap() {
                writer.write(&placed.record).unwrap();
                nodes += 1;
            }
            writer.finish().unwrap();
            assert_eq!(nodes, count);
        })
        .0
    });
    assert_eq!(few, many, "octets held for 10 records and for 100,000");
    assert!(many < 4096, "{many} octets");
}

/// A domain's state of one node in its own tree and so many others, whose paths are as deep as paths get and have nothing in
/// common; each is a root.
fn deep_roots(count: usize) -> DomainState {
    let perms = Perms::owned_by(DomId::new(3));
    let node = || NodeState { value: Vec::new(), perms: perms.clone() };
    let deep = |number| format!("/r{number}{}", "/x".repeat(1500)).parse::<Path>().unwrap();
    let own = Path::of_domain(DomId::new(3));
    let mut nodes: BTreeMap<_, _> = (0..count).map(|number| (deep(number), node())).collect();
    let mut roots: BTreeSet<_> = nodes.keys().cloned().collect();
    nodes.insert(own.clone(), node());
    roots.insert(own);
    let (connection, quotas, features) = (None, BTreeMap::new(), None);
    DomainState { domid: DomId::new(3), roots, nodes, connection, quotas, features }
}

#[test]
fn a_plan_takes_no_memory_for_what_lies_above_the_nodes() {
    let wanted = deep_roots(20);
    let mut current = deep_roots(0);
    let surplus = current.nodes[&Path::of_domain(current.domid)].clone();
    current.nodes.insert("/local/domain/3/data".parse().unwrap(), surplus);
    let octets: usize = wanted.nodes.keys().map(|path| path.as_str().len()).sum();
    let (held, plan) = peak(|| plan(&current, &wanted, &RestorePolicy::exact()).unwrap());
    assert_eq!(plan.changes.len(), 1);
    assert!(held < 4 * octets, "{held} octets for paths of {octets}");
}

/// Records are made one at a time, wherever in the document they stand.
#[cfg(feature = "json")]
#[test]
fn a_document_takes_no_memory_for_records_that_have_been_written() {
    use xenstore_migration::json::{EncodeOptions, encode_to};

    let node = r#"{"type":"NODE_DATA","path":"/a","perms":"n0,r3","value":"some value"}"#;
    let encode = |count: usize| {
        let records = vec![node; count].join(",");
        let document = format!(r#"{{"records":[{records}],"version":1,"byte_order":"big"}}"#);
        peak(|| {
            let options = EncodeOptions::default().unchecked();
            encode_to(document.as_bytes(), io::sink(), options).unwrap().records
        })
    };
    let [(few, _), (many, records)] = [10, 50_000].map(encode);
    assert_eq!(records, 50_000);
    // Their numbers have more digits.
    assert!(few < 4096 && many < 4096, "{few} octets held for 10 records and {many} for 50,000");
}

/// What does not belong where it stands is refused before it is held, and nothing takes much more memory than its text.
#[cfg(feature = "json")]
#[test]
fn what_does_not_belong_into_a_document_takes_no_memory() {
    use xenstore_migration::json::{EncodeOptions, encode};

    let zeros = format!("[{}0]", "0,".repeat(1 << 19));
    let quotas = format!("[{}{{}}]", r#"{"name":"a","value":0},"#.repeat(1 << 15));
    let perms = format!(r#""{}""#, "n0,".repeat(1 << 19));
    for (field, value, most) in [
        ("kind", &zeros, 4096),
        ("depth", &zeros, 4096),
        ("path", &zeros, 4096),
        ("input", &zeros, 4096),
        ("unheard", &zeros, 4096),
        ("per_domain", &zeros, 4096),
        ("per_domain", &quotas, 8 * quotas.len()),
        ("perms", &perms, 8 * perms.len()),
    ] {
        let record =
            format!(r#"{{"type":"NODE_DATA","path_hex":"2f","value":"","{field}":{value}}}"#);
        let document = format!(r#"{{"version":2,"byte_order":"big","records":[{record}]}}"#);
        let (held, refused) =
            peak(|| encode(document.as_bytes(), EncodeOptions::default()).is_err());
        assert!(refused && held <= most, "{field}: {held} octets held of {}", document.len());
    }
}
