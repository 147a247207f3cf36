//! `config`: golden outputs.

use std::fs;
use std::process::Stdio;

use crate::host::{Answer, domkeep, shipped};

/// Runs `domkeep config` in the directory of the golden files, so that outputs hold no path of this machine.
fn config(arguments: &[&str]) -> Answer {
    let mut command = domkeep();
    Answer::of(command.arg("config").args(arguments).current_dir(shipped("tests/data/config")))
}

#[track_caller]
fn assert_golden(answer: &Answer, name: &str) {
    let golden = fs::read_to_string(shipped("tests/data/config").join(name)).unwrap();
    assert_eq!(answer.stdout(), golden);
}

#[test]
fn check_says_where_and_how_a_file_deviates() {
    assert_golden(&config(&["check", "odd.json"]).expect(1), "odd.check.txt");
    let json = config(&["check", "odd.json", "--json"]).expect(1).json();
    let golden = fs::read(shipped("tests/data/config/odd.check.json")).unwrap();
    assert_eq!(json, serde_json::from_slice::<serde_json::Value>(&golden).unwrap());
}

#[test]
fn check_of_a_good_file_is_done_and_of_a_broken_one_is_not() {
    let good = config(&["check", "good.json"]).expect(0);
    assert_eq!(good.stdout(), "good.json: libxl reads it as it says\n");
    let broken = config(&["check", "broken.json"]).expect(1);
    assert!(
        broken.stdout().starts_with("broken.json: error: line 3 column "),
        "{}",
        broken.stdout()
    );
    let stored = config(&["check", "--stored", "good.json"]).expect(1);
    assert!(stored.stdout().contains("no NUL at the end"), "{}", stored.stdout());
    let missing = config(&["check", "none.json"]).expect(3);
    assert!(missing.stderr().contains("none.json: cannot be opened"), "{}", missing.stderr());
    assert!(config(&["print", "broken.json"]).expect(1).stderr().contains("config check"));
}

#[test]
fn print_writes_both_layouts_and_keeps_what_it_does_not_know() {
    assert_golden(&config(&["print", "good.json"]).expect(0), "good.json");
    assert_golden(
        &config(&["print", "good.json", "--layout", "json-c"]).expect(0),
        "good.json-c.json",
    );
    assert!(config(&["print", "odd.json"]).expect(0).stdout().contains("\"tier\": \"fast\""));
}

#[test]
fn a_configuration_can_come_from_stdin() {
    let mut command = domkeep();
    let file = fs::File::open(shipped("tests/data/config/good.json")).unwrap();
    let answer = Answer::of(command.args(["config", "print", "-"]).stdin(Stdio::from(file)));
    assert_golden(&answer.expect(0), "good.json");
}

#[test]
fn diff_compares_meaning_and_names_devices() {
    assert_golden(&config(&["diff", "good.json", "odd.json"]).expect(1), "good-odd.diff.txt");
    assert_eq!(config(&["diff", "good.json", "good.json"]).expect(0).stdout(), "");
    config(&["diff", "good.json", "good.json-c.json"]).expect(0);
    let json = config(&["diff", "good.json", "odd.json", "--json"]).expect(1).json();
    let lines = fs::read_to_string(shipped("tests/data/config/good-odd.diff.txt")).unwrap();
    assert_eq!(json.as_array().unwrap().len(), lines.lines().count());
}
