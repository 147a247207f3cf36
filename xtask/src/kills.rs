//! `cargo xtask kills`: savers and restorers killed at random moments.

use crate::command::{Failure, cargo, execute};

/// Runs the test that `cargo xtask test` runs with fewer kills. It prints how many were undone and how many completed.
pub(crate) fn run(kills: u32, seed: u64) -> Result<(), Failure> {
    let mut test = cargo(&["test", "--package", "snapshot", "--test", "whole", "--"]);
    test.args(["kills::random::", "--nocapture"]);
    test.env("DOMKEEP_KILLS", kills.to_string()).env("DOMKEEP_KILLS_SEED", seed.to_string());
    execute(test)
}
