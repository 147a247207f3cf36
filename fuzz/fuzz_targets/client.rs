//! Replies and events, as a client meets them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xsclient::fuzzing::receive(data));
