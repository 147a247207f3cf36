//! `list`, and what it does about domains that fail.

use std::fs::{self, File};

use crate::host::Host;

const WEB: &str = "7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01";

#[test]
fn the_table_has_a_line_for_each_domain_and_says_what_is_not_settled() {
    let table = Host::demo().ask(&["list"]).expect(0).stdout();
    assert_eq!(
        table,
        "\
Name      ID   Mem  VCPUs  Devices
Domain-0   0  4096      -
web        1  1024      2  3 disks, 1 nic; disk xvdc half attached, backend state 2 (init-wait): the hotplug script has not finished
db         2  1536      2  1 disk
"
    );
}

#[test]
fn domains_are_found_by_name_and_by_id() {
    let host = Host::demo();
    let rows = host.ask(&["list", "--json", "db", "1"]).expect(0).json();
    assert_eq!((&rows[0]["name"], &rows[1]["name"]), (&"db".into(), &"web".into()));
    assert_eq!(rows[1]["devices"]["disk"], 3);
    let unknown = host.ask(&["list", "nosuch"]).expect(1);
    assert!(unknown.stderr().contains("no domain is called nosuch"), "{}", unknown.stderr());
    host.ask(&["xenstore", "write", "/local/domain/1/name", "db"]).expect(0);
    let several = host.ask(&["retrieve", "db"]).expect(1);
    assert!(several.stderr().contains("2 domains are called db: 1, 2"), "{}", several.stderr());
}

#[test]
fn a_domain_that_is_gone_has_its_error_beside_the_others_configurations() {
    let host = Host::demo();
    let list = host.ask(&["list", "-l", "1", "99"]).expect(1).json();
    assert_eq!(list[0]["config"]["c_info"]["name"], "web");
    assert_eq!(list[1]["domid"], 99);
    assert!(list[1]["error"].as_str().unwrap().contains("no domain 99"), "{list}");
    assert!(list[1].get("config").is_none());
}

#[test]
fn a_locked_template_fails_its_domain_only() {
    let host = Host::demo();
    let lock = host.templates().join(format!("userdata-l.1.{WEB}.domain-userdata-lock"));
    let held = File::create(lock).unwrap();
    held.lock().unwrap();
    let list = host.ask(&["list", "-l", "--timeout", "1"]).expect(1).json();
    let error = list[1]["error"].as_str().unwrap();
    assert!(error.contains("held its lock"), "{error}");
    assert_eq!(list[2]["config"]["c_info"]["name"], "db");
    // The same in a table, and when it alone is asked for.
    let table = host.ask(&["list", "--timeout", "0.5"]).expect(1).stdout();
    assert!(table.contains("error: domain 1: cannot load the template"), "{table}");
    let alone = host.ask(&["retrieve", "web", "--timeout", "0.2"]).expect(3);
    assert!(alone.stderr().contains("wait until whoever holds it is done"), "{}", alone.stderr());
    drop(held);
}

#[test]
fn a_template_that_cannot_be_read_fails_its_domain_rather_than_leave_out_half() {
    let host = Host::demo();
    let template = host.templates().join(format!("userdata-d.1.{WEB}.libxl-json"));
    for damage in [&b""[..], b"\0\0\0\0", b"{ \"c_info\": ", b"nonsense\0"] {
        fs::write(&template, damage).unwrap();
        let list = host.ask(&["list", "-l"]).expect(1).json();
        let error = list[1]["error"].as_str().unwrap();
        assert!(error.contains("template cannot be used"), "{error}");
        assert_eq!(list[2]["config"]["c_info"]["name"], "db");
    }
}

#[test]
fn a_domain_without_template_is_marked_as_built_from_xenstore() {
    let host = Host::demo();
    fs::remove_file(host.templates().join(format!("userdata-d.1.{WEB}.libxl-json"))).unwrap();
    let list = host.ask(&["list", "-l", "web"]).expect(0).json();
    assert_eq!(list[0]["note"], "no template: built from Xenstore alone");
    assert_eq!(list[0]["config"]["disks"].as_array().unwrap().len(), 3);
}
