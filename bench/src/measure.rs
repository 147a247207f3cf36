//! Medians of repeated runs: the machine is shared, so one run says little. And what a process has in memory.

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

/// The median of several runs; the first, which fills caches, is not counted.
pub(crate) fn median<E>(
    runs: usize,
    mut run: impl FnMut() -> Result<(), E>,
) -> Result<Duration, E> {
    run()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        run()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[runs / 2])
}

/// Microseconds for one of `count`.
pub(crate) fn micros_each(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / per(count, 1)
}

/// How much of one there is for each of the other.
#[expect(clippy::cast_precision_loss, reason = "counts of what a benchmark does are small")]
pub(crate) fn per(total: usize, count: usize) -> f64 {
    total as f64 / count as f64
}

/// How many times faster the second is.
pub(crate) fn ratio(slow: Duration, fast: Duration) -> f64 {
    slow.as_secs_f64() / fast.as_secs_f64()
}

/// Octets resident of a process.
pub(crate) fn resident(pid: &str) -> Result<usize, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS in the status")?;
    let kib: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024)
}
