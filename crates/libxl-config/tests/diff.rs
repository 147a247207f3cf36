//! Differences between configurations, by meaning and by device.
#![expect(clippy::unwrap_used, reason = "a sample that cannot be read must fail its test")]

use libxl_config::model::{Disk, Pci, Usbdev};
use libxl_config::{DomainConfig, Mode, diff};

fn changes(a: &str, b: &str) -> Vec<String> {
    let read = |text: &str| DomainConfig::read(text.as_bytes(), Mode::Lenient).unwrap().config;
    diff(&read(a), &read(b)).iter().map(ToString::to_string).collect()
}

#[test]
fn spelling_and_order_of_devices_make_no_difference() {
    let a =
        r#"{"b_info": {"max_vcpus": 2, "hap": 1}, "disks": [{"vdev": "xvda"}, {"vdev": "xvdb"}]}"#;
    let b = r#"{"disks": [{"vdev": "xvdb", "readwrite": 0}, {"vdev": "xvda"}],
        "b_info": {"hap": 1, "sched_params": {}, "max_vcpus": 2e0}}"#;
    assert_eq!(changes(a, b), [""; 0]);
}

#[test]
fn fields_are_named_one_by_one_and_devices_by_identity() {
    let a = r#"{"c_info": {"type": "pv", "xsdata": {"a": "1"}}, "b_info": {"type.pv": {"e820_host": "True"}},
        "nics": [{"devid": 0, "bridge": "xenbr0"}, {"devid": 1}], "pcidevs": [{"bus": 3}]}"#;
    let b = r#"{"c_info": {"type": "pvh", "xsdata": {"a": "2"}}, "b_info": {"type.pvh": {}, "x": 1},
        "nics": [{"devid": 1}, {"devid": 0, "bridge": "br/1"}], "pcidevs": [{"bus": 3, "func": 1}]}"#;
    assert_eq!(
        changes(a, b),
        [
            r#"$.c_info.type: "pv" -> "pvh""#,
            r#"$.c_info.xsdata.a: "1" -> "2""#,
            r#"$.b_info["type.pv"]: {"e820_host":"True"} -> nothing"#,
            r#"$.b_info["type.pvh"]: nothing -> {}"#,
            "$.b_info.x: nothing -> 1",
            r#"$.nics[devid=0].bridge: "xenbr0" -> "br/1""#,
            r#"$.pcidevs[bdf=0000:03:00.0]: {"bus":3} -> nothing"#,
            r#"$.pcidevs[bdf=0000:03:00.1]: nothing -> {"func":1,"bus":3}"#,
        ]
    );
}

#[test]
fn devices_of_one_identity_are_matched_by_their_order() {
    let a = r#"{"nics": [{"mtu": 1}, {"mtu": 2}, {"mtu": 3}]}"#;
    let b = r#"{"nics": [{"mtu": 1}, {"mtu": 5}]}"#;
    assert_eq!(
        changes(a, b),
        ["$.nics[devid=unset].mtu: 2 -> 5", r#"$.nics[devid=unset]: {"mtu":3} -> nothing"#]
    );
}

#[test]
fn what_was_read_and_what_was_made_by_hand_compare_alike() {
    let text = r#"{"disks": [{"vdev": "xvda", "readwrite": 1}], "pcidevs": [{"bus": 3}], "usbdevs": [{"port": 2, "type.hostdev": {}}]}"#;
    let read = DomainConfig::read(text.as_bytes(), Mode::Lenient).unwrap().config;
    let made = DomainConfig {
        disks: vec![Disk { vdev: Some("xvda".into()), readwrite: 1, ..Disk::default() }],
        pcidevs: vec![Pci { bus: 3, ..Pci::default() }],
        usbdevs: vec![Usbdev { port: 2, ..Usbdev::default() }],
        ..DomainConfig::default()
    };
    assert_eq!(made, read);
    assert_eq!(diff(&made, &read), []);
}
