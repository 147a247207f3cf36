//! Journals, as they are and with lines whose digests are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::fuzzing::journal(data));
