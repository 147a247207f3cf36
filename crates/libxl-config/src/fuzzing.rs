//! What the fuzz target of this crate runs; the tests replay its corpus through the same function.

use crate::stability::check_stability;

/// Reads any octets as a configuration, and checks that what was read is written and read back the same.
///
/// # Panics
///
/// If a promise does not hold: that is what a fuzzer looks for.
pub fn config(octets: &[u8]) {
    if let Err(unstable) = check_stability(octets) {
        unreachable!("{unstable}");
    }
}
