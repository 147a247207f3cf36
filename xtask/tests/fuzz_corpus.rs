//! Replays the fuzz corpus, so that what a fuzzer once found stays found without one.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// A fuzz target and what it runs.
type Target = (&'static str, fn(&[u8]));

/// All of them.
const TARGETS: &[Target] = &[
    ("client", xsclient::fuzzing::receive),
    ("config", libxl_config::fuzzing::config),
    ("decoder", xenstore_proto::fuzzing::decode_stream),
    ("domain_state", xenstore_migration::fuzzing::domain_state),
    ("migration", xenstore_migration::fuzzing::read_and_write),
    ("stream_json", xenstore_migration::fuzzing::stream_json),
    ("journal", snapshot::fuzzing::journal),
    ("manifest", snapshot::fuzzing::manifest),
    ("snapshot_request", snapshot::fuzzing::snapshot_request),
    ("image_headers", snapshot::image::fuzzing::image_headers),
    ("save_stream", snapshot::image::fuzzing::save_stream),
    ("qcow2_header", snapshot::disk::fuzzing::qcow2_header),
    ("qmp", snapshot::disk::fuzzing::qmp),
    ("server", xenstored::fuzzing::requests),
    ("xenstore_ls", xenstored::fuzzing::text_form),
];

fn fuzz() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

#[test]
fn the_inputs_of_every_fuzz_target_hold_its_properties() {
    for (target, run) in TARGETS {
        let inputs = std::fs::read_dir(fuzz().join("corpus").join(target)).unwrap();
        let inputs: Vec<PathBuf> = inputs.map(|entry| entry.unwrap().path()).collect();
        assert!(
            inputs.len() >= 10,
            "{target}: only {} inputs: has the corpus moved?",
            inputs.len()
        );
        for input in inputs {
            run(&std::fs::read(&input).unwrap());
        }
    }
}

#[test]
fn every_fuzz_target_is_replayed() {
    let files = std::fs::read_dir(fuzz().join("fuzz_targets")).unwrap();
    let names: BTreeSet<String> = files
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
}
