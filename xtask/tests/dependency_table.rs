//! The crates depend on each other as ARCHITECTURE.md draws it, and on nothing the workspace has not given a reason for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What stands above the lines of ARCHITECTURE.md that say who may use whom.
const HEADING: &str = "holds the manifests to them:\n\n";
/// In such a line, all crates that the lines before it name.
const ABOVE: &str = "any of the above";

/// Who may use whom, by the names of the crates' directories. Whoever is not in it uses none.
fn table() -> BTreeMap<String, BTreeSet<String>> {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../ARCHITECTURE.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, lines) = page.split_once(HEADING).unwrap();
    let mut table = BTreeMap::<_, BTreeSet<_>>::new();
    let mut above = BTreeSet::new();
    for line in lines.lines().take_while(|line| line.starts_with("    ")) {
        let (who, whom) = line.split_once("->").unwrap();
        let names = |words: &str| words.split(',').map(|word| word.trim().to_owned()).collect();
        let (who, whom): (BTreeSet<String>, BTreeSet<String>) =
            (names(who), if whom.trim() == ABOVE { above.clone() } else { names(whom) });
        for name in &who {
            table.entry(name.clone()).or_default().extend(whom.clone());
        }
        above.extend(who.into_iter().chain(whom));
    }
    assert!(table.len() > 5, "{table:?}");
    table
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap()
}

/// `examples`, `xsclient`: as the page calls it.
fn directory(package: &Value) -> String {
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn crates_depend_on_each_other_only_as_the_page_allows() {
    let table = table();
    let packages = packages();
    let directories: BTreeMap<_, _> =
        packages.iter().map(|package| (name(package), directory(package))).collect();
    for package in &packages {
        let user = &directories[name(package)];
        for dependency in package["dependencies"].as_array().unwrap() {
            let Some(used) = directories.get(name(dependency)) else { continue };
            // Those of tests are free as long as there is no cycle, which cargo sees to.
            if dependency["kind"] != "dev" {
                let may = table.get(user).is_some_and(|may| may.contains(used));
                assert!(may, "{user} must not use {used}");
            }
        }
    }
    let known: BTreeSet<_> = directories.values().collect();
    for named in table.iter().flat_map(|(user, used)| used.iter().chain([user])) {
        assert!(
            known.contains(named),
            "ARCHITECTURE.md says whom {named} may use: there is no such crate"
        );
    }
}

#[test]
fn crates_that_touch_no_system_forbid_unsafe_code() {
    for pure in ["xenstore-proto", "xsclient", "xenstore-migration", "libxl-config", "snapshot"] {
        let lib = format!("{}/../crates/{pure}/src/lib.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&lib).unwrap();
        assert!(text.contains("#![forbid(unsafe_code)]"), "{lib}");
    }
}

/// The server shares pages with domains and takes descriptors over: each in one file, which gives its reason.
#[test]
fn the_server_has_unsafe_code_in_two_files_only() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/xenstored/src");
    let mut found = Vec::new();
    let mut directories = vec![std::path::PathBuf::from(source)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains("unsafe_code") {
                found.push(path.strip_prefix(source).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    assert_eq!(found, ["live_update/descriptors.rs", "xen/raw.rs"]);
}

/// The lines of a manifest's tables of dependencies, of whichever kind, that do not take them from the workspace.
fn stated(manifest: &str) -> Vec<&str> {
    let mut within = false;
    let mut stated = Vec::new();
    for line in manifest.lines() {
        let told = line.split('#').next().unwrap_or_default().trim();
        if told.starts_with('[') {
            within = told.contains("dependencies");
        } else if within && told.contains('=') && !told.contains("workspace = true") {
            stated.push(line);
        }
    }
    stated
}

#[test]
fn versions_are_stated_in_the_workspace_manifest_only() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let stated = stated(&manifest);
        assert!(
            stated.is_empty(),
            "{} states versions of its own: {stated:?} (see {root}/Cargo.toml)",
            name(&package)
        );
    }
}

#[test]
fn a_version_of_a_crates_own_is_seen_in_every_table_of_dependencies() {
    let manifest = "\
[build-dependencies]
cc = \"1\"
[dependencies]
# A word = about it.
clap = { workspace = true, features = [\"env\"] }
serde = { version = \"1\", features = [\"derive\"] }
uuid.workspace = true
[features]
default = [\"sled\"]
[target.'cfg(unix)'.dev-dependencies]
tempfile = \"3\" # workspace = true
[dependencies.zstd]
version = \"0.14\"
[[test]]
name = \"json\"
";
    let expected = [
        "cc = \"1\"",
        "serde = { version = \"1\", features = [\"derive\"] }",
        "tempfile = \"3\" # workspace = true",
        "version = \"0.14\"",
    ];
    assert_eq!(stated(manifest), expected);
}
