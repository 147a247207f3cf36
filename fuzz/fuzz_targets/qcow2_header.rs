//! Headers of qcow2 images.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::disk::fuzzing::qcow2_header(data));
