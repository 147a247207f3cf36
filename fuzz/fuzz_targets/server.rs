//! Requests of hostile clients, carried out by the embedded server.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstored::fuzzing::requests(data));
