//! Upstream's own test and benchmark inside dom0, on the stock daemon and on domkeep's in turns.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scenario;
use crate::dom0::{Failure, Host};
use crate::xenstored::Xenstored;

pub(super) const TEST_XENSTORE: Scenario = Scenario {
    name: "test-xenstore",
    about: "upstream's test-xenstore in dom0 on the stock daemon and on domkeep's, side by side",
    limit: Duration::from_mins(15),
    run,
    ..Scenario::PLAIN
};

/// Of each test in a round.
const ITERATIONS: u32 = 400;
/// Of both daemons, in turns. The best of them counts: whatever else runs only adds to the others.
const ROUNDS: usize = 4;
const TESTS: usize = 12;

fn run(host: &mut Host) -> Result<(), Failure> {
    let mut best: BTreeMap<String, [f64; 2]> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for (index, xenstored) in [Xenstored::Stock, Xenstored::Ours].into_iter().enumerate() {
            host.live_update(xenstored)?;
            // The stock one writes down every request here, octet by octet: that is not what a host's does.
            host.xenstore()?.control(&["log", "off"])?;
            for (test, micros) in measure(host)? {
                let figures = best.entry(test).or_insert([f64::INFINITY; 2]);
                figures[index] = figures[index].min(micros);
            }
        }
    }
    host.check_equal("all tests passed on both", &best.len(), &TESTS)?;
    let mut worst = f64::INFINITY;
    for (test, [stock, ours]) in best {
        host.figure(&format!("{test}: stock, us"), stock);
        host.figure(&format!("{test}: ours, us"), ours);
        host.figure(&format!("{test}: ours, times faster"), stock / ours);
        worst = worst.min(stock / ours);
    }
    host.figure("the least of the times faster", worst);
    Ok(())
}

/// Each test with the average of its iterations, in microseconds.
fn measure(host: &Host) -> Result<Vec<(String, f64)>, Failure> {
    let printed = host.test_xenstore(ITERATIONS)?.stdout;
    let unread = || Failure::because(format!("test-xenstore printed {printed}"));
    printed.lines().map(|line| figure(line).ok_or_else(unread)).collect()
}

/// From a line such as `read 1    : avg: 98948 ns (22983 ns .. 3791540 ns)`.
fn figure(line: &str) -> Option<(String, f64)> {
    let (test, rest) = line.split_once(':')?;
    let nanos = rest.trim().strip_prefix("avg:")?.split_whitespace().next()?;
    Some((test.trim().to_owned(), nanos.parse::<f64>().ok()? / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_upstream_prints_is_read() {
        let line = "read 3000 : avg: 98948 ns (22983 ns .. 3791540 ns)";
        assert_eq!(figure(line), Some(("read 3000".to_owned(), 98.948)));
        assert_eq!(figure("read 1: failed"), None);
    }
}
