//! The licences of all that is linked into the binaries, as Debian writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::failed;
use super::programs::answer;
use crate::command::{Failure, cargo, host_tuple};

/// What the package's programs and library are made of.
const LINKED: [&str; 2] = ["domkeep", "domkeep-capi"];

/// A crate whose code is in the binaries.
struct Linked {
    name: String,
    version: String,
    license: String,
    authors: Vec<String>,
    directory: PathBuf,
}

/// The copyright file, in Debian's machine-readable form.
pub(super) fn text(source: &Path) -> Result<String, Failure> {
    let read = |name: &str| {
        let path = source.join(name);
        fs::read_to_string(&path).map_err(failed("read", &path))
    };
    let own = read("LICENSE-MIT")?;
    let holders = holders_of(&own).join("\n           ");
    let mut text = read("packaging/debian/copyright.in")?.replace("@copyright@", &holders);
    for linked in linked(source)? {
        text.push('\n');
        text.push_str(&linked.paragraph()?);
    }
    text.push('\n');
    text.push_str(
        &read("packaging/debian/copyright-end.in")?.replace("@expat@", &indented(&grant(&own))),
    );
    Ok(text)
}

impl Linked {
    /// Of a crate that is offered under the Apache licence, that with a reference to it; of the others the text that they come with.
    fn paragraph(&self) -> Result<String, Failure> {
        let texts = self.licence_texts()?;
        let mut holders: Vec<String> = Vec::new();
        for holder in texts.values().flat_map(|text| holders_of(text)) {
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
        if holders.is_empty() {
            holders.clone_from(&self.authors);
        }
        if holders.is_empty() {
            holders.push(format!("the authors of {}", self.name));
        }
        let alternatives: Vec<_> =
            self.license.split(" OR ").flat_map(|part| part.split('/')).collect();
        let license = if alternatives.contains(&"Apache-2.0") {
            "Apache-2.0".to_owned()
        } else {
            // Of several the one that Debian calls Expat.
            let chosen = alternatives.iter().find(|name| **name == "MIT");
            let chosen = chosen.or(alternatives.first()).ok_or("a crate without a licence")?;
            let text = texts
                .iter()
                .find(|(file, _)| file.to_lowercase().contains(&chosen.to_lowercase()))
                .or_else(|| texts.iter().find(|(file, _)| *file == "LICENSE"))
                .or_else(|| texts.iter().next())
                .ok_or_else(|| format!("{}: there is no text of {}", self.name, self.license))?;
            let name = if *chosen == "MIT" { "Expat" } else { chosen };
            format!("{name}\n{}", indented(text.1.trim()))
        };
        Ok(format!(
            "Files: crates.io/{}-{}/*\nCopyright: {}\nLicense: {license}\n",
            self.name,
            self.version,
            holders.join("\n           ")
        ))
    }

    /// The files in which the crate says what its licences are, by name.
    fn licence_texts(&self) -> Result<BTreeMap<String, String>, Failure> {
        let mut texts = BTreeMap::new();
        for entry in fs::read_dir(&self.directory).map_err(failed("read", &self.directory))? {
            let path = entry.map_err(failed("read", &self.directory))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let lower = name.to_lowercase();
            let told = ["license", "licence", "copying", "copyright", "notice"]
                .iter()
                .any(|word| lower.starts_with(word));
            if told && path.is_file() {
                let octets = fs::read(&path).map_err(failed("read", &path))?;
                texts.insert(name, String::from_utf8_lossy(&octets).into_owned());
            }
        }
        Ok(texts)
    }
}

/// The crates from elsewhere, sorted by name; neither what only builds nor what only runs in the compiler.
fn linked(source: &Path) -> Result<Vec<Linked>, Failure> {
    let mut metadata = cargo(&["metadata", "--format-version", "1", "--locked"]);
    metadata.arg("--filter-platform").arg(host_tuple()?).current_dir(source);
    let metadata: Value = serde_json::from_str(&answer(metadata)?)
        .map_err(|error| format!("cargo metadata cannot be read: {error}"))?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (word(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (word(&node["id"]), node))
        .collect();
    let mut left: Vec<String> = packages
        .iter()
        .filter(|(_, package)| LINKED.contains(&word(&package["name"]).as_str()))
        .map(|(id, _)| id.clone())
        .collect();
    let mut found: BTreeMap<(String, String), Linked> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    while let Some(id) = left.pop() {
        let package = packages.get(&id).ok_or_else(|| format!("cargo does not know {id}"))?;
        let macros = list(&package["targets"])
            .iter()
            .any(|target| list(&target["kind"]).contains(&Value::from("proc-macro")));
        if macros || !seen.insert(id.clone()) {
            continue;
        }
        for dependency in nodes.get(&id).map(|node| list(&node["deps"])).unwrap_or_default() {
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                left.push(word(&dependency["pkg"]));
            }
        }
        if package["source"].is_null() {
            continue;
        }
        let manifest = PathBuf::from(word(&package["manifest_path"]));
        let linked = Linked {
            name: word(&package["name"]),
            version: word(&package["version"]),
            license: word(&package["license"]),
            authors: list(&package["authors"]).iter().map(word).collect(),
            directory: manifest.parent().map(Path::to_owned).unwrap_or_default(),
        };
        found.insert((linked.name.clone(), linked.version.clone()), linked);
    }
    Ok(found.into_values().collect())
}

/// Who holds the copyright, by a licence's own lines.
fn holders_of(text: &str) -> Vec<String> {
    let mut holders = Vec::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("Copyright ") else { continue };
        // Templates and sentences of the licences themselves start so, too.
        let template = rest.contains("yyyy") || rest.contains("[") || rest.starts_with("License");
        let marked = rest.starts_with("(c)") || rest.starts_with('©') || rest.starts_with("(C)");
        let dated = rest.starts_with(|first: char| first.is_ascii_digit());
        if template || !(marked || dated) {
            continue;
        }
        let rest = rest.trim_start_matches("(c)").trim_start_matches("(C)").trim_start_matches('©');
        let rest = rest.trim().trim_end_matches("All rights reserved.").trim();
        // A year without a name says nothing.
        if rest.chars().any(char::is_alphabetic) {
            holders.push(rest.to_owned());
        }
    }
    holders
}

