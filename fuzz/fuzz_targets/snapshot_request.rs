//! Save and restore requests as JSON, there and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::fuzzing::snapshot_request(data));
