//! JSON as migration streams, and these as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstore_migration::fuzzing::stream_json(data));
