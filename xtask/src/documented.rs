//! The commands of development that README and docs/ show are ones that cargo and xtask take.

use std::collections::BTreeSet;
use std::process::Command;

use clap::{CommandFactory, Parser};
use documents::{Kind, pages, project};

use crate::Arguments;

/// The lines of all pages' blocks of such commands, with where they are, as words.
fn commands() -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    for page in pages(&project()).unwrap() {
        for block in page.blocks.iter().filter(|block| block.kind == Kind::Development) {
            for (number, line) in block.text.lines().enumerate() {
                found.push((format!("{}:{}", page.name, block.line + 1 + number), words(line)));
            }
        }
    }
    found
}

/// As the shell has them, without what is behind `#`.
fn words(line: &str) -> Vec<String> {
    let script = format!("printf '%s\\0' {line}");
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{line}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn every_command_of_development_is_taken() {
    let commands = commands();
    assert!(commands.len() > 10, "{}", commands.len());
    for (place, words) in commands {
        let words = words.iter().map(String::as_str).skip_while(|word| word.contains('='));
        let words: Vec<&str> = words.collect();
        match words.as_slice() {
            ["cargo", "xtask", rest @ ..] => {
                let parsed = Arguments::try_parse_from(["cargo xtask"].iter().chain(rest));
                assert!(parsed.is_ok(), "{place}: {}", parsed.err().unwrap());
            }
            ["cargo", "install", "--locked", "--path", path] => {
                let manifest = std::fs::read_to_string(project().join(path).join("Cargo.toml"));
                assert!(manifest.is_ok_and(|text| text.contains("[[bin]]")), "{place}: {path}");
            }
            ["cargo", "test", "-p", package, "--test", test] => {
                let tests = project().join(format!("crates/{package}/tests"));
                let file = tests.join(format!("{test}.rs")).exists();
                assert!(file || tests.join(test).join("main.rs").exists(), "{place}: {test}");
            }
            other => panic!("{place}: nobody sees that this is right: {other:?}"),
        }
    }
}

#[test]
fn the_readme_lists_every_task_and_no_other() {
    let listed: BTreeSet<_> = commands()
        .into_iter()
        .filter(|(place, words)| place.starts_with("README.md:") && words[1] == "xtask")
        .map(|(_, words)| words[2].clone())
        .collect();
    let command = Arguments::command();
    let tasks = command.get_subcommands().map(|task| task.get_name().to_owned());
    assert_eq!(listed, tasks.collect::<BTreeSet<_>>());
}

#[test]
fn the_pages_ask_for_the_rust_that_the_manifest_asks_for() {
    let manifest = std::fs::read_to_string(project().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).unwrap();
    let asked = format!("Rust {} or later (rustup)", version.split('"').next().unwrap());
    for page in ["README.md", "docs/operating.md", "docs/packaging.md"] {
        let text = std::fs::read_to_string(project().join(page)).unwrap();
        assert!(text.contains(&asked), "{page} does not ask for {asked}");
    }
}
