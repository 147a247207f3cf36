//! The wire decoder, and every request and reply behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstore_proto::fuzzing::decode_stream(data));
