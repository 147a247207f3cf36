//! The reader and the writer of migration streams.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstore_migration::fuzzing::read_and_write(data));
