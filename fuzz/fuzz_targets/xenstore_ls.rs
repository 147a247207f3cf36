//! The reader of the text form of a whole store.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| xenstored::fuzzing::text_form(data));
