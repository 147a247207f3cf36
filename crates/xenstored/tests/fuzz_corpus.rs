//! Replays the fuzz corpus, so that what a fuzzer once found stays found without one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs: Vec<_> =
        std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(inputs.len() >= 10, "only {} inputs: has the corpus moved?", inputs.len());
    for input in inputs {
        run(&std::fs::read(input).unwrap());
    }
}

#[test]
fn the_fuzz_corpus_server_holds_its_properties() {
    replay("server", xenstored::fuzzing::requests);
}

#[test]
fn the_fuzz_corpus_xenstore_ls_holds_its_properties() {
    replay("xenstore_ls", xenstored::fuzzing::text_form);
}
