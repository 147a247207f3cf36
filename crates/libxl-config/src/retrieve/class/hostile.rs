//! Devices of every class, with anything at all in their keys.

use proptest::prelude::*;
use proptest::sample::select;
use xsclient::DomId;

use super::scene::Nodes;
use super::{ALL, ClassInfo};
use crate::retrieve::Policy;
use crate::retrieve::report::{DeviceClass, Presence};
use crate::{DomainConfig, Layout, Mode};

/// Values that some key takes, so that random ones are not all stopped at the first check.
const VALUES: [&str; 16] = [
    "0",
    "1",
    "2",
    "4",
    "5",
    "-1",
    "",
    "qcow2:/srv/a",
    "phy",
    "0000:03:00.0",
    "1-1.2",
    "800x600",
    "4294967295",
    "99999999999999999999",
    "permissive=1,",
    "virtio,device1",
];

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        select(&VALUES[..]).prop_map(|text| text.as_bytes().to_vec()),
        any::<Vec<u8>>(),
        "[ -~]{0,20}".prop_map(String::into_bytes),
    ]
}

/// A device's directories: which trees have one, and what is in them.
fn device() -> impl Strategy<Value = (&'static ClassInfo, Vec<(String, Vec<u8>)>)> {
    (select(ALL), select(&["0", "1", "51712", "x", "-1", "00"][..]), 1_u8..8).prop_flat_map(
        |(info, devid, trees)| {
            let kind = info.kinds[0];
            let backend = format!("/local/domain/0/backend/{}/7/{devid}", info.backend_kinds[0]);
            let toolstack = format!("/libxl/7/device/{kind}/{devid}");
            let frontend = format!("/local/domain/7/device/{kind}/{devid}");
            let keys: Vec<String> = info
                .keys
                .iter()
                .map(|key| if key.ends_with('-') { format!("{key}0") } else { (*key).to_owned() })
                .chain(["port/1", "state", "online"].map(str::to_owned))
                .collect();
            let mut paths = Vec::new();
            for (bit, directory) in [(1, &toolstack), (2, &backend)] {
                if trees & bit != 0 {
                    paths.extend(keys.iter().map(|key| format!("{directory}/{key}")));
                }
            }
            if trees & 4 != 0 {
                let below = ["", "0/", "0/0/"].iter();
                let all = below.flat_map(|at| info.frontend_keys.iter().map(move |key| (at, key)));
                paths.extend(all.map(|(at, key)| format!("{frontend}/{at}{key}")));
                paths.push(format!("{frontend}/state"));
            }
            let values = proptest::collection::vec(value(), paths.len());
            values.prop_map(move |values| {
                let mut nodes: Vec<_> = paths.iter().cloned().zip(values).collect();
                let here = backend.clone().into_bytes();
                for (bit, directory) in [(1, &toolstack), (4, &frontend)] {
                    if trees & bit != 0 {
                        nodes.push((format!("{directory}/backend"), here.clone()));
                    }
                }
                (info, nodes)
            })
        },
    )
}

/// How many devices a configuration has.
fn count(config: &DomainConfig) -> usize {
    let whole = serde_json::to_value(config).unwrap();
    let arrays = whole.as_object().unwrap().values().filter_map(serde_json::Value::as_array);
    arrays.map(Vec::len).sum()
}

proptest! {
    /// Whoever wrote the keys: nothing panics, no device goes without a report, and what is built can be stored.
    #[test]
    fn whatever_stands_in_its_keys_a_device_is_reported((info, nodes) in device(), main in any::<bool>()) {
        let mut xenstore = Nodes::default();
        xenstore.add("/local/domain/7/name = \"d\"");
        if main {
            xenstore.add("/libxl/7/dm-version = \"qemu_xen\"");
        }
        for (path, value) in nodes {
            xenstore.insert(path, value);
        }
        for policy in [Policy::LiveWins, Policy::Union, Policy::Template] {
            let template = DomainConfig::default();
            let outcome = xenstore.merge(DomId::new(7), template, None, policy);
            let reports = &outcome.reports;
            prop_assert!(!reports.is_empty() || info.class == DeviceClass::Pci, "{}", info.class);
            prop_assert!(reports.iter().all(|report| report.presence == Presence::XenstoreOnly));
            let built = reports.iter().filter(|report| report.in_configuration).count();
            prop_assert_eq!(built, count(&outcome.config));
            let stored = outcome.config.to_json(Layout::Yajl);
            let read = DomainConfig::read(stored.as_bytes(), Mode::Strict).unwrap();
            prop_assert_eq!(read.config, outcome.config);
        }
    }
}
