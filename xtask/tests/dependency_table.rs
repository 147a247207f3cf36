//! The crates depend on each other as ARCHITECTURE.md draws it, and on nothing the workspace has not given a reason for.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Which crates of the workspace each may use. Dev-dependencies are free as long as there is no cycle, which cargo sees to.
const ALLOWED: &[(&str, &[&str])] = &[
    ("xenstore-proto", &[]),
    ("xsclient", &["xenstore-proto"]),
    ("xenstored", &["xenstore-proto", "xenstore-migration"]),
    ("xenstore-migration", &["xenstore-proto"]),
    ("libxl-config", &["xsclient"]),
    ("snapshot", &["libxl-config", "xsclient", "xenstore-migration"]),
    ("libxl-control", &["snapshot", "libxl-config", "xsclient"]),
    ("stock-xenstore", &[]),
    ("documents", &[]),
    ("domkeep", LIBRARIES),
    ("domkeep-capi", LIBRARIES),
    ("domkeep-examples", LIBRARIES),
    ("domkeep-bench", LIBRARIES_AND_PEERS),
    ("domkeep-lab", LIBRARIES_AND_PEERS),
    ("xtask", &[]),
];

const LIBRARIES: &[&str] = &[
    "xenstore-proto",
    "xsclient",
    "xenstored",
    "xenstore-migration",
    "libxl-config",
    "snapshot",
    "libxl-control",
];

const LIBRARIES_AND_PEERS: &[&str] = &[
    "xenstore-proto",
    "xsclient",
    "xenstored",
    "xenstore-migration",
    "libxl-config",
    "snapshot",
    "libxl-control",
    "stock-xenstore",
    "documents",
];

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

#[test]
fn crates_depend_on_each_other_only_as_the_table_allows() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let packages = packages();
    for package in &packages {
        let may = allowed
            .get(name(package))
            .unwrap_or_else(|| panic!("{} is not in the table", name(package)));
        for dependency in package["dependencies"].as_array().unwrap() {
            let ours = packages.iter().any(|other| name(other) == name(dependency));
            if ours && dependency["kind"].is_null() {
                assert!(
                    may.contains(&name(dependency)),
                    "{} must not use {}",
                    name(package),
                    name(dependency)
                );
            }
        }
    }
    let missing: Vec<_> = allowed
        .keys()
        .filter(|row| !packages.iter().any(|package| name(package) == **row))
        .collect();
    assert!(missing.is_empty(), "rows of crates that are gone: {missing:?}");
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

#[test]
fn versions_are_stated_in_the_workspace_manifest_only() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    for package in packages() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        let stated: Vec<_> = manifest
            .lines()
            .skip_while(|line| !line.starts_with("[dependencies]"))
            .take_while(|line| !line.starts_with("[["))
            .filter(|line| line.contains(" = ") && !line.contains("workspace = true"))
            .filter(|line| !line.contains("features") && !line.starts_with('#'))
            .collect();
        assert!(
            stated.is_empty(),
            "{} states versions of its own: {stated:?} (see {root}/Cargo.toml)",
            name(&package)
        );
    }
}
