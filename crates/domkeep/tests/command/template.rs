//! `template`, on each kind of store.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::host::{Answer, domkeep, shipped};

const WEB: &str = "7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01";

struct Store {
    directory: TempDir,
    kind: &'static str,
}

impl Store {
    fn both() -> [Self; 2] {
        ["userdata", "sled"].map(|kind| Self { directory: tempfile::tempdir().unwrap(), kind })
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        let templates = format!("{}:{}", self.kind, self.directory.path().display());
        Answer::of(domkeep().args(["--templates", &templates, "template"]).args(arguments))
    }
}

fn file() -> String {
    let name = format!("demo/host/userdata-d.1.{WEB}.libxl-json");
    shipped(&name).to_str().unwrap().to_owned()
}

#[test]
fn what_was_imported_is_listed_and_shown_on_every_store() {
    for store in Store::both() {
        let told = store.ask(&["import", &file(), "--domid", "1"]).expect(0).stdout();
        assert!(told.starts_with(&format!("created the template of domain 1 ({WEB}), revision ")));
        let list = store.ask(&["ls", "--json"]).expect(0).json();
        assert_eq!(list[0]["name"], "web", "{}", store.kind);
        assert_eq!(list[0]["uuid"], WEB);
        assert_eq!(list[0]["size"], 1444);
        let table = store.ask(&["ls"]).expect(0).stdout();
        let revision = list[0]["revision"].as_str().unwrap();
        assert!(table.lines().nth(1).unwrap().contains(&revision[..12]), "{table}");
        // What libxl wrote is stored as libxl wrote it, but for the NUL.
        let shown = store.ask(&["show", "1"]).expect(0).stdout();
        assert_eq!(shown + "\0", fs::read_to_string(file()).unwrap());
        let json = store.ask(&["show", WEB, "--json"]).expect(0).json();
        assert_eq!(json["config"]["c_info"]["name"], "web");
        assert_eq!(json["revision"], list[0]["revision"]);
    }
}

#[test]
fn an_import_never_replaces() {
    for store in Store::both() {
        store.ask(&["import", &file(), "--domid", "1"]).expect(0);
        let again = store.ask(&["import", &file(), "--domid", "1"]).expect(1);
        assert!(again.stderr().contains("exists already"), "{}", again.stderr());
        let other = "00000000-0000-4000-8000-00000000000a";
        store.ask(&["import", &file(), "--domid", "1", "--uuid", other]).expect(0);
        let several = store.ask(&["show", "1"]).expect(1);
        assert!(several.stderr().contains("give the uuid instead"), "{}", several.stderr());
        let shown = store.ask(&["show", other, "--json"]).expect(0).json();
        assert_eq!(shown["config"]["c_info"]["uuid"], other);
        store.ask(&["show", "2"]).expect(1);
    }
}

#[test]
fn an_import_without_any_uuid_asks_for_one() {
    let [store, _] = Store::both();
    let file = shipped("tests/data/config/no-uuid.json");
    let refused = store.ask(&["import", file.to_str().unwrap(), "--domid", "3"]).expect(2);
    assert!(refused.stderr().contains("--uuid"), "{}", refused.stderr());
}

#[test]
fn what_libxl_writes_but_cannot_read_is_imported_as_it_can_read_it() {
    let [store, _] = Store::both();
    let file = shipped("tests/data/config/odd.json");
    store.ask(&["import", file.to_str().unwrap(), "--domid", "4"]).expect(0);
    let shown = store.ask(&["show", "4"]).expect(0).stdout();
    assert!(shown.contains("\"tier\": \"fast\""), "unknown keys are kept: {shown}");
}

#[test]
fn a_template_that_cannot_be_read_is_named_in_the_list() {
    let [store, _] = Store::both();
    let damaged = format!("userdata-d.9.{WEB}.libxl-json");
    fs::write(store.directory.path().join(damaged), b"").unwrap();
    store.ask(&["import", &file(), "--domid", "1"]).expect(0);
    let list = store.ask(&["ls", "--json"]).expect(1).json();
    assert_eq!(list[0]["name"], "web");
    assert_eq!(list[1]["domid"], 9);
    assert!(list[1]["error"].as_str().unwrap().contains("empty"), "{list}");
    store.ask(&["show", "9"]).expect(1);
}

#[test]
fn a_store_that_is_not_there_is_out_of_reach() {
    for kind in ["userdata", "sled"] {
        let templates = format!("{kind}:/nonexistent/templates");
        let answer = Answer::of(domkeep().args(["template", "ls", "--templates", &templates]));
        let stderr = answer.expect(3).stderr();
        assert!(stderr.contains("/nonexistent/templates"), "{stderr}");
        assert!(!Path::new("/nonexistent").exists());
    }
}
