//! Network cards: `vif`.

use super::rule::{enum_rule, expected_script, number, script_name, text_rule};
use super::{Absence, Class, ClassInfo, Expected, Layout, Rule, numbered_devices};
use crate::model::{Mac, Nic, NicType};
use crate::retrieve::report::{BadValue, DeviceClass};

pub(in crate::retrieve) struct Nics;

/// The MTU that libxl does not write down.
const DEFAULT_MTU: i32 = 1500;

/// The bridge of a card that names none.
const DEFAULT_BRIDGE: &str = "xenbr0";

impl Class for Nics {
    numbered_devices!(Nic, nics);

    const INFO: &'static ClassInfo = &ClassInfo {
        class: DeviceClass::Nic,
        kinds: &["vif"],
        backend_kinds: &["vif"],
        keys: &[
            "script",
            "vifname",
            "mac",
            "ip",
            "gatewaydev",
            "rate",
            "mtu",
            "vlan",
            "bridge",
            "handle",
            "type",
            "forwarddev",
            "colo_sock_mirror_id",
            "colo_sock_mirror_ip",
            "colo_sock_mirror_port",
            "colo_sock_compare_pri_in_id",
            "colo_sock_compare_pri_in_ip",
            "colo_sock_compare_pri_in_port",
            "colo_sock_compare_sec_in_id",
            "colo_sock_compare_sec_in_ip",
            "colo_sock_compare_sec_in_port",
            "colo_sock_compare_notify_id",
            "colo_sock_compare_notify_ip",
            "colo_sock_compare_notify_port",
            "colo_sock_redirector0_id",
            "colo_sock_redirector0_ip",
            "colo_sock_redirector0_port",
            "colo_sock_redirector1_id",
            "colo_sock_redirector1_ip",
            "colo_sock_redirector1_port",
            "colo_sock_redirector2_id",
            "colo_sock_redirector2_ip",
            "colo_sock_redirector2_port",
            "colo_filter_mirror_queue",
            "colo_filter_mirror_outdev",
            "colo_filter_redirector0_queue",
            "colo_filter_redirector0_indev",
            "colo_filter_redirector0_outdev",
            "colo_filter_redirector1_queue",
            "colo_filter_redirector1_indev",
            "colo_filter_redirector1_outdev",
            "colo_compare_pri_in",
            "colo_compare_sec_in",
            "colo_compare_out",
            "colo_compare_notify_dev",
            "colo_sock_sec_redirector0_id",
            "colo_sock_sec_redirector0_ip",
            "colo_sock_sec_redirector0_port",
            "colo_sock_sec_redirector1_id",
            "colo_sock_sec_redirector1_ip",
            "colo_sock_sec_redirector1_port",
            "colo_filter_sec_redirector0_queue",
            "colo_filter_sec_redirector0_indev",
            "colo_filter_sec_redirector0_outdev",
            "colo_filter_sec_redirector1_queue",
            "colo_filter_sec_redirector1_indev",
            "colo_filter_sec_redirector1_outdev",
            "colo_filter_sec_rewriter0_queue",
            "colo_checkpoint_host",
            "colo_checkpoint_port",
        ],
        frontend_keys: &[],
        layout: Layout::Flat,
        compared: true,
        scripted: &["vif"],
    };

    const RULES: &'static [Rule<Nic>] = &[
        Rule {
            key: "mtu",
            field: "mtu",
            expected: |nic, _| match nic.mtu {
                0 => Expected::Anything,
                DEFAULT_MTU => Expected::Nothing,
                mtu => Expected::text(mtu),
            },
            take: |nic, live, _| {
                nic.mtu = number(live)?;
                Ok(())
            },
            absent: Absence::Clear(|nic| nic.mtu = DEFAULT_MTU),
        },
        text_rule!(Nic, "vlan", vlan),
        Rule {
            key: "mac",
            field: "mac",
            expected: |nic, _| {
                if nic.mac == Mac::UNSET { Expected::Anything } else { Expected::text(nic.mac) }
            },
            take: |nic, live, _| {
                nic.mac =
                    Mac::parse_text(live).ok_or_else(|| BadValue::not_a(live, "a MAC address"))?;
                Ok(())
            },
            absent: Absence::Keep,
        },
        text_rule!(Nic, "ip", ip),
        Rule {
            key: "bridge",
            field: "bridge",
            // Without a name the host's configuration decides, as a rule for xenbr0.
            expected: |nic, live| match nic.bridge.as_deref() {
                Some(bridge) => Expected::text(bridge),
                None if live.text("bridge") == Some(DEFAULT_BRIDGE) => Expected::Anything,
                None => Expected::Nothing,
            },
            take: |nic, live, _| {
                nic.bridge = Some(live.to_owned());
                Ok(())
            },
            absent: Absence::Clear(|nic| nic.bridge = None),
        },
        text_rule!(Nic, "vifname", ifname, "ifname"),
        Rule {
            key: "script",
            field: "script",
            expected: |nic, _| expected_script(nic.script.as_deref(), "vif-bridge"),
            take: |nic, live, _| {
                nic.script = Some(script_name(live));
                Ok(())
            },
            absent: Absence::Keep,
        },
        enum_rule!(
            Nic,
            "type",
            nictype,
            "nictype",
            NicType { Vif = "vif", VifIoemu = "vif_ioemu" },
            "vif or vif_ioemu"
        ),
        Rule {
            key: "rate",
            field: "rate_bytes_per_interval",
            expected: |nic, _| {
                if nic.rate_interval_usecs == 0 {
                    return Expected::Nothing;
                }
                Expected::text(format!(
                    "{},{}",
                    nic.rate_bytes_per_interval, nic.rate_interval_usecs
                ))
            },
            take: |nic, live, _| {
                let wanted = || BadValue::not_a(live, "OCTETS,MICROSECONDS");
                let (octets, interval) = live.split_once(',').ok_or_else(wanted)?;
                let (octets, interval) = (number(octets)?, number(interval)?);
                (nic.rate_bytes_per_interval, nic.rate_interval_usecs) = (octets, interval);
                Ok(())
            },
            absent: Absence::Clear(|nic| {
                (nic.rate_bytes_per_interval, nic.rate_interval_usecs) = (0, 0)
            }),
        },
        text_rule!(Nic, "gatewaydev", gatewaydev),
        text_rule!(Nic, "forwarddev", coloft_forwarddev, "coloft_forwarddev"),
        text_rule!(Nic, "colo_sock_mirror_id", colo_sock_mirror_id),
        text_rule!(Nic, "colo_sock_mirror_ip", colo_sock_mirror_ip),
        text_rule!(Nic, "colo_sock_mirror_port", colo_sock_mirror_port),
        text_rule!(Nic, "colo_sock_compare_pri_in_id", colo_sock_compare_pri_in_id),
        text_rule!(Nic, "colo_sock_compare_pri_in_ip", colo_sock_compare_pri_in_ip),
        text_rule!(Nic, "colo_sock_compare_pri_in_port", colo_sock_compare_pri_in_port),
        text_rule!(Nic, "colo_sock_compare_sec_in_id", colo_sock_compare_sec_in_id),
        text_rule!(Nic, "colo_sock_compare_sec_in_ip", colo_sock_compare_sec_in_ip),
        text_rule!(Nic, "colo_sock_compare_sec_in_port", colo_sock_compare_sec_in_port),
        text_rule!(Nic, "colo_sock_compare_notify_id", colo_sock_compare_notify_id),
        text_rule!(Nic, "colo_sock_compare_notify_ip", colo_sock_compare_notify_ip),
        text_rule!(Nic, "colo_sock_compare_notify_port", colo_sock_compare_notify_port),
        text_rule!(Nic, "colo_sock_redirector0_id", colo_sock_redirector0_id),
        text_rule!(Nic, "colo_sock_redirector0_ip", colo_sock_redirector0_ip),
        text_rule!(Nic, "colo_sock_redirector0_port", colo_sock_redirector0_port),
        text_rule!(Nic, "colo_sock_redirector1_id", colo_sock_redirector1_id),
        text_rule!(Nic, "colo_sock_redirector1_ip", colo_sock_redirector1_ip),
        text_rule!(Nic, "colo_sock_redirector1_port", colo_sock_redirector1_port),
        text_rule!(Nic, "colo_sock_redirector2_id", colo_sock_redirector2_id),
        text_rule!(Nic, "colo_sock_redirector2_ip", colo_sock_redirector2_ip),
        text_rule!(Nic, "colo_sock_redirector2_port", colo_sock_redirector2_port),
        text_rule!(Nic, "colo_filter_mirror_queue", colo_filter_mirror_queue),
        text_rule!(Nic, "colo_filter_mirror_outdev", colo_filter_mirror_outdev),
        text_rule!(Nic, "colo_filter_redirector0_queue", colo_filter_redirector0_queue),
        text_rule!(Nic, "colo_filter_redirector0_indev", colo_filter_redirector0_indev),
        text_rule!(Nic, "colo_filter_redirector0_outdev", colo_filter_redirector0_outdev),
        text_rule!(Nic, "colo_filter_redirector1_queue", colo_filter_redirector1_queue),
        text_rule!(Nic, "colo_filter_redirector1_indev", colo_filter_redirector1_indev),
        text_rule!(Nic, "colo_filter_redirector1_outdev", colo_filter_redirector1_outdev),
        text_rule!(Nic, "colo_compare_pri_in", colo_compare_pri_in),
        text_rule!(Nic, "colo_compare_sec_in", colo_compare_sec_in),
        text_rule!(Nic, "colo_compare_out", colo_compare_out),
        text_rule!(Nic, "colo_compare_notify_dev", colo_compare_notify_dev),
        text_rule!(Nic, "colo_sock_sec_redirector0_id", colo_sock_sec_redirector0_id),
        text_rule!(Nic, "colo_sock_sec_redirector0_ip", colo_sock_sec_redirector0_ip),
        text_rule!(Nic, "colo_sock_sec_redirector0_port", colo_sock_sec_redirector0_port),
        text_rule!(Nic, "colo_sock_sec_redirector1_id", colo_sock_sec_redirector1_id),
        text_rule!(Nic, "colo_sock_sec_redirector1_ip", colo_sock_sec_redirector1_ip),
        text_rule!(Nic, "colo_sock_sec_redirector1_port", colo_sock_sec_redirector1_port),
        text_rule!(Nic, "colo_filter_sec_redirector0_queue", colo_filter_sec_redirector0_queue),
        text_rule!(Nic, "colo_filter_sec_redirector0_indev", colo_filter_sec_redirector0_indev),
        text_rule!(Nic, "colo_filter_sec_redirector0_outdev", colo_filter_sec_redirector0_outdev),
        text_rule!(Nic, "colo_filter_sec_redirector1_queue", colo_filter_sec_redirector1_queue),
        text_rule!(Nic, "colo_filter_sec_redirector1_indev", colo_filter_sec_redirector1_indev),
        text_rule!(Nic, "colo_filter_sec_redirector1_outdev", colo_filter_sec_redirector1_outdev),
        text_rule!(Nic, "colo_filter_sec_rewriter0_queue", colo_filter_sec_rewriter0_queue),
        text_rule!(Nic, "colo_checkpoint_host", colo_checkpoint_host),
        text_rule!(Nic, "colo_checkpoint_port", colo_checkpoint_port),
    ];
}

