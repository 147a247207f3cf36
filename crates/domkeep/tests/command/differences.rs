//! What `docs/differences-from-libxl.md` says about places where libxl's own retrieve is wrong. (Domain-0 is in `captures`.)

use std::fs;

use serde_json::{Value, json};

use crate::host::{Host, shipped};

const WEB: &str = "userdata-d.1.7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01.libxl-json";
const DB: &str = "userdata-d.2.e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02.libxl-json";
const DESKTOP: &str = "userdata-d.11.0c9e7f3a-55d2-4f0b-b1c4-9a8e6d7f1203.libxl-json";

impl Host {
    /// Changes a template behind everybody's back.
    fn edit(&self, template: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.templates().join(template);
        let text = fs::read_to_string(&path).unwrap();
        let mut value = serde_json::from_str(text.trim_end_matches('\0')).unwrap();
        edit(&mut value);
        fs::write(path, value.to_string() + "\0").unwrap();
    }

    fn write(&self, pairs: &[(&str, &str)]) {
        let mut arguments = vec!["xenstore", "write"];
        arguments.extend(pairs.iter().flat_map(|(path, value)| [*path, *value]));
        self.ask(&arguments).expect(0);
    }

    fn retrieved(&self, domain: &str) -> Value {
        self.ask(&["retrieve", domain, "--json", "--report"]).expect(0).json()
    }
}

fn vdevs(answer: &Value) -> Vec<&str> {
    answer["config"]["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk["vdev"].as_str().unwrap())
        .collect()
}

fn device<'a>(answer: &'a Value, id: &str) -> &'a Value {
    answer["report"]["devices"]
        .as_array()
        .unwrap()
        .iter()
        .find(|device| device["id"] == id)
        .unwrap()
}

#[test]
fn a_device_that_cannot_be_read_does_not_take_its_class_with_it() {
    let host = Host::demo();
    let params = "/libxl/1/device/vbd/51728/params";
    host.ask(&["xenstore", "rm", params]).expect(0);
    let answer = host.retrieved("web");
    assert_eq!(vdevs(&answer), ["xvda", "xvdb", "xvdc"]);
    host.write(&[(params, "\u{1}")]);
    let answer = host.retrieved("web");
    assert_eq!(vdevs(&answer), ["xvda", "xvdb", "xvdc"]);
    assert!(!device(&answer, "xvdb")["problems"].as_array().unwrap().is_empty(), "{answer:#}");
}

#[test]
fn a_device_that_only_xenstore_has_is_in_the_answer() {
    let host = Host::demo();
    host.edit(WEB, |web| {
        web["disks"].as_array_mut().unwrap().remove(1);
    });
    let answer = host.retrieved("web");
    assert_eq!(vdevs(&answer), ["xvda", "xvdc", "xvdb"]);
    assert_eq!(device(&answer, "xvdb")["note"], "built");
    assert_eq!(answer["config"]["disks"][2]["pdev_path"], "/srv/xen/web-data.img");
}

#[test]
fn another_spelling_of_a_vdev_is_the_same_disk() {
    let host = Host::demo();
    for spelling in ["d0p0", "51712", "xvda"] {
        host.edit(WEB, |web| web["disks"][0]["vdev"] = spelling.into());
        let answer = host.retrieved("web");
        assert_eq!(vdevs(&answer), [spelling, "xvdb", "xvdc"]);
    }
}

#[test]
fn a_usb_device_in_its_port_stays() {
    let host = Host::demo();
    host.edit(WEB, |web| {
        web["usbctrls"] = json!([{ "type": "pv", "devid": 0, "version": 2, "ports": 8 }]);
        web["usbdevs"] =
            json!([{ "ctrl": 0, "port": 1, "type.hostdev": { "hostbus": 1, "hostaddr": 4 } }]);
    });
    let (toolstack, backend) = ("/libxl/1/device/vusb/0", "/local/domain/0/backend/vusb/1/0");
    let path = |tree: &str, key: &str| format!("{tree}/{key}");
    for (key, value) in
        [("type", "pv"), ("usb-ver", "2"), ("num-ports", "8"), ("port/1", "1-1.2"), ("state", "4")]
    {
        host.write(&[(&path(toolstack, key), value), (&path(backend, key), value)]);
    }
    host.write(&[(&path(toolstack, "backend"), backend)]);
    let answer = host.retrieved("web");
    assert_eq!(answer["config"]["usbdevs"].as_array().unwrap().len(), 1, "{answer:#}");
}

#[test]
fn a_domain_without_a_name_has_its_live_values_all_the_same() {
    let host = Host::demo();
    host.ask(&["xenstore", "rm", "/local/domain/2/name"]).expect(0);
    let answer = host.retrieved("2");
    assert_eq!(answer["config"]["c_info"]["name"], "db-new");
    assert_eq!(answer["config"]["b_info"]["target_memkb"], 1_572_864);
    assert_eq!(vdevs(&answer), ["xvda"]);
}

#[test]
fn memory_set_of_an_hvm_guest_that_may_grow_is_what_was_asked_for() {
    let host = Host::of(&shipped("tests/data/captures/ejected-and-unplugged"));
    host.edit(DESKTOP, |desktop| desktop["b_info"]["target_memkb"] = 1_048_576.into());
    // As created: 1 GiB less the video memory and the mebibyte for growth.
    host.write(&[("/local/domain/11/memory/target", "1039360")]);
    assert_eq!(host.retrieved("desktop")["config"]["b_info"]["target_memkb"], 1_048_576);
    // After `xl mem-set desktop 512`: less the video memory only. libxl's retrieve says 525312.
    host.write(&[("/local/domain/11/memory/target", "516096")]);
    assert_eq!(host.retrieved("desktop")["config"]["b_info"]["target_memkb"], 524_288);
}

#[test]
fn online_virtual_cpus_of_an_hvm_guest_are_those_the_toolstack_asked_for() {
    let host = Host::of(&shipped("tests/data/captures/ejected-and-unplugged"));
    host.write(&[("/local/domain/11/cpu/1/availability", "offline")]);
    assert_eq!(host.retrieved("desktop")["config"]["b_info"]["avail_vcpus"], json!([0]));
}

#[test]
fn a_pci_function_that_only_the_template_has_is_left_out_and_named() {
    let host = Host::demo();
    host.edit(WEB, |web| web["pcidevs"] = json!([{ "bus": 3, "func": 1 }]));
    let answer = host.retrieved("web");
    assert!(answer["config"].get("pcidevs").is_none(), "{answer:#}");
    let devices = answer["report"]["devices"].as_array().unwrap();
    let pci = devices.iter().find(|device| device["class"] == "pci").unwrap();
    assert_eq!((&pci["id"], &pci["note"]), (&"0000:03:00.1".into(), &"left_out".into()));
    let union = host.ask(&["retrieve", "web", "--json", "--policy", "union"]).expect(0).json();
    assert_eq!(union["config"]["pcidevs"][0]["bus"], 3);
}

#[test]
fn keys_that_no_libxl_knows_are_kept() {
    let host = Host::demo();
    host.edit(DB, |db| db["b_info"]["colour"] = "green".into());
    assert_eq!(host.retrieved("db")["config"]["b_info"]["colour"], "green");
}
