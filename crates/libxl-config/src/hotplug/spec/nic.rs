//! Nics: `mac=00:16:3e:00:00:01,bridge=xenbr0`.

use super::{SpecError, backend, defbool, rate};
use crate::model::{DevId, Mac, Nic, NicType};

const KNOWN: &str = "known are type, mac, bridge, gatewaydev, ip, script, backend, vifname, model, rate, devid, mtu, vlan, \
                     trusted, untrusted";

/// Reads a nic. Nothing at all is one too: all of it is then chosen.
///
/// # Errors
/// What is wrong with it.
pub fn nic(text: &str) -> Result<Nic, SpecError> {
    let mut nic = Nic::default();
    let mut said: Vec<(&str, &str)> = Vec::new();
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let (key, value) = match item {
            "trusted" => ("trusted", "1"),
            "untrusted" => ("trusted", "0"),
            _ => {
                let pair = item.split_once('=');
                let (key, value) =
                    pair.ok_or_else(|| SpecError::NotAPair { item: item.to_owned() })?;
                (key.trim(), value.trim())
            }
        };
        let key = if key == "netdev" { "gatewaydev" } else { key };
        set(&mut nic, key, value)?;
        if let Some((_, first)) = said.iter().find(|(before, _)| *before == key)
            && *first != value
        {
            let (first, second) = ((*first).to_owned(), value.to_owned());
            return Err(SpecError::Twice { key: name_of(key), first, second });
        }
        said.push((key, value));
    }
    Ok(nic)
}

fn set(nic: &mut Nic, key: &str, value: &str) -> Result<(), SpecError> {
    let wrong = |key: &'static str, wanted: &'static str| SpecError::Value {
        key,
        value: value.to_owned(),
        wanted,
    };
    let text = || Some(value.to_owned());
    match key {
        "type" => {
            nic.nictype = match value {
                "vif" => NicType::Vif,
                "ioemu" => NicType::VifIoemu,
                _ => return Err(wrong("type", "vif or ioemu")),
            }
        }
        "mac" => {
            let mac = Mac::parse_text(value).filter(|mac| *mac != Mac::UNSET);
            nic.mac = mac.ok_or_else(|| wrong("mac", "six pairs of hexadecimal digits"))?;
        }
        "bridge" => nic.bridge = text(),
        "gatewaydev" => nic.gatewaydev = text(),
        "ip" => nic.ip = text(),
        "script" => nic.script = text(),
        "backend" => (nic.backend_domid, nic.backend_domname) = backend(value),
        "vifname" => nic.ifname = text(),
        "model" => nic.model = text(),
        "rate" => {
            let rate = rate::parse(value);
            (nic.rate_bytes_per_interval, nic.rate_interval_usecs) =
                rate.ok_or_else(|| wrong("rate", "a rate like 10Mb/s or 250KB/s@20ms"))?;
        }
        "devid" => {
            let devid = value.parse::<u16>().ok();
            nic.devid = DevId::new(devid.ok_or_else(|| wrong("devid", "a number"))?.into());
        }
        "mtu" => {
            let mtu = value.parse::<u16>().ok().filter(|mtu| *mtu >= 68);
            nic.mtu = mtu.ok_or_else(|| wrong("mtu", "a number from 68 to 65535"))?.into();
        }
        "vlan" => nic.vlan = text(),
        "trusted" => {
            nic.trusted = match value {
                "0" | "1" => defbool(value == "1"),
                _ => return Err(wrong("trusted", "0 or 1")),
            }
        }
        // Long without meaning.
        "accel" => {}
        _ => return Err(SpecError::UnknownKey { key: key.to_owned(), known: KNOWN }),
    }
    Ok(())
}

/// The known spelling of a key that has been read already.
fn name_of(key: &str) -> &'static str {
    const NAMES: [&str; 15] = [
        "type",
        "mac",
        "bridge",
        "gatewaydev",
        "ip",
        "script",
        "backend",
        "vifname",
        "model",
        "rate",
        "devid",
        "mtu",
        "vlan",
        "trusted",
        "accel",
    ];
    NAMES.into_iter().find(|name| *name == key).unwrap_or("a key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_field() {
        let made = nic(
            "type=vif, mac=00:16:3E:aa:bb:02, bridge=xenbr0, ip=10.0.0.7, rate=10Mb/s, devid=3, mtu=9000, vifname=web0, \
             script=vif-route, netdev=eth0, vlan=10p, untrusted, accel=x",
        )
        .unwrap();
        let entry = serde_json::to_value(&made).unwrap();
        assert_eq!(
            entry,
            serde_json::json!({
                "devid": 3, "mtu": 9000, "vlan": "10p", "mac": "00:16:3e:aa:bb:02", "ip": "10.0.0.7",
                "bridge": "xenbr0", "ifname": "web0", "script": "vif-route", "nictype": "vif",
                "rate_bytes_per_interval": 62500, "rate_interval_usecs": 50000, "gatewaydev": "eth0",
                "trusted": "False",
            })
        );
        assert_eq!(nic("").unwrap(), Nic::default());
        assert_eq!(nic("backend=net").unwrap().backend_domname.as_deref(), Some("net"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("mac=00:16:3e", "mac: \"00:16:3e\" is not six pairs"),
            ("mac=00:00:00:00:00:00", "not six pairs"),
            ("bridge", "\"bridge\" is not KEY=VALUE"),
            ("bridg=xenbr0", "\"bridg\" is not known here"),
            ("rate=fast", "rate: \"fast\""),
            ("devid=-1", "devid: \"-1\" is not a number"),
            ("mtu=7", "mtu: \"7\""),
            ("type=e1000", "type: \"e1000\" is not vif or ioemu"),
            ("bridge=a,bridge=b", "bridge is given twice, as \"a\" and as \"b\""),
        ] {
            let error = nic(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
