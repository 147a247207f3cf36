//! Snapshots of disks, with the real `qemu-img` and the real `qemu-storage-daemon`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod chains;
mod copies;
mod descriptors;
mod digests;
mod headers;
mod hooks;
mod internal;
mod live;
mod lost;
mod nbd;
mod offline;
mod opened;
mod programs;
mod proxy;
mod qmp;
mod recovery;
mod restore;