/// A licence from where it grants something.
fn grant(licence: &str) -> String {
    let start = licence.find("Permission is hereby granted").unwrap_or_default();
    licence[start..].trim_end().to_owned()
}

/// As a field of a control file goes on: each line behind a space, an empty one as a full stop.
fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_end();
        if line.is_empty() { " .".to_owned() } else { format!(" {line}") }
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_are_named_and_templates_are_not() {
        let text = "Copyright (c) 2019, A Name <a@b>\n   Copyright [yyyy] [name of copyright owner]\nCopyright License: x\n\
                    Copyright 2020 Others. All rights reserved.\nCopyright (c) 2016--2017\n";
        assert_eq!(holders_of(text), ["2019, A Name <a@b>", "2020 Others."]);
    }

    #[test]
    fn every_crate_that_is_linked_has_its_licence_in_the_copyright_file() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let text = text(&source).expect("the manifests can be read");
        let apache = "License: Apache-2.0";
        for (files, license) in [
            ("Files: crates.io/sled-", apache),
            ("Files: crates.io/mio-", "License: Expat\n "),
            ("Files: crates.io/zstd-sys-", "License: BSD-3-Clause\n "),
            ("Files: rust/library/*\n", apache),
        ] {
            let paragraph = text.split("\n\n").find(|paragraph| paragraph.starts_with(files));
            let paragraph = paragraph.unwrap_or_else(|| panic!("{files} is not in\n{text}"));
            assert!(paragraph.contains(license), "{paragraph}");
            assert!(paragraph.contains("\nCopyright: "), "{paragraph}");
        }
        // Neither what tests use nor what runs in the compiler.
        for absent in ["crates.io/proptest-", "crates.io/serde_derive-", "crates.io/cbindgen-"] {
            assert!(!text.contains(absent), "{absent}");
        }
    }
}
