//! Random sequences of requests, sent to the stock C xenstored of Xen 4.17 and to ours: both answer and tell the same,
//! apart from a list of differences, each with its reason.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

mod compare;
mod differences;
mod links;
mod pair;
mod steps;

use std::cell::RefCell;
use std::env;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stock_xenstore::Packages;

use crate::pair::Pair;

/// As many as take some 20 seconds.
const SEQUENCES: u32 = 400;

#[test]
fn any_sequence_is_answered_as_by_the_stock_daemon() {
    const TEST: &str = "any_sequence_is_answered_as_by_the_stock_daemon";
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {TEST}: {reason}"),
    };
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let sequences = number("DOMKEEP_SEQUENCES").map_or(SEQUENCES, |n| n.try_into().unwrap());
    let seed = number("DOMKEEP_SEQUENCES_SEED").unwrap_or(6);
    let mut octets = [0; 32];
    octets[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 3000,
        max_shrink_time: 30_000,
        ..Config::with_cases(sequences)
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &octets);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let pair = RefCell::new(None);
    let checked = runner.run(&steps::any_sequence(), |sequence| {
        // After a failure, both start anew: nobody knows what state they are in.
        let mut running = pair.take().map_or_else(
            || Pair::start(packages),
            |mut pair: Pair| {
                pair.reset();
                pair
            },
        );
        for (at, step) in sequence.iter().enumerate() {
            let waiting = Waiting { at, step };
            let outcome = running.step(step);
            drop(waiting);
            prop_assert!(
                outcome.is_ok(),
                "step {at}, {step:?}: {}\nthe stock daemon printed: {}",
                outcome.unwrap_err(),
                running.stock_log()
            );
        }
        let stores = running.same_stores();
        prop_assert!(stores.is_ok(), "afterwards: {}", stores.unwrap_err());
        pair.replace(Some(running));
        Ok(())
    });
    if let Err(difference) = checked {
        panic!("seed {seed} (DOMKEEP_SEQUENCES_SEED): {difference}");
    }
    if let Some(pair) = pair.into_inner() {
        println!("{TEST}: {sequences} sequences; met: {:?}", pair.tally);
    }
}

/// Says at which step the test panicked: a server that does not answer.
struct Waiting<'s> {
    at: usize,
    step: &'s steps::Step,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("at step {}, {:?}", self.at, self.step);
        }
    }
}
