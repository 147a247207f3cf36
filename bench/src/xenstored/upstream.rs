//! `test-xenstore`, Xen's own test and benchmark of Xenstore servers.

use std::error::Error;

use stock_xenstore::{Client, Packages};

use super::Figures;
use super::daemons::Daemon;
use super::scale::Scale;
use super::table::{Budget, Figure};

pub(crate) fn measure(daemon: &Daemon, packages: &Packages, scale: &Scale) -> Figures {
    let mut command = packages.client(Client::Test, daemon.socket());
    let output = command.args(["-i", &scale.upstream.to_string()]).output()?;
    let printed = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("test-xenstore failed: {printed}{said}").into());
    }
    printed.lines().map(figure).collect()
}

/// From a line such as `read 1    : avg: 98948 ns (22983 ns .. 3791540 ns)`.
fn figure(line: &str) -> Result<Figure, Box<dyn Error>> {
    let read = || {
        let (test, rest) = line.split_once(':')?;
        let nanos = rest.trim().strip_prefix("avg:")?.split_whitespace().next()?;
        Some((test.trim(), nanos.parse::<f64>().ok()?))
    };
    let (test, nanos) = read().ok_or_else(|| format!("test-xenstore printed {line}"))?;
    Ok(Figure::new(format!("{test}, us"), Budget::AtMost(1.0), nanos / 1e3))
}
