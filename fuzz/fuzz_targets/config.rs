//! The reader and writer of configurations.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| libxl_config::fuzzing::config(data));
