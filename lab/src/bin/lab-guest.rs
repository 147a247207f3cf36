//! The first and only program of a guest.

#![forbid(unsafe_code)]

fn main() {
    domkeep_lab::guest::run()
}
