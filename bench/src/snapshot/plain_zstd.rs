//! What packed images are measured against: zstd alone, of the same frames at the same level in as many threads.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use snapshot::image::CHUNK_LEN;
use snapshot::image::packed::ZSTD_LEVEL_DEFAULT;

/// Compresses a file frame by frame into another one. Nothing is checked, no digest is made, and the frames are written as they
/// come, so that no thread waits for another: less than anybody could do who wants to read them again.
pub(super) fn compress(from: &Path, to: &Path, threads: usize) -> Result<(), Box<dyn Error>> {
    let (input, output) = (File::open(from)?, File::create_new(to)?);
    let frames = Frames { input, output, next: AtomicU64::new(0), end: AtomicU64::new(0) };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| frames.work())).collect();
        let ended = workers.into_iter().map(|worker| {
            worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread has ended")))
        });
        ended.collect::<io::Result<()>>()
    })?;
    Ok(())
}

struct Frames {
    input: File,
    output: File,
    /// The next octet that nobody has taken to compress.
    next: AtomicU64,
    /// The next octet that nobody writes to.
    end: AtomicU64,
}

impl Frames {
    fn work(&self) -> io::Result<()> {
        let mut compressor = zstd::bulk::Compressor::new(ZSTD_LEVEL_DEFAULT)?;
        let mut content = vec![0; CHUNK_LEN];
        let mut encoded = vec![0; zstd::zstd_safe::compress_bound(CHUNK_LEN)];
        loop {
            let at = self.next.fetch_add(CHUNK_LEN as u64, Ordering::Relaxed);
            let read = self.input.read_at(&mut content, at)?;
            if read == 0 {
                return Ok(());
            }
            let len = compressor.compress_to_buffer(&content[..read], &mut encoded[..])?;
            let end = self.end.fetch_add(len as u64, Ordering::Relaxed);
            self.output.write_all_at(&encoded[..len], end)?;
        }
    }
}
