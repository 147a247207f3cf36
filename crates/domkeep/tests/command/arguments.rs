//! What is typed, and what becomes of the output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use crate::host::{Answer, Host, domkeep};

const COMMANDS: [&[&str]; 33] = [
    &[],
    &["retrieve"],
    &["list"],
    &["config"],
    &["config", "check"],
    &["config", "print"],
    &["config", "diff"],
    &["template", "ls"],
    &["template", "show"],
    &["template", "import"],
    &["device"],
    &["device", "attach"],
    &["device", "detach"],
    &["device", "list"],
    &["device", "repair"],
    &["xenstore", "serve"],
    &["xenstore", "ls"],
    &["xenstore", "write"],
    &["xenstore", "watch"],
    &["stream"],
    &["stream", "inspect"],
    &["stream", "verify"],
    &["stream", "convert"],
    &["stream", "encode"],
    &["stream", "extract"],
    &["stream", "apply"],
    &["simulate"],
    &["simulate", "serve"],
    &["simulate", "create"],
    &["simulate", "list"],
    &["simulate", "destroy"],
    &["demo"],
    &["completions"],
];

#[test]
fn an_unreachable_xenstore_is_named_with_what_to_do() {
    for arguments in [&["list"][..], &["retrieve", "1"], &["xenstore", "ls"]] {
        let mut command = domkeep();
        command.args(["--xenstore", "/nonexistent/socket"]).args(arguments);
        let answer = Answer::of(&mut command).expect(3);
        let stderr = answer.stderr();
        assert!(stderr.contains("cannot connect to /nonexistent/socket"), "{stderr}");
        assert!(stderr.contains("what to do: "), "{stderr}");
        assert_eq!(stderr.matches("No such file").count(), 1, "each cause is said once: {stderr}");
        assert_eq!(answer.stdout(), "");
    }
    let mut command = domkeep();
    command.env("XENSTORED_PATH", "/nonexistent/other").arg("list");
    assert!(Answer::of(&mut command).expect(3).stderr().contains("/nonexistent/other"));
}

#[test]
fn arguments_that_are_no_text_are_refused_or_taken_as_they_are() {
    let odd = OsStr::from_bytes(b"\xff\xfe");
    for before in COMMANDS {
        let answer =
            Answer::of(domkeep().args(["--xenstore", "/nonexistent/s"]).args(before).arg(odd));
        assert!([2, 3].contains(&answer.status()), "{before:?}: {}", answer.stderr());
        assert!(!answer.stderr().contains("panicked"), "{}", answer.stderr());
    }
    Answer::of(domkeep().arg("--xenstore").arg(odd).arg("list")).expect(3);
    Answer::of(domkeep().arg("--templates").arg(odd).arg("list")).expect(2);
}

#[test]
fn nonsense_is_status_2() {
    for arguments in [
        &[][..],
        &["nosuch"],
        &["retrieve"],
        &["retrieve", "1", "--policy", "best"],
        &["retrieve", "1", "--watch-count", "1"],
        &["retrieve", "1", "--watch", "--watch-count", "0"],
        &["list", "--timeout", "soon"],
        &["template", "import", "x", "--domid", "70000"],
        &["template", "show", "nosuch"],
        &["man", "nosuch"],
    ] {
        Answer::of(domkeep().args(arguments)).expect(2);
    }
}

#[test]
fn help_completions_and_manual_pages_are_there_for_every_command() {
    for command in COMMANDS {
        assert!(!Answer::of(domkeep().args(command).arg("--help")).expect(0).stdout().is_empty());
        let page = Answer::of(domkeep().arg("man").args(command)).expect(0).stdout();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let text = Answer::of(domkeep().args(["completions", shell])).expect(0).stdout();
        assert!(text.contains("domkeep") && text.contains("retrieve"));
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_panic() {
    let host = Host::demo();
    for arguments in [&["xenstore", "ls", "-fp"][..], &["list", "-l"], &["demo"], &["--help"]] {
        let mut command = host.domkeep(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Closed before anything can have been written, or while it is.
        drop(child.stdout.take());
        Answer(child.wait_with_output().unwrap()).expect(0);
    }
    let mut child = host.domkeep(&["demo"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(16, child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn an_output_that_cannot_be_written_is_told_of() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let answer = Answer::of(domkeep().arg("demo").stdout(full)).expect(3);
    assert!(answer.stderr().contains("cannot write the answer"), "{}", answer.stderr());
}

#[test]
fn logs_are_shown_when_asked_for() {
    let host = Host::demo();
    let silent = host.ask(&["list"]).expect(0);
    assert_eq!(silent.stderr(), "");
    let mut command = host.domkeep(&["list", "-vvv"]);
    let loud = Answer::of(&mut command).expect(0);
    assert_eq!(loud.stdout(), silent.stdout());
}
