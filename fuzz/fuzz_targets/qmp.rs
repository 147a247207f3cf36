//! What QEMU sends on a QMP socket, in pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| snapshot::disk::fuzzing::qmp(data));
