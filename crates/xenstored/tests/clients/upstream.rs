//! `test-xenstore`, Xen's own test and benchmark of Xenstore servers.

use stock_xenstore::Client;

use crate::served::Served;

/// Of the random mode, here; `cargo xtask differential` has it run for a minute.
const RANDOM_SECONDS: &str = "4";

#[test]
fn every_upstream_test_passes_repeatedly() {
    let Some(served) = Served::with_stock_tools("every_upstream_test_passes_repeatedly") else {
        return;
    };
    let list = served.run(Client::Test, &["-l"]);
    let names: Vec<_> = list.lines().filter_map(|line| line.split(':').next()).collect();
    assert!(names.len() >= 12, "{list}");
    for name in names {
        let name = name.trim();
        let printed = served.run(Client::Test, &["-i", "5", "-t", name]);
        assert!(printed.contains(name), "{name} is not in:\n{printed}");
    }
    assert_eq!(served.run(Client::Control, &["check"]), "OK\n");
}

#[test]
fn upstreams_random_mode_finds_nothing() {
    let Some(served) = Served::with_stock_tools("upstreams_random_mode_finds_nothing") else {
        return;
    };
    let seconds = std::env::var("DOMKEEP_RANDOM_SECONDS");
    let printed = served.run(Client::Test, &["-r", seconds.as_deref().unwrap_or(RANDOM_SECONDS)]);
    println!("{printed}");
    assert_eq!(served.run(Client::Control, &["check"]), "OK\n");
}
