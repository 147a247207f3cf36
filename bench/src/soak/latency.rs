//! How long requests took, as counts that need no more memory however many there are.

use std::time::Duration;

/// Each power of two nanoseconds is divided into so many steps: what is told is at most a sixteenth too long.
const STEPS: usize = 16;
const STEP_BITS: u32 = STEPS.trailing_zeros();
const BUCKETS: usize = STEPS * 64;

/// Counts of durations.
#[derive(Clone)]
pub(crate) struct Latencies {
    counts: Vec<u64>,
    total: u64,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }

    pub(crate) fn note(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.total += other.total;
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// What so many of a thousand did not exceed.
    pub(crate) fn per_mille(&self, share: u64) -> Duration {
        let wanted = (self.total * share).div_ceil(1000);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Duration::from_nanos(end(bucket));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let nanos = nanos.max(STEPS as u64);
    let power = nanos.ilog2();
    let step = (nanos >> (power - STEP_BITS)) & (STEPS as u64 - 1);
    power as usize * STEPS + usize::try_from(step).unwrap_or(0)
}

/// The first duration, in nanoseconds, that is past a bucket.
fn end(bucket: usize) -> u64 {
    let (power, step) = (bucket / STEPS, bucket % STEPS);
    let width = 1u64 << power.saturating_sub(STEP_BITS as usize);
    width.saturating_mul(STEPS as u64 + step as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_at_most_a_sixteenth_too_long() {
        let mut latencies = Latencies::new();
        (1..=1000).for_each(|micros| latencies.note(Duration::from_micros(micros)));
        for (share, micros) in [(500, 500.0), (990, 990.0), (999, 999.0)] {
            let told = latencies.per_mille(share).as_secs_f64() * 1e6;
            assert!(told >= micros && told <= micros * 17.0 / 16.0, "{share}: {told}");
        }
        assert_eq!(latencies.total(), 1000);
    }
}