#[cfg(test)]
mod tests {
    use super::super::scene::Scene;
    use super::{Class, Nics};
    use crate::retrieve::report::{Attachment, BackendState, Missing};

    fn scene() -> Scene {
        Scene::new(
            "nics",
            r#"{ "devid": 0, "mac": "00:16:3e:aa:bb:01", "bridge": "xenbr0", "nictype": "vif",
                 "model": "e1000" }"#,
            r#"
            /libxl/7/device/vif/0
                frontend = "/local/domain/7/device/vif/0"
                backend = "/local/domain/0/backend/vif/7/0"
                script = "/etc/xen/scripts/vif-bridge"
                mac = "00:16:3e:aa:bb:01"
                bridge = "xenbr0"
                handle = "0"
                type = "vif"
                hotplug-status = ""
            /local/domain/0/backend/vif/7/0
                mac = "00:16:3e:00:00:00"
                hotplug-status = "connected"
                state = "4"
            /local/domain/7/device/vif/0
                mac = "ff:ff:ff:ff:ff:ff"
                mtu = "1500"
                state = "4"
            "#,
        )
    }

    #[test]
    fn a_card_stays_whatever_its_backend_and_its_guest_write() {
        scene().stays();
        scene().entry(r#"{ "mac": null, "nictype": null, "bridge": null, "devid": null }"#).stays();
        scene().entry(r#"{ "mtu": 1500, "script": "vif-bridge" }"#).stays();
        scene().entry(r#"{ "backend_domname": "net" }"#).stays();
    }

    #[test]
    fn each_key_of_a_card_changes_its_field() {
        for (key, live, field, change) in [
            ("mac", "00:16:3e:00:00:02", "mac", r#"{ "mac": "00:16:3e:00:00:02" }"#),
            ("bridge", "br1", "bridge", r#"{ "bridge": "br1" }"#),
            ("mtu", "9000", "mtu", r#"{ "mtu": 9000 }"#),
            ("vlan", "12", "vlan", r#"{ "vlan": "12" }"#),
            ("ip", "10.0.0.2", "ip", r#"{ "ip": "10.0.0.2" }"#),
            ("vifname", "web0", "ifname", r#"{ "ifname": "web0" }"#),
            ("gatewaydev", "eth1", "gatewaydev", r#"{ "gatewaydev": "eth1" }"#),
            ("forwarddev", "eth2", "coloft_forwarddev", r#"{ "coloft_forwarddev": "eth2" }"#),
            ("type", "vif_ioemu", "nictype", r#"{ "nictype": "vif_ioemu" }"#),
            ("script", "/etc/xen/scripts/vif-route", "script", r#"{ "script": "vif-route" }"#),
            (
                "rate",
                "50000,50000",
                "rate_bytes_per_interval",
                r#"{ "rate_bytes_per_interval": 50000, "rate_interval_usecs": 50000 }"#,
            ),
        ] {
            let scene = if key == "mtu" { scene().entry(r#"{ "mtu": 1500 }"#) } else { scene() };
            scene.turns(key, live, field, change);
            // And back.
            let changed = scene.clone().entry(change).live(key, live);
            changed.clone().stays();
            if !matches!(key, "mac" | "type" | "script" | "mtu") {
                let mut without = changed.merge().entries("nics")[0].clone();
                let now = scene.clone().entry(change).gone(key).merge();
                for name in [field, "rate_interval_usecs"] {
                    without.as_object_mut().unwrap().remove(name);
                }
                assert_eq!(now.entries("nics")[0], without, "{key}");
            }
        }
    }

    #[test]
    fn every_text_key_has_the_field_of_its_name() {
        let colo = Nics::INFO.keys.iter().filter(|key| key.starts_with("colo_"));
        for key in colo {
            scene().turns(key, "x", key, &format!(r#"{{ "{key}": "x" }}"#));
        }
    }

    #[test]
    fn a_card_is_built() {
        scene().is_built_as(
            r#"{ "devid": 0, "mac": "00:16:3e:aa:bb:01", "bridge": "xenbr0", "nictype": "vif" }"#,
        );
        scene().live("rate", "1000,50000").live("mtu", "9000").is_built_as(
            r#"{ "devid": 0, "mac": "00:16:3e:aa:bb:01", "bridge": "xenbr0", "nictype": "vif",
                 "mtu": 9000, "rate_bytes_per_interval": 1000, "rate_interval_usecs": 50000 }"#,
        );
    }

    #[test]
    fn what_is_no_value_of_a_card_leaves_the_template() {
        scene().refuses("mac", &["", "00:16:3e", "00-16-3e-aa-bb-01"]);
        scene().entry(r#"{ "mtu": 1500 }"#).refuses("mtu", &["", "big", "99999999999"]);
        scene().refuses("rate", &["", "1000", "1000,", ",5", "1000,50000,1", "-1,50000"]);
        scene().refuses("type", &["", "virtio"]);
        scene().refuses("ip", &[]);
    }

    #[test]
    fn what_a_script_in_a_driver_domain_said_is_told() {
        let driver = "/local/domain/4/backend/vif/7/0";
        let outcome = scene()
            .gone("/local/domain/0")
            .live("backend", driver)
            .live(&format!("{driver}/state"), "2")
            .live(&format!("{driver}/hotplug-status"), "error")
            .live(&format!("{driver}/hotplug-error"), "no bridge")
            .merge();
        let half = Attachment::HalfAttached {
            backend_state: BackendState(2),
            missing: Missing::ScriptFailed("no bridge".to_owned()),
        };
        assert_eq!(outcome.only().attachment, half);
    }

    #[test]
    fn a_backend_in_a_driver_domain_is_followed() {
        let driver = "/local/domain/4/backend/vif/7/0";
        let elsewhere = scene().gone("/local/domain/0").live("backend", driver);
        let outcome = elsewhere.live(&format!("{driver}/state"), "4").merge();
        assert_eq!(outcome.config.nics[0].backend_domid.get(), 4);
        assert_eq!(outcome.only().changes[0].field, "backend_domid");
    }
}
