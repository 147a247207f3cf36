//! Memory images of every format, as they are and with digests that are right.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::image::fuzzing::image_headers(data));
