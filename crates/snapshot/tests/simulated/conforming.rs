//! The simulated domain keeps the promises that any implementation must keep.

use snapshot::control::conformance;

use crate::hosts::start;
use crate::world::Simulated;

#[test]
fn the_simulated_domain_conforms() {
    let host = start();
    let control = host.control();
    if let Err(deviation) = conformance::check(&mut Simulated::new(host, &control)) {
        panic!("{deviation}");
    }
}
