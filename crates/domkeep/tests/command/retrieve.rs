//! `retrieve`.

use crate::host::Host;

#[test]
fn each_policy_decides_about_what_only_the_template_has() {
    let host = Host::demo();
    let disks = |policy: &str| {
        let answer = host.ask(&["retrieve", "db", "--json", "--policy", policy]).expect(0).json();
        (
            answer["config"]["disks"].as_array().unwrap().len(),
            answer["config"]["c_info"]["name"].clone(),
        )
    };
    assert_eq!(disks("live"), (1, "db".into()));
    assert_eq!(disks("union"), (2, "db".into()));
    assert_eq!(disks("template"), (2, "db-new".into()));
}

#[test]
fn without_options_the_answer_is_the_configuration_as_libxl_writes_it() {
    let host = Host::demo();
    let text = host.ask(&["retrieve", "db"]).expect(0).stdout();
    assert!(text.starts_with("{\n    \"c_info\": {\n        \"type\": \"pv\",\n"), "{text}");
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(host.ask(&["retrieve", "2", "--json"]).expect(0).json()["config"], config);
}

#[test]
fn the_report_says_what_changed_and_what_became_of_every_device() {
    let host = Host::demo();
    let words = host.ask(&["retrieve", "db", "--report"]).expect(0).stdout();
    for line in [
        "domain 2 (db)",
        "    c_info.name: db-new -> db",
        "    b_info.avail_vcpus: 0,1,2,3 -> 0,1",
        "    b_info.target_memkb: 2097152 -> 1572864",
        "    disk xvda  connected; in the template and in Xenstore",
        "    disk xvdb  not attached; in the template only, left out",
        "consistency: all of it is of one moment",
    ] {
        assert!(words.lines().any(|found| found == line), "{line:?} is not in\n{words}");
    }
    let report = &host.ask(&["retrieve", "db", "--report", "--json"]).expect(0).json()["report"];
    assert_eq!(report["template"]["template"], "found");
    assert_eq!(report["devices"][1]["presence"], "template_only");
}

#[test]
fn a_field_that_was_changed_behind_the_template_is_shown_with_its_key() {
    let host = Host::demo();
    for tree in ["/libxl/2/device/vbd/51712", "/local/domain/0/backend/vbd/2/51712"] {
        let key = format!("{tree}/params");
        host.ask(&["xenstore", "write", &key, "/srv/xen/db-\u{1b}[2Jroot.img"]).expect(0);
    }
    let words = host.ask(&["retrieve", "db", "--report"]).expect(0).stdout();
    assert!(!words.contains('\u{1b}'), "a terminal would obey: {words:?}");
    for tree in ["/libxl/2/device/vbd/51712", "/local/domain/0/backend/vbd/2/51712"] {
        host.ask(&["xenstore", "write", &format!("{tree}/params"), "/srv/xen/other.img"]).expect(0);
    }
    let words = host.ask(&["retrieve", "db", "--report"]).expect(0).stdout();
    let change = "pdev_path: \"/srv/xen/db-root.img\" -> \"/srv/xen/other.img\" (key params)";
    assert!(words.contains(change), "{words}");
}

#[test]
fn a_domain_that_is_not_there_is_an_answer_and_not_a_failure_to_reach_it() {
    let host = Host::demo();
    for domain in ["99", "32752", "nosuch"] {
        let answer = host.ask(&["retrieve", domain]).expect(1);
        assert!(answer.stderr().contains(domain) || answer.stderr().contains("reserved"));
        assert_eq!(answer.stdout(), "");
    }
    let missing = host.directory.path().join("none");
    let mut command = host.domkeep(&["retrieve", "web", "--templates"]);
    command.arg(format!("userdata:{}", missing.display()));
    crate::host::Answer::of(&mut command).expect(3);
}

#[test]
fn without_a_template_store_the_answer_is_built_from_xenstore() {
    let host = Host::demo();
    let mut command = crate::host::domkeep();
    command.arg("--xenstore").arg(host.socket()).args([
        "--templates",
        "none",
        "retrieve",
        "db",
        "--report",
    ]);
    let words = crate::host::Answer::of(&mut command).expect(0).stdout();
    assert!(
        words.contains("template: none; the configuration is built from Xenstore alone"),
        "{words}"
    );
}
