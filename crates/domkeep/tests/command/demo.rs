//! `demo`.

use crate::host::{Answer, domkeep};

#[test]
fn the_demonstration_tells_of_the_interrupted_hotplug_and_of_its_end() {
    let words = Answer::of(domkeep().arg("demo")).expect(0).stdout();
    for line in [
        "    c_info.name: db-new -> db",
        "    disk xvdb  not attached; in the template only, left out",
        "    xvdc before: half attached, backend state 2 (init-wait): the hotplug script has not finished; \
         in the template and in Xenstore",
        "    xvdc after:  connected; in the template and in Xenstore",
    ] {
        assert!(words.lines().any(|found| found == line), "{line:?} is not in\n{words}");
    }
    let revisions: Vec<&str> = words.lines().filter(|line| line.starts_with("revision ")).collect();
    assert_eq!(revisions.len(), 3);
    assert_ne!(revisions[1], revisions[2]);
    assert!(words.lines().all(|line| line.chars().count() <= 150), "{words}");
}

#[test]
fn the_demonstration_ends_with_two_guests_of_which_one_was_saved() {
    // Without QEMU's programs the disks are raw.
    for without in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = domkeep();
        command.args(["demo", "--json"]).env("TMPDIR", directory.path());
        if without {
            command.env("PATH", directory.path());
        }
        let told = Answer::of(&mut command).expect(0).json()["snapshot"].clone();
        let missing = told["missing_programs"].as_array().unwrap().len();
        assert_eq!(told["images"], if missing == 0 { "qcow2" } else { "raw" });
        assert!(missing == 3 || !without, "{told}");
        assert_eq!(told["saved"]["consistency"], "complete");
        assert_eq!(told["verified"]["problems"], serde_json::json!([]));
        let domains = told["domains"].as_array().unwrap();
        let of = |what| domains.iter().map(move |domain| domain[what].as_str().unwrap());
        assert_eq!(of("name").collect::<Vec<_>>(), ["web", "web-again"]);
        assert_eq!(of("state").collect::<Vec<_>>(), ["running", "running"]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "something is left");
    }
}

#[test]
fn without_qemu_the_demonstration_says_what_is_missing_and_where_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = domkeep();
    command.arg("demo").env("PATH", directory.path()).env("TMPDIR", directory.path());
    let words = Answer::of(&mut command).expect(0).stdout();
    let told = "Without qemu-img and qemu-storage-daemon and setpriv, which cannot be started here \
                (Debian: qemu-utils, util-linux), the disks are raw and are copied:";
    assert!(words.lines().any(|line| line == told), "{words}");
    assert!(words.lines().any(|line| line.contains("--disk xvda=copy:root-1.img")), "{words}");
}

#[test]
fn the_demonstration_is_a_document_too() {
    let told = Answer::of(domkeep().args(["demo", "--json"])).expect(0).json();
    assert_eq!(told["list"].as_array().unwrap().len(), 3);
    assert_eq!(told["revision_changed"], true);
    let xvdc = |answer: &serde_json::Value| {
        let devices = answer["report"]["devices"].as_array().unwrap();
        let device = devices.iter().find(|device| device["id"] == "xvdc").unwrap();
        device["attachment"]["is"].clone()
    };
    assert_eq!(xvdc(&told["web_before"]), "half_attached");
    assert_eq!(xvdc(&told["web_after"]), "connected");
    assert_eq!(told["web_before"]["config"], told["web_after"]["config"]);
}
