//! The examples of `docs/domkeep.md`, run as they stand there.

use std::fs;

use crate::host::{Answer, Host, shipped};

#[test]
fn the_examples_of_the_reference_are_what_the_command_prints() {
    let page = fs::read_to_string(shipped("../../docs/domkeep.md")).unwrap();
    let host = Host::demo();
    let mut run = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ domkeep ").skip(1) {
            let (arguments, printed) = example.split_once('\n').unwrap();
            // An option given in the example goes before that of the host.
            let given = arguments.contains("--xenstore");
            let mut command = if given { crate::host::domkeep() } else { host.domkeep(&[]) };
            command.args(arguments.split_whitespace());
            let answer = Answer::of(command.current_dir(shipped("tests/data/config")));
            let answered = answer.stdout() + &answer.stderr();
            assert_eq!(lasting(&answered), lasting(printed), "domkeep {arguments}");
            run += 1;
        }
    }
    assert!(run >= 10, "only {run} examples were found");
}

/// Without what another version may call otherwise: the revision of an answer follows from all that was read for it.
fn lasting(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("revision ")).collect()
}
