//! `device`: on simulated ends, with scripts that do to Xenstore what the real ones do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use libxl_config::hotplug::simulated::{Behaviour, Ends, Guest};
use xsclient::{Client, Endpoint, Options};

use crate::host::{Answer, Host};

/// The demonstration's host, whose guest `db` plugs what comes.
struct Plugging {
    host: Host,
    ends: Ends,
}

impl Plugging {
    fn new() -> Self {
        let host = Host::demo();
        let client = Client::open(Endpoint::UnixSocket(host.socket()), Options::default()).unwrap();
        let ends = Ends::play(client, Behaviour::default());
        let plugging = Self { host, ends };
        plugging.script(
            "case $1 in add|online) put physical-device 7:0; put hotplug-status connected;; esac",
        );
        fs::write(plugging.path("data.img"), "").unwrap();
        plugging
    }

    fn path(&self, file: &str) -> String {
        self.host.directory.path().join(file).display().to_string()
    }

    fn script(&self, body: &str) {
        for name in ["block", "vif-bridge"] {
            let path = self.path(name);
            let (command, socket) = (env!("CARGO_BIN_EXE_domkeep"), self.host.socket());
            let put = format!(
                "put() {{ {command} --xenstore {} xenstore write /local/domain/0/$XENBUS_PATH/$1 \"$2\"; }}",
                socket.display()
            );
            fs::write(&path, format!("#!/bin/sh\n{put}\n{body}\n")).unwrap();
            fs::set_permissions(Path::new(&path), fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// `device ACTION ...` with this host's scripts.
    fn device(&self, arguments: &[&str]) -> Answer {
        let scripts = self.host.directory.path().display().to_string();
        let mut all = vec!["device"];
        all.extend(arguments);
        all.extend(["--scripts", &scripts]);
        self.host.ask(&all)
    }
}

#[test]
fn a_disk_a_nic_and_a_share_are_plugged_as_xl_has_them_written() {
    let plugging = Plugging::new();
    let target = format!("target={}", plugging.path("data.img"));
    let attached = plugging.device(&["attach", "db", "disk", "vdev=xvdz", "access=ro", &target]);
    let text = attached.expect(0).stdout();
    assert_eq!(text, "disk xvdz attached to domain 2: connected\n");
    let nic =
        plugging.device(&["attach", "2", "nic", "bridge=br1,mac=00:16:3e:00:00:77", "--json"]);
    let nic = nic.expect(0).json();
    assert_eq!((&nic["domid"], &nic["device"]["class"]), (&2.into(), &"nic".into()));
    assert_eq!(nic["attachment"]["is"], "connected");
    let template = plugging.host.ask(&["template", "show", "2", "--json"]).expect(0).json();
    let stored = template.to_string();
    assert!(stored.contains("xvdz") && stored.contains("00:16:3e:00:00:77"), "{stored}");
    let config = plugging.host.ask(&["retrieve", "db"]).expect(0).json();
    let disks = config["disks"].as_array().unwrap();
    assert!(disks.iter().any(|disk| disk["vdev"] == "xvdz" && disk["readwrite"].is_null()));

    let detached = plugging.device(&["detach", "db", "disk", "xvdz", "--json"]).expect(0).json();
    assert_eq!(
        (&detached["was_in_xenstore"], &detached["was_in_template"]),
        (&true.into(), &true.into())
    );
    let text = plugging.device(&["detach", "db", "nic", "00:16:3e:00:00:77"]).expect(0).stdout();
    assert!(text.ends_with("detached from domain 2\n"), "{text}");
    let gone = plugging.device(&["detach", "db", "disk", "xvdz"]).expect(1);
    assert!(gone.stderr().contains("domain 2: no disk xvdz"), "{}", gone.stderr());
}

#[test]
fn an_entry_in_json_is_attached() {
    let plugging = Plugging::new();
    let entry = format!(
        r#"{{ "vdev": "xvdz", "pdev_path": "{}", "format": "raw", "readwrite": 1 }}"#,
        plugging.path("data.img")
    );
    fs::write(plugging.path("entry"), entry).unwrap();
    let file = plugging.path("entry");
    plugging.device(&["attach", "db", "disk", "--entry", &file]).expect(0);
    fs::write(&file, "[").unwrap();
    let wrong = plugging.device(&["attach", "db", "disk", "--entry", &file]).expect(2);
    assert!(wrong.stderr().contains("entry cannot be read"), "{}", wrong.stderr());
}

#[test]
fn what_is_wrong_with_a_device_is_told_with_what_to_do() {
    let plugging = Plugging::new();
    for (arguments, status, told) in [
        (&["attach", "db", "disk", "vdev=xvdz"][..], 2, "target is missing"),
        (&["attach", "db", "disk", "vdev=vdz,target=/x"], 2, "\"vdz\" is not the name of a disk"),
        (&["attach", "db", "p9", "tag=a"], 2, "path is missing"),
        (&["detach", "db", "nic", "eth0"], 2, "give its devid or its MAC address"),
        (&["attach", "nosuch", "nic", "bridge=a"], 1, "no domain is called nosuch"),
        (&["attach", "99", "nic", "bridge=a"], 1, "no domain 99"),
        (
            &["attach", "db", "disk", "vdev=xvdz,target=/nosuch"],
            1,
            "image /nosuch: entity not found",
        ),
    ] {
        let answer = plugging.device(arguments).expect(status);
        assert!(answer.stderr().contains(told), "{arguments:?}: {}", answer.stderr());
        assert_eq!(answer.stdout(), "", "{arguments:?}");
    }
    let share = plugging.path("");
    let spec = format!("tag=a,security_model=none,path={share}");
    let refused = plugging.device(&["attach", "db", "p9", &spec]).expect(1).stderr();
    assert!(refused.contains("needs a QEMU") && refused.contains("what to do: "), "{refused}");
}

#[test]
fn a_failed_script_is_quoted_and_a_held_disk_is_told_and_taken_away() {
    let plugging = Plugging::new();
    let target = format!("vdev=xvdz,target={}", plugging.path("data.img"));
    plugging.script("echo no loop device left >&2; exit 1");
    let failed = plugging.device(&["attach", "db", "disk", &target]).expect(1).stderr();
    assert!(failed.contains("it said: no loop device left"), "{failed}");
    assert!(failed.contains("all is as before"), "{failed}");

    plugging.script("[ $1 = add ] && put hotplug-status connected; exit 0");
    plugging.device(&["attach", "db", "disk", &target]).expect(0);
    plugging.ends.behave(Behaviour { guest: Guest::Holds, ..Behaviour::default() });
    let held =
        plugging.device(&["detach", "db", "disk", "xvdz", "--wait", "0.2"]).expect(1).stderr();
    assert!(held.contains("not let go") && held.contains("--force"), "{held}");
    let list = plugging.device_list(1);
    assert!(list.contains("disk xvdz  half detached, backend state 5 (closing)"), "{list}");
    plugging.device(&["detach", "db", "disk", "xvdz", "--wait", "0.2", "--force"]).expect(0);
    assert!(!plugging.device_list(1).contains("xvdz"));
}

impl Plugging {
    fn device_list(&self, status: i32) -> String {
        self.host.ask(&["device", "list", "db"]).expect(status).stdout()
    }
}

#[test]
fn what_a_killed_hotplug_left_is_listed_and_repaired() {
    let plugging = Plugging::new();
    // The demonstration's guest has a disk whose script was killed; the ends are ready for it.
    let list = plugging.host.ask(&["device", "list", "web", "--json"]).expect(1).json();
    let devices = list[0]["devices"].as_array().unwrap();
    let xvdc = devices.iter().find(|device| device["name"] == "xvdc").unwrap();
    assert_eq!(xvdc["attachment"]["is"], "half_attached");
    plugging.script("exit 1");
    let undone = plugging.device(&["repair", "web", "disk", "xvdc", "--undo"]).expect(0).stdout();
    assert!(undone.contains("detached to the end"), "{undone}");
    let nothing = plugging.device(&["repair", "web", "disk", "xvdc", "--json"]).expect(0).json();
    assert_eq!(nothing[0]["mended"], "nothing");
    let all = plugging.device(&["repair", "db", "--json"]).expect(0).json();
    assert_eq!(all[0]["mended"], "entry_removed");
    assert_eq!(all[0]["device"]["name"], "xvdb");
    let settled = plugging.device(&["repair", "db"]).expect(0).stdout();
    assert_eq!(settled, "domain 2: nothing to repair\n");
}
