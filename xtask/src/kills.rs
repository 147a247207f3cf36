//! `cargo xtask kills`: savers, restorers and Xenstore servers killed at random moments.

use crate::command::{Failure, cargo, execute};

/// Runs the tests that `cargo xtask test` runs, with this many kills each. They print how many were undone, how many completed,
/// and how many commits there were.
pub(crate) fn run(kills: u32, seed: u64) -> Result<(), Failure> {
    let mut test = cargo(&["test", "--package", "snapshot", "--test", "whole", "--"]);
    test.args(["kills::random::", "--nocapture"]);
    test.env("DOMKEEP_KILLS", kills.to_string()).env("DOMKEEP_KILLS_SEED", seed.to_string());
    execute(test)?;
    let mut test = cargo(&["test", "--package", "xenstored", "--test", "sled", "--"]);
    test.args(["killed", "--nocapture"]).env("DOMKEEP_KILLS", kills.to_string());
    execute(test)
}
