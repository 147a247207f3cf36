//! Manifests, as they are and with a digest that is right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::fuzzing::manifest(data));
