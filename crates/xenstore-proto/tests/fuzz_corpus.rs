//! Replays the fuzz corpus, so that what a fuzzer once found stays found without one.

use std::path::PathBuf;

#[test]
fn the_decoders_fuzz_corpus_holds_its_properties() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/decoder");
    let mut replayed = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        xenstore_proto::fuzzing::decode_stream(&std::fs::read(entry.unwrap().path()).unwrap());
        replayed += 1;
    }
    assert!(replayed >= 10, "only {replayed} inputs: has the corpus moved?");
}
