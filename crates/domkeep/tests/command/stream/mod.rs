//! `stream`.

mod convert;
mod domain;
mod encode;
mod inspect;
mod verify;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use xenstore_migration::{
    ByteOrder, ConnectionData, ConnectionId, ConnectionSpec, DomainData, GlobalData,
    GlobalQuotaData, NodeAccess, NodeData, NodePerm, NodeScope, Peer, PermFlags, Preamble,
    QuotaTable, Record, RecordType, StreamWriter, TransactionData, UnknownData, Version, WatchData,
    WatchDepth, WatchExtendedData,
};
use xsclient::{Access, DomId, Features, TxId};

use crate::host::{Answer, domkeep, shipped};

fn one_node() -> PathBuf {
    shipped("../xenstore-migration/testdata/one-node.bin")
}

fn stream(arguments: &[&str]) -> Answer {
    let mut command = domkeep();
    Answer::of(command.arg("stream").args(arguments).current_dir(shipped("tests/data/config")))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The streams that are shipped, and those of stock daemons where there are any.
fn streams(test: &str) -> Vec<PathBuf> {
    let mut streams = Vec::new();
    let captures = shipped("../../../shared/captures/migration");
    if !captures.is_dir() {
        println!("skipped: {test}: no ../shared/captures, only the shipped streams are read");
    }
    for directory in [shipped("../xenstore-migration/testdata"), captures] {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        let paths = entries.map(|entry| entry.unwrap().path());
        streams.extend(paths.filter(|path| path.extension().is_some_and(|end| end == "bin")));
    }
    streams.sort();
    assert!(!streams.is_empty());
    streams
}

fn written(preamble: Preamble, peer: Peer, records: &[Record<'_>]) -> Vec<u8> {
    let mut writer = StreamWriter::create(Vec::new(), preamble, peer).unwrap();
    records.iter().for_each(|record| writer.write(record).unwrap());
    writer.finish().unwrap()
}

const NATIVE: Preamble = Preamble::new(Version::V2, ByteOrder::NATIVE);

const OWNED_BY_DOM0: &[NodePerm] = &[NodePerm::new(Access::None, DomId::DOM0)];

fn node<'a>(path: &'a str, value: &'a [u8]) -> Record<'a> {
    let scope = NodeScope::Committed;
    Record::Node(NodeData { scope, perms: OWNED_BY_DOM0, path: path.as_bytes(), value })
}

fn ring<'a>(id: u32, domid: u16, target: Option<u16>) -> Record<'a> {
    Record::Connection(ConnectionData {
        id: ConnectionId::new(id).unwrap(),
        spec: ConnectionSpec::Ring {
            domid: DomId::new(domid),
            target: target.map(DomId::new),
            port: 5,
        },
        input: b"",
        output_rest: 0,
        output: b"",
        unique_id: None,
    })
}

fn saved(directory: &tempfile::TempDir, octets: &[u8]) -> PathBuf {
    let path = directory.path().join("stream");
    fs::write(&path, octets).unwrap();
    path
}

fn lines(answer: &Answer) -> Vec<Value> {
    answer.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A record of every type with everything in it that one can have.
fn everything() -> Vec<u8> {
    let connection = ConnectionId::new(7).unwrap();
    let transaction = TxId(9);
    let pending = NodeScope::Pending { connection, transaction, access: NodeAccess(3) };
    let removed = NodeScope::Pending { connection, transaction, access: NodeAccess::REMOVED };
    let stale = NodePerm { access: Access::Both, flags: PermFlags::STALE, domid: DomId::new(4) };
    let perms = [OWNED_BY_DOM0[0], NodePerm::new(Access::Read, DomId::new(3)), stale];
    let mut quotas = QuotaTable::new();
    quotas.push(b"nodes", 1000).unwrap();
    quotas.push(b"memory", 0).unwrap();
    let quotas = quotas.quotas();
    let none = xenstore_migration::Quotas::NONE;
    let records = [
        Record::Global(GlobalData { socket_fd: Some(3), event_channel_fd: None }),
        Record::GlobalQuota(GlobalQuotaData { per_domain: quotas, global: none }),
        Record::Connection(ConnectionData {
            id: connection,
            spec: ConnectionSpec::Ring {
                domid: DomId::new(3),
                target: Some(DomId::new(4)),
                port: 12,
            },
            input: b"\x02\"\x00",
            output_rest: 1,
            output: b"\xff",
            unique_id: Some(99),
        }),
        Record::Connection(ConnectionData {
            id: ConnectionId::new(8).unwrap(),
            spec: ConnectionSpec::Socket { fd: 5 },
            input: b"",
            output_rest: 0,
            output: b"",
            unique_id: None,
        }),
        Record::Watch(WatchData { connection, path: b"@releaseDomain", token: b"a token" }),
        Record::WatchExtended(WatchExtendedData {
            connection,
            depth: WatchDepth::Levels(2),
            path: b"/local",
            token: b"t",
        }),
        Record::Transaction(TransactionData { connection, transaction }),
        Record::Node(NodeData {
            scope: NodeScope::Committed,
            perms: &perms,
            path: b"/a",
            value: b"one \"two\"\n\x01",
        }),
        Record::Node(NodeData { scope: pending, perms: &perms, path: b"/a", value: b"\xfe" }),
        Record::Node(NodeData { scope: removed, perms: &[], path: b"/b", value: b"" }),
        Record::Domain(DomainData { domid: DomId::new(3), features: Some(Features(3)), quotas }),
        Record::Unknown(UnknownData { record_type: RecordType(0x21), body: b"12345678" }),
    ];
    written(NATIVE, Peer::Specification, &records)
}
