//! A domain's state is told in pages, while the domain goes on.

use xenstore_proto::{Errno, Reply, TxId};
use xenstored::ConnectionId;

use crate::domain_state::{
    FROM, all_pages, control, essence, give, host, octets, page, told, without_messages,
};
use crate::driver::{Driver, mkdir, watch};

/// A server with a guest that has watches enough for several pages.
fn watching() -> (Driver, ConnectionId, ConnectionId) {
    let mut driver = host(FROM);
    let (dom0, guest) = (driver.connect(0), driver.connect(7));
    for number in 0..100 {
        let at = format!("a/{}", "long".repeat(20));
        assert_eq!(
            driver.ask(guest, TxId::NONE, &watch(&at, &number.to_string(), None)),
            Reply::Ok
        );
    }
    driver.events(guest);
    (driver, dom0, guest)
}

fn watch_another(driver: &mut Driver, guest: ConnectionId, token: &str) {
    assert_eq!(driver.ask(guest, TxId::NONE, &watch("a", token, None)), Reply::Ok);
    driver.events(guest);
}

#[test]
fn a_state_of_many_pages_is_put_together_and_one_that_changes_has_another_generation() {
    let (mut driver, dom0, guest) = watching();
    let (stream, pages) = all_pages(&mut driver, dom0, FROM);
    assert!(pages > 4, "{pages}");
    let before = page(&mut driver, dom0, FROM, 0);
    assert_eq!(page(&mut driver, dom0, FROM, 0), before, "it has not changed");
    watch_another(&mut driver, guest, "another");
    assert_ne!(page(&mut driver, dom0, FROM, 0).0, before.0);
    let (_, total, rest) = page(&mut driver, dom0, FROM, stream.len() + 5000);
    assert!(total > stream.len() && rest.is_empty());

    // All of it goes back in as many pages.
    let state = without_messages(told(&mut driver, dom0, FROM));
    driver.server.disconnect(guest);
    let _again = driver.connect(7);
    assert_eq!(give(&mut driver, dom0, FROM, &octets(&state)), Ok("set".to_owned()));
    assert_eq!(essence(&told(&mut driver, dom0, FROM)), essence(&state));
}

/// Each page was cut out of the state as it was then, taken anew from beginning to end: a guest that had much of it held up
/// everybody for as long as it took a thousand times.
#[test]
fn all_pages_are_of_the_moment_of_the_first_whatever_the_domain_does_meanwhile() {
    let (mut driver, dom0, guest) = watching();
    let other = driver.connect(0);
    let (wanted, _) = all_pages(&mut driver, dom0, FROM);
    let (generation, total, mut octets) = page(&mut driver, dom0, FROM, 0);
    let mut others = Vec::new();
    while octets.len() < total {
        watch_another(&mut driver, guest, &format!("token {}", octets.len()));
        let tx = driver.begin(guest);
        assert_eq!(driver.ask(guest, tx, &mkdir("a/more")), Reply::Ok);
        driver.end(guest, tx, false);
        // Somebody else has pages of a state of their own.
        others.push(page(&mut driver, other, FROM, 0).0);
        let (same, _, more) = page(&mut driver, dom0, FROM, octets.len());
        assert_eq!(same, generation);
        octets.extend(more);
    }
    assert!(octets == wanted, "it is the state that there was");
    others.sort();
    others.dedup();
    assert!(others.len() > 4 && !others.contains(&generation), "{others:?}");
    // With the last page it is not kept any longer.
    assert_ne!(page(&mut driver, dom0, FROM, 2000).0, generation);
}

#[test]
fn pages_of_a_connection_that_has_ended_are_not_gone_on_with() {
    let (mut driver, dom0, guest) = watching();
    let (generation, ..) = page(&mut driver, dom0, FROM, 0);
    assert_eq!(page(&mut driver, dom0, FROM, 2000).0, generation);
    driver.server.disconnect(guest);
    let gone = control(&mut driver, dom0, &["domain-state", "7", "4000"]);
    assert_eq!(gone, Err(Errno::ENOENT));

    let (mut driver, dom0, guest) = watching();
    let (generation, ..) = page(&mut driver, dom0, FROM, 0);
    driver.server.disconnect(guest);
    let _again = driver.connect(7);
    assert_ne!(page(&mut driver, dom0, FROM, 2000).0, generation, "another connection's");
}
