//! The state of one domain, out of any octets.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstore_migration::fuzzing::domain_state(data));
