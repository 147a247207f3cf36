//! The scenarios, one file a subject.

use std::time::Duration;

/// One of them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Scenario {
    /// As it is called on the command line.
    pub name: &'static str,
    /// What it shows, in a line.
    pub about: &'static str,
    /// For its steps, the boot not counted, on two cores without hardware virtualisation that have other work too.
    pub limit: Duration,
}

/// All of them, in the order in which the whole lab runs them.
pub const ALL: &[Scenario] = &[];
