//! What is typed, and what becomes of the output.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

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
fn the_name_of_the_program_alone_gives_a_short_overview_whose_commands_there_are() {
    let answer = Answer::of(&mut domkeep()).expect(2);
    let overview = answer.stderr();
    assert!(overview.lines().count() <= 12 && answer.stdout().is_empty(), "{overview}");
    assert!(overview.lines().all(|line| line.chars().count() <= 120), "{overview}");
    let mut commands = 0;
    for line in overview.lines().filter_map(|line| line.strip_prefix("  domkeep ")) {
        let typed = line.split("  ").next().unwrap().split(' ');
        let words: Vec<_> = typed.take_while(|word| word.chars().all(char::is_lowercase)).collect();
        Answer::of(domkeep().args(&words).arg("--help")).expect(0);
        commands += 1;
    }
    assert!(commands >= 4, "{overview}");
}

#[test]
fn a_command_that_is_nearly_right_is_told_what_it_may_be() {
    let told = Answer::of(domkeep().arg("retreive")).expect(2).stderr();
    assert!(told.contains("'retrieve'"), "{told}");
    let told = Answer::of(domkeep().args(["list", "--tiemout", "3"])).expect(2).stderr();
    assert!(told.contains("'--timeout'"), "{told}");
    let told = Answer::of(domkeep().args(["man", "nosuch"])).expect(2).stderr();
    assert!(told.contains("what to do: `domkeep help` lists the commands"), "{told}");
}

#[test]
fn all_manual_pages_are_written_into_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let answer = Answer::of(domkeep().args(["man", "--all"]).arg(&pages)).expect(0);
    assert_eq!(answer.stdout(), "");
    for (file, words) in [("domkeep.1", &[][..]), ("domkeep-config-check.1", &["config", "check"])]
    {
        let printed = Answer::of(domkeep().arg("man").args(words)).expect(0).stdout();
        assert_eq!(fs::read_to_string(pages.join(file)).unwrap(), printed, "{file}");
    }
    Answer::of(domkeep().args(["man", "--all", "/dev/null/man1"])).expect(3);
}

#[test]
fn bash_completes_a_command_that_was_begun() {
    const NAME: &str = "bash_completes_a_command_that_was_begun";
    if Command::new("bash").arg("--version").output().is_err() {
        println!("skipped: {NAME}: bash is not installed");
        return;
    }
    let script = Answer::of(domkeep().args(["completions", "bash"])).expect(0).stdout();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("domkeep");
    fs::write(&file, script).unwrap();
    Answer::of(Command::new("bash").arg("-n").arg(&file)).expect(0);
    for (line, offered) in [("domkeep sn", "snapshot"), ("domkeep snapshot re", "restore recover")]
    {
        let words = line.replace("domkeep", "");
        let last = words.split(' ').next_back().unwrap();
        let tab = format!(
            ". {}; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _domkeep domkeep {last} domkeep; echo \"${{COMPREPLY[@]}}\"",
            file.display()
        );
        let answer = Answer::of(Command::new("bash").args(["-c", &tab])).expect(0).stdout();
        assert_eq!(answer.trim(), offered, "{line}");
    }
}

#[test]
fn other_shells_can_read_their_completions() {
    const NAME: &str = "other_shells_can_read_their_completions";
    let is_there = |shell: &str| Command::new(shell).arg("--version").output().is_ok();
    let mut shells = vec![("zsh", "-n"), ("fish", "--no-execute")];
    shells.retain(|(shell, _)| is_there(shell));
    if shells.is_empty() {
        println!("skipped: {NAME}: neither zsh nor fish is installed");
        return;
    }
    for (shell, only_read) in shells {
        let script = Answer::of(domkeep().args(["completions", shell])).expect(0).stdout();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("domkeep");
        fs::write(&file, script).unwrap();
        Answer::of(Command::new(shell).arg(only_read).arg(&file)).expect(0);
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
