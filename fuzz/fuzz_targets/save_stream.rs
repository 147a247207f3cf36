//! The stream of a saved domain: xl, libxl and libxc framing, and what is checked beyond it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::image::fuzzing::save_stream(data));
