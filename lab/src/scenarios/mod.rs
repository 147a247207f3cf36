//! The scenarios, one file a subject.

mod coexistence;
mod control;
mod crash;
mod crashes;
mod devices;
mod documents;
mod hostile;
mod live_update;
mod rename;
mod retrieve;
mod smoke;
mod snapshot;
mod snapshot_kill;
mod speed;
mod test_xenstore;
mod xenstored;
mod xenstored_kill;

use std::time::Duration;

use crate::dom0::{Failure, Host};
use crate::xenstored::Xenstored;

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
    /// Its steps.
    pub run: fn(&mut Host) -> Result<(), Failure>,
    /// The daemon that its host starts with, if the command does not say another.
    pub xenstored: Xenstored,
    /// Whether its guests have the module by which they reach their own ring.
    pub spoils_rings: bool,
}

impl Scenario {
    /// What most of them are like: on the stock daemon, with guests that mean no harm.
    const PLAIN: Scenario = Scenario {
        name: "",
        about: "",
        limit: Duration::ZERO,
        run: |_| Ok(()),
        xenstored: Xenstored::Stock,
        spoils_rings: false,
    };
}

/// All of them, in the order in which the whole lab runs them.
pub const ALL: &[Scenario] = &[
    smoke::SMOKE,
    crash::CRASH,
    documents::DOCUMENTS,
    rename::RENAME,
    retrieve::RETRIEVE,
    speed::SPEED,
    control::PV,
    control::PVH,
    control::TRAPS,
    snapshot::PV,
    snapshot::PVH,
    snapshot::XL,
    snapshot_kill::KILL,
    devices::DEVICES,
    crashes::CRASHES,
    coexistence::COEXISTENCE,
    xenstored::XENSTORED,
    test_xenstore::TEST_XENSTORE,
    live_update::LIVE_UPDATE,
    xenstored_kill::KILL,
    hostile::HOSTILE,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_and_each_is_given_once() {
        for (index, scenario) in ALL.iter().enumerate() {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(scenario.name.chars().all(word), "{}", scenario.name);
            assert!(!["run", "list"].contains(&scenario.name));
            assert!(ALL[..index].iter().all(|other| other.name != scenario.name));
        }
    }
}
