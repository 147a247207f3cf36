//! What a node costs: resident octets a node for 100,000 small nodes, and the times that depend on the tree's shape.
//!
//! `cargo run --release -p xenstored --example node_memory`

use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use xenstore_proto::{Path, Perms};
use xenstored::Store;

const NODES: usize = 100_000;
const BIG_DIRECTORY: usize = 20_000;
const BIG_TRANSACTION: usize = 4_000;

fn main() -> Result<(), Box<dyn Error>> {
    let before = resident()?;
    let start = Instant::now();
    let store = host(NODES)?;
    let took = start.elapsed();
    let octets = resident()?.saturating_sub(before);
    let nodes = store.nodes().count();
    println!("{nodes} nodes built in {took:.1?}: {} octets resident a node", octets / nodes);

    let children: Vec<Path> =
        (0..BIG_DIRECTORY).map(|i| format!("/big/{i}").parse()).collect::<Result<_, _>>()?;
    for (what, shared) in [("unshared", false), ("with a snapshot before each", true)] {
        let mut store = store.clone();
        let mut keep = store.clone();
        let start = Instant::now();
        for path in &children {
            if shared {
                keep = store.clone();
            }
            store.write(path, b"1")?;
        }
        let each = start.elapsed() / u32::try_from(BIG_DIRECTORY)?;
        println!("create one of {BIG_DIRECTORY} children, {what}: {each:.2?}");
        let start = Instant::now();
        for path in children.iter().step_by(20) {
            if shared {
                keep = store.clone();
            }
            store.remove(path)?;
        }
        let each = start.elapsed() / u32::try_from(BIG_DIRECTORY / 20)?;
        println!("remove one of {BIG_DIRECTORY} children, {what}: {each:.2?}");
        black_box(keep);
    }

    let paths: Vec<Path> =
        store.nodes().map(|node| node.path).step_by(NODES / BIG_TRANSACTION).collect();
    let start = Instant::now();
    let mut changed = store.clone();
    for path in &paths {
        changed.write(path, b"new")?;
    }
    println!("write {} nodes all over a snapshot: {:.2?}", paths.len(), start.elapsed());
    let start = Instant::now();
    for path in &paths {
        black_box(store.read(path));
    }
    println!("read {} nodes: {:.2?}", paths.len(), start.elapsed());
    Ok(())
}

/// Domains with their devices, both halves of each, until there are enough nodes.
fn host(nodes: usize) -> Result<Store, Box<dyn Error>> {
    const BACKEND: [(&str, &str); 10] = [
        ("frontend", "/local/domain/7/device/vbd/51712"),
        ("params", "/dev/vg0/guest"),
        ("frontend-id", "7"),
        ("online", "1"),
        ("removable", "0"),
        ("bootable", "1"),
        ("state", "4"),
        ("dev", "xvda"),
        ("mode", "w"),
        ("hotplug-status", "connected"),
    ];
    const FRONTEND: [(&str, &str); 8] = [
        ("backend", "/local/domain/0/backend/vbd/7/51712"),
        ("backend-id", "0"),
        ("state", "4"),
        ("virtual-device", "51712"),
        ("device-type", "disk"),
        ("ring-ref", "8"),
        ("event-channel", "15"),
        ("protocol", "x86_64-abi"),
    ];
    let mut store = Store::new();
    let mut written = 0;
    for domid in 1.. {
        let to_guest: Arc<Perms> = Arc::new(format!("n0,r{domid}").parse()?);
        let of_guest: Arc<Perms> = Arc::new(format!("n{domid},r0").parse()?);
        for device in 0..40 {
            let vdev = 51712 + device * 16;
            let halves = [
                (format!("/local/domain/0/backend/vbd/{domid}/{vdev}"), &BACKEND[..], &to_guest),
                (format!("/local/domain/{domid}/device/vbd/{vdev}"), &FRONTEND[..], &of_guest),
            ];
            for (dir, keys, perms) in halves {
                for (key, value) in keys {
                    let path: Path = format!("{dir}/{key}").parse()?;
                    store.write(&path, value.as_bytes())?;
                    store.set_perms(&path, Arc::clone(perms))?;
                }
                store.set_perms(&dir.parse()?, Arc::clone(perms))?;
                written += keys.len() + 1;
            }
            if written >= nodes {
                return Ok(store);
            }
        }
    }
    Ok(store)
}

/// Octets of memory this process occupies.
fn resident() -> Result<usize, Box<dyn Error>> {
    const PAGE: usize = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: usize =
        statm.split(' ').nth(1).ok_or("no second number in /proc/self/statm")?.parse()?;
    Ok(pages * PAGE)
}
