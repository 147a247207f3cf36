//! Encoding and decoding streams of nodes beside copying the same octets, and what converting a stream holds in memory.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::{self, Read};
use std::process::Command;
use std::time::Duration;

use xenstore_migration::{
    ByteOrder, NodeData, NodePerm, NodeScope, Peer, Preamble, ReadOptions, Record, StreamReader,
    StreamWriter, Version,
};
use xenstore_proto::{Access, DomId};

use crate::measure::{median, per, ratio};

/// What this program is called with to convert a stream of so many nodes.
pub(crate) const CHILD: &str = "migration-memory-child";

/// 10 MB of stream: more than the inner caches hold.
const NODES: usize = 100_000;

const RUNS: usize = 15;

/// A node as a record borrows it.
struct Node {
    path: String,
    value: String,
    perms: [NodePerm; 2],
}

impl Node {
    /// Paths and values of devices, all of the same lengths.
    fn new(number: usize) -> Self {
        let owner = DomId::new(1 + u16::try_from(number % 9000).unwrap_or_default());
        Self {
            path: format!(
                "/local/domain/{:05}/device/vbd/{:05}/params",
                owner.get(),
                number % 65536
            ),
            value: format!("/dev/vg0/guest-{number:07}-{:04}", owner.get()),
            perms: [NodePerm::new(Access::None, owner), NodePerm::new(Access::Read, DomId::DOM0)],
        }
    }

    fn record(&self) -> Record<'_> {
        Record::Node(NodeData {
            scope: NodeScope::Committed,
            perms: &self.perms,
            path: self.path.as_bytes(),
            value: self.value.as_bytes(),
        })
    }

    fn describe(&self) -> String {
        let (path, value) = (self.path.len() + 1, self.value.len());
        let fields = 16 + 4 * self.perms.len() + path + value;
        format!(
            "{} octets: header 8, fixed fields 16, 2 permissions 8, path {path}, value {value}, padding {}",
            8 + fields.next_multiple_of(8),
            fields.next_multiple_of(8) - fields
        )
    }
}

/// The budget is 1 GB/s each way on one core.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    let nodes: Vec<Node> = (0..NODES).map(Node::new).collect();
    println!("{NODES} NODE_DATA records of {}", nodes[0].describe());
    println!(
        "encoded from owned nodes into a warm Vec, decoded from a slice with all fields visited, copied into a warm buffer"
    );
    println!("budget: encode and decode at least 1 GB/s on one core");
    println!("{:<14} {:>8} {:>8} {:>14} {:>14}", "", "", "GB/s", "Mnodes/s", "copy is faster");
    for byte_order in [ByteOrder::Little, ByteOrder::Big] {
        let preamble = Preamble::new(Version::V1, byte_order);
        let mut stream = encode(&nodes, preamble, Vec::new())?;
        let mut copied = vec![0; stream.len()];
        let copy = median(RUNS, || {
            copied.copy_from_slice(black_box(&stream));
            black_box(&mut copied);
            Ok::<_, Box<dyn Error>>(())
        })?;
        let expected: usize = nodes.iter().map(|node| node.path.len() + node.value.len()).sum();
        let decoding = median(RUNS, || {
            let (octets, sum) = decode(black_box(&stream))?;
            black_box(sum);
            if octets == expected {
                Ok(())
            } else {
                Err(Box::<dyn Error>::from("decoded something else"))
            }
        })?;
        let encoding = median(RUNS, || {
            stream = encode(black_box(&nodes), preamble, std::mem::take(&mut stream))?;
            Ok::<_, Box<dyn Error>>(())
        })?;
        if stream != copied {
            return Err("encoded something else".into());
        }
        for (what, time) in [("encode", encoding), ("decode", decoding), ("copy", copy)] {
            print(byte_order, what, time, copy, stream.len());
        }
    }
    memory()
}

fn print(byte_order: ByteOrder, what: &str, time: Duration, copy: Duration, octets: usize) {
    println!(
        "{:<14} {what:>8} {:>8.2} {:>14.2} {:>14.1}",
        byte_order.to_string(),
        per(octets, 1) / time.as_secs_f64() / 1e9,
        per(NODES, 1) / time.as_secs_f64() / 1e6,
        ratio(time, copy)
    );
}

fn encode(nodes: &[Node], preamble: Preamble, mut out: Vec<u8>) -> Result<Vec<u8>, Box<dyn Error>> {
    out.clear();
    let mut writer = StreamWriter::create(out, preamble, Peer::Specification)?;
    for node in nodes {
        writer.write(&node.record())?;
    }
    Ok(writer.finish()?)
}

/// How many octets paths and values have, and something of all that the records say.
fn decode(stream: &[u8]) -> Result<(usize, usize), Box<dyn Error>> {
    let mut reader = StreamReader::open(stream, ReadOptions::default())?;
    let (mut octets, mut sum) = (0, 0);
    while let Some(placed) = reader.next_record()? {
        let Record::Node(node) = placed.record else { return Err("not a node".into()) };
        octets += node.path.len() + node.value.len();
        sum += node.perms.iter().map(|perm| usize::from(perm.domid.get())).sum::<usize>();
        sum += node.path.last().map_or(0, |octet| usize::from(*octet));
        sum += node.value.first().map_or(0, |octet| usize::from(*octet));
    }
    Ok((octets, sum))
}

/// The most that a process holds which converts a stream, in children of their own.
fn memory() -> Result<(), Box<dyn Error>> {
    println!(
        "peak memory of a process that converts a stream record by record; budget: the same for each"
    );
    for nodes in [10_000, 1_000_000] {
        let output =
            Command::new(std::env::current_exe()?).args([CHILD, &nodes.to_string()]).output()?;
        let kib = String::from_utf8(output.stdout)?;
        println!("{nodes:>9} nodes: {} KiB", kib.trim());
    }
    Ok(())
}

/// Converts a stream of so many nodes to the other byte order and C xenstored's form, and prints the most KiB that were resident.
pub(crate) fn child(nodes: &str) -> Result<(), Box<dyn Error>> {
    let input = Repeated::new(nodes.parse()?)?;
    let mut reader = StreamReader::open(input, ReadOptions::default())?;
    let preamble = Preamble::new(Version::V1, ByteOrder::Big);
    let mut writer = StreamWriter::create(io::sink(), preamble, Peer::C417)?;
    while let Some(placed) = reader.next_record()? {
        writer.write(&placed.record)?;
    }
    writer.finish()?;
    let status = fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{}", peak.ok_or("no VmHWM in the status")?.trim().trim_end_matches(" kB"));
    Ok(())
}

/// A stream that has the same record many times, which is not in memory as a whole.
struct Repeated {
    stream: Vec<u8>,
    /// Where the record ends and END begins.
    end: usize,
    at: usize,
    left: usize,
}

impl Repeated {
    const BEGIN: usize = 16;

    fn new(left: usize) -> Result<Self, Box<dyn Error>> {
        let preamble = Preamble::new(Version::V1, ByteOrder::Little);
        let stream = encode(&[Node::new(1)], preamble, Vec::new())?;
        Ok(Self { end: stream.len() - 8, stream, at: 0, left })
    }
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && self.left > 1 {
            self.left -= 1;
            self.at = Self::BEGIN;
        }
        let until = if self.at < self.end { self.end } else { self.stream.len() };
        let read = (&self.stream[self.at..until]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
