//! `cargo xtask differential`: our Xenstore server beside the stock one, and under upstream's random test.

use crate::command::{Failure, cargo, execute};

/// Runs the comparison that `cargo xtask test` runs with fewer sequences, then the random mode of `test-xenstore`.
pub(crate) fn run(sequences: u32, seed: u64, seconds: u32) -> Result<(), Failure> {
    let mut test = cargo(&["test", "--package", "xenstored", "--test", "differential"]);
    test.args(["--", "--nocapture"]);
    test.env("DOMKEEP_SEQUENCES", sequences.to_string());
    test.env("DOMKEEP_SEQUENCES_SEED", seed.to_string());
    execute(test)?;
    let mut test = cargo(&["test", "--package", "xenstored", "--test", "clients"]);
    test.args(["--", "upstream::", "--nocapture"]);
    test.env("DOMKEEP_RANDOM_SECONDS", seconds.to_string());
    execute(test)
}
