//! What holds for all pages: nothing that they show escapes being run, compiled or compared.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use documents::{Block, Kind, Page, pages, project};

fn all() -> Vec<Page> {
    let pages = pages(&project()).unwrap();
    assert!(pages.len() > 15, "{}", pages.len());
    pages
}

fn places(page: &Page, block: &Block) -> String {
    format!("{}:{}", page.name, block.line)
}

#[test]
fn no_block_that_looks_like_commands_is_only_shown() {
    let mut found = Vec::new();
    for page in all() {
        for block in &page.blocks {
            found.extend(block.unplayed().map(|line| format!("{}: {line}", places(&page, block))));
        }
    }
    assert!(
        found.is_empty(),
        "tag these `console`, `console lab` or `sh dev`:\n{}",
        found.join("\n")
    );
}

#[test]
fn every_session_begins_with_a_command() {
    let mut commands = 0;
    for page in all() {
        for kind in [Kind::Console, Kind::Lab] {
            for (number, steps) in page.sessions(&kind).unwrap() {
                assert!(!steps.is_empty(), "{}: empty", places(&page, &page.blocks[number]));
                commands += steps.len();
            }
        }
    }
    assert!(commands > 60, "{commands}");
}

/// rustdoc takes what is indented, and what has a fence without a word, for Rust too.
#[test]
fn the_rust_of_every_page_is_compiled_with_this_crate() {
    let library = fs::read_to_string(project().join("crates/documents/src/lib.rs")).unwrap();
    for page in all() {
        let compiled = library.contains(&format!("include_str!(\"../../../{}\")", page.name));
        let rust = page.blocks.iter().any(|block| block.kind == Kind::Rust);
        assert_eq!(compiled, rust, "{}: include it where it has Rust", page.name);
        for block in page.blocks.iter().filter(|_| rust) {
            assert!(block.kind != Kind::Shown(String::new()), "{}: no tag", places(&page, block));
        }
    }
}

#[test]
fn rust_that_a_page_quotes_stands_so_in_the_file_that_it_names() {
    let mut quoted = 0;
    for page in all() {
        for block in &page.blocks {
            if let Kind::RustOf(file) = &block.kind {
                let text = fs::read_to_string(project().join(file)).unwrap();
                assert!(text.contains(&block.text), "{}: not in {file}", places(&page, block));
                quoted += 1;
            }
        }
    }
    assert!(quoted > 0);
}

#[test]
fn the_index_has_every_page_once_with_a_line_about_it() {
    let index = fs::read_to_string(project().join("docs/README.md")).unwrap();
    for page in all() {
        let Some(name) = page.name.strip_prefix("docs/").filter(|name| *name != "README.md") else {
            continue;
        };
        let rows: Vec<_> = index
            .lines()
            .filter(|line| line.starts_with(&format!("| [{name}]({name}) | ")))
            .collect();
        assert_eq!(rows.len(), 1, "{name}");
        assert!(rows[0].len() > name.len() * 2 + 30, "{name} says nothing: {}", rows[0]);
    }
}

/// Names of all functions below a directory that are tests.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                tests_below(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(path).unwrap();
            let names = text.split("#[test]").skip(1).filter_map(|rest| {
                let (attributes, rest) = rest.split_once("fn ")?;
                (!attributes.contains("#[ignore")).then_some(rest.split_once('(')?.0)
            });
            found.extend(names.map(str::to_owned));
        }
    }
}

/// The rows of a page's tables whose last column is called `column`, without their headings.
fn rows<'a>(text: &'a str, column: &str) -> Vec<&'a str> {
    let mut rows = Vec::new();
    let mut within = false;
    for line in text.lines() {
        if !line.starts_with('|') {
            within = false;
        } else if line.ends_with(&format!("| {column} |")) {
            within = true;
        } else if within && !line.starts_with("|---") {
            rows.push(line);
        }
    }
    rows
}

/// What stands in backquotes in the last column: a test, or a file of the project.
fn proofs(row: &str) -> Vec<&str> {
    let cell = row.trim_end_matches('|').rsplit_once('|').unwrap().1;
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_proof_that_a_page_names_is_there() {
    let mut known = BTreeSet::new();
    for directory in ["crates", "lab", "xtask", "fuzz"] {
        tests_below(&project().join(directory), &mut known);
    }
    for (page, column, least) in [
        ("threat-model.md", "proof", 25),
        ("differences-from-libxl.md", "proof", 20),
        ("xenstored-behaviour.md", "proof", 20),
        ("snapshot.md", "test", 20),
    ] {
        let text = fs::read_to_string(project().join("docs").join(page)).unwrap();
        let rows = rows(&text, column);
        assert!(rows.len() >= least, "{page}: only {} rows name a proof", rows.len());
        for row in rows {
            let proofs = proofs(row);
            assert!(!proofs.is_empty(), "{page}: no proof: {row}");
            for proof in proofs {
                let there = if proof.contains('/') {
                    project().join(proof).exists()
                } else {
                    known.contains(proof)
                };
                assert!(there, "{page}: there is no {proof}: {row}");
            }
        }
    }
}
