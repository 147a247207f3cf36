//! What a scenario tells about itself: written on the host, read beside it, kept as `result.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The name of a report's file, in the share.
pub const FILE: &str = "result.json";

/// One scenario's run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The scenario's name, with the daemon's if that was not the scenario's own.
    pub scenario: String,
    /// How it ended.
    pub outcome: Outcome,
    /// From the start of QEMU to its end, in seconds.
    pub seconds: f64,
    /// What was found to hold, in order.
    pub checks: Vec<String>,
    /// What was measured: seconds, ratios, counts.
    pub figures: BTreeMap<String, f64>,
}

/// How a scenario ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Outcome {
    /// Every check held.
    Passed,
    /// This did not hold, or the host failed.
    Failed(String),
    /// It cannot run here, for this reason.
    Skipped(String),
}

impl Report {
    /// Of a scenario that left no report.
    pub fn of(scenario: &str, outcome: Outcome, seconds: f64) -> Report {
        Report {
            scenario: scenario.to_owned(),
            outcome,
            seconds,
            checks: Vec::new(),
            figures: BTreeMap::new(),
        }
    }
}
