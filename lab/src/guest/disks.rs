//! The guest's disks, past its page cache: what is written is on the disk, what is read comes from it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use rustix::fs::OFlags;

use super::Answer;
use crate::blocks::{AlignedBlock, BLOCK, first_difference, numbered, pattern};

/// Streams of numbered writes that run in the background.
#[derive(Default)]
pub(super) struct Disks {
    streams: BTreeMap<String, Stream>,
}

struct Stream {
    /// The last write of which the disk said that it has it.
    last: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writer: JoinHandle<io::Result<()>>,
}

/// Writes `count` blocks of a pattern from block `start` on.
pub(super) fn fill(device: &str, seed: u64, start: u64, count: u64) -> Answer {
    let disk = open(device)?;
    let mut memory = AlignedBlock::new();
    for index in start..start + count {
        memory.octets().copy_from_slice(&pattern(seed, index));
        disk.write_all_at(memory.octets(), index * BLOCK as u64)?;
    }
    disk.sync_all()?;
    Ok(String::new())
}

/// Reads `count` blocks from block `start` on; all must hold the pattern.
pub(super) fn verify(device: &str, seed: u64, start: u64, count: u64) -> Answer {
    match first_difference(&open(device)?, seed, start, count)? {
        None => Ok(String::new()),
        Some(block) => {
            Err(format!("block {block} of {device} does not hold pattern {seed}").into())
        }
    }
}

impl Disks {
    /// Starts to write numbered blocks, each after the one before it is on the disk, to `slots` slots in turn.
    pub(super) fn start(&mut self, device: &str, slots: u64) -> Answer {
        if slots == 0 || self.streams.contains_key(device) {
            return Err(format!("no stream of {slots} slots to {device}: none, or one runs").into());
        }
        let disk = open(device)?;
        let last = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let (told, asked) = (Arc::clone(&last), Arc::clone(&stop));
        let writer = thread::Builder::new().spawn(move || {
            let mut memory = AlignedBlock::new();
            for number in 1.. {
                memory.octets().copy_from_slice(&numbered(number));
                disk.write_all_at(memory.octets(), number % slots * BLOCK as u64)?;
                told.store(number, Ordering::SeqCst);
                if asked.load(Ordering::SeqCst) {
                    break;
                }
            }
            Ok(())
        })?;
        self.streams.insert(device.to_owned(), Stream { last, stop, writer });
        Ok(String::new())
    }

    /// The last write that the disk has.
    pub(super) fn last(&self, device: &str) -> Answer {
        let stream = self.streams.get(device).ok_or("no stream to that device")?;
        Ok(stream.last.load(Ordering::SeqCst).to_string())
    }

    /// Ends a stream, and tells its last write. An error of a write comes out here.
    pub(super) fn stop(&mut self, device: &str) -> Answer {
        let stream = self.streams.remove(device).ok_or("no stream to that device")?;
        stream.stop.store(true, Ordering::SeqCst);
        stream.writer.join().map_err(|_| "the writer panicked")??;
        Ok(stream.last.load(Ordering::SeqCst).to_string())
    }
}

/// Opens for reading and writing without a cache. A disk that is attached for reading only, for reading.
fn open(device: &str) -> io::Result<File> {
    let flags = (OFlags::DIRECT | OFlags::DSYNC).bits();
    let flags = i32::try_from(flags).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let path = format!("/dev/{device}");
    let open = |writing| File::options().read(true).write(writing).custom_flags(flags).open(&path);
    open(true).or_else(|_| open(false))
}
