//! One device, in the template and in Xenstore: what the tests of the classes merge.
//!
//! A [`Scene`] starts where both agree; each check changes one thing and says what has to come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use serde_json::{Value, json};
use xsclient::{DomId, Errno, Name, Path};

use crate::retrieve::merge::{self, Merged, Views};
use crate::retrieve::observed::{Answer, Ask, Observed};
use crate::retrieve::plan::{self, LEVELS, Trees};
use crate::retrieve::report::{DeviceNote, DeviceReport, Presence, Unseen};
use crate::retrieve::view::{DomainView, VALUE_LEN_MAX};
use crate::retrieve::{HypervisorDomain, HypervisorView, Policy};
use crate::{DomainConfig, Mode};

/// The domain of every scene.
const DOMID: u16 = 7;

/// A domain with one device.
#[derive(Clone)]
pub(super) struct Scene {
    /// The array of the configuration: `disks`.
    array: &'static str,
    /// Its entries in the template.
    entries: Vec<Value>,
    /// The whole of Xenstore.
    nodes: Nodes,
    /// The first directory of the text, below which are the keys that the checks name.
    device: String,
    domain_type: &'static str,
    policy: Policy,
    host: Option<Host>,
}

/// Xenstore: values by path.
#[derive(Clone, Default)]
pub(super) struct Nodes(BTreeMap<String, Vec<u8>>);

/// What merging came to.
pub(super) struct Outcome {
    pub(super) config: DomainConfig,
    pub(super) reports: Vec<DeviceReport>,
    pub(super) unseen: Vec<Unseen>,
}

/// A host with one USB device.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) bus_id: &'static str,
    pub(super) address: (u8, u8),
}

impl Scene {
    /// `entry` is the template's, as JSON. `xenstore` is like what `xenstore-ls -f` prints, but that a line with a path
    /// alone stands for the beginning of those below it:
    ///
    /// ```text
    /// /libxl/7/device/vtpm/0
    ///     handle = "0"
    /// /local/domain/0/backend/vtpm/7/0
    ///     state = "4"
    /// ```
    pub(super) fn new(array: &'static str, entry: &str, xenstore: &str) -> Self {
        let mut scene = Self {
            array,
            entries: vec![serde_json::from_str(entry).unwrap()],
            nodes: Nodes::default(),
            device: String::new(),
            domain_type: "pv",
            policy: Policy::LiveWins,
            host: None,
        };
        scene.nodes.add("/local/domain/7/name = \"d\"\n/libxl/7/dm-version = \"qemu_xen\"");
        scene.nodes.add(xenstore);
        let mut lines = xenstore.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.next().unwrap().clone_into(&mut scene.device);
        scene
    }

    pub(super) fn hvm(mut self) -> Self {
        self.domain_type = "hvm";
        self
    }

    pub(super) fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    pub(super) fn host(mut self, host: Host) -> Self {
        self.host = Some(host);
        self
    }

    /// With other entries in the template, as JSON.
    pub(super) fn entries(mut self, entries: &[&str]) -> Self {
        self.entries = entries.iter().map(|entry| serde_json::from_str(entry).unwrap()).collect();
        self
    }

    /// With fields of the template's entry changed, as JSON; `null` takes a field away.
    pub(super) fn entry(mut self, change: &str) -> Self {
        patch(&mut self.entries[0], &serde_json::from_str(change).unwrap());
        self
    }

    /// With another value of a key of the device, or of a whole path.
    pub(super) fn live(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.nodes.0.insert(self.path(key), value.as_ref().to_owned());
        self
    }

    /// Without a key of the device, or a whole path and all below it.
    pub(super) fn gone(mut self, key: &str) -> Self {
        let path = self.path(key);
        let below = format!("{path}/");
        self.nodes.0.retain(|node, _| *node != path && !node.starts_with(&below));
        self
    }

    /// The entry comes out as it stands in the template, and nothing is reported.
    #[track_caller]
    pub(super) fn stays(self) {
        let outcome = self.merge();
        let report = outcome.only();
        assert_eq!(outcome.entries(self.array), self.normal(&self.entries));
        assert_eq!(report.presence, Presence::Both, "{report:#?}");
        assert!(report.changes.is_empty() && report.problems.is_empty(), "{report:#?}");
    }

    /// With another value of a key, that one field of the entry changes, and the report says so.
    #[track_caller]
    pub(super) fn turns(&self, key: &str, live: &str, field: &str, change: &str) {
        let outcome = self.clone().live(key, live).merge();
        let report = outcome.expect_change(self, field, change);
        assert_eq!(report.changes[0].live.as_deref(), Some(live), "{report:#?}");
    }

    /// The same without the key.
    #[track_caller]
    pub(super) fn turns_without(&self, key: &str, field: &str, change: &str) {
        let outcome = self.clone().gone(key).merge();
        let report = outcome.expect_change(self, field, change);
        assert_eq!(report.changes[0].live, None, "{report:#?}");
    }

    /// Without its entry in the template, the device is built as this, and nothing is reported as bad.
    #[track_caller]
    pub(super) fn is_built_as(&self, entry: &str) {
        let outcome = self.clone().entries(&[]).merge();
        let report = outcome.only();
        let entry = serde_json::from_str(entry).unwrap();
        assert_eq!(outcome.entries(self.array), self.normal(&[entry]), "{report:#?}");
        assert_eq!(report.presence, Presence::XenstoreOnly, "{report:#?}");
        assert_eq!(report.note, Some(DeviceNote::Built), "{report:#?}");
        assert!(report.changes.is_empty() && report.problems.is_empty(), "{report:#?}");
    }

    /// Whatever stands there that is no value for the key, the entry stays and the report names the key.
    #[track_caller]
    pub(super) fn refuses(&self, key: &str, malformed: &[&str]) {
        let oversized = "1".repeat(VALUE_LEN_MAX + 1);
        let hostile: [&[u8]; 3] = [b"\xff\xfe", b"1\x1b[2J", oversized.as_bytes()];
        for value in malformed.iter().map(|text| text.as_bytes()).chain(hostile) {
            let outcome = self.clone().live(key, value).merge();
            let report = outcome.only();
            let shown = value[..value.len().min(40)].escape_ascii();
            assert_eq!(outcome.entries(self.array), self.normal(&self.entries), "{key} = {shown}");
            assert!(report.changes.is_empty(), "{key} = {shown}: {report:#?}");
            assert_eq!(report.problems.len(), 1, "{key} = {shown}: {report:#?}");
            assert_eq!(report.problems[0].at, key, "{key} = {shown}: {report:#?}");
        }
    }

    pub(super) fn merge(&self) -> Outcome {
        let host = self.host.as_ref().map(|host| -> &dyn HypervisorView { host });
        self.nodes.merge(DomId::new(DOMID), self.config(&self.entries), host, self.policy)
    }

    fn path(&self, key: &str) -> String {
        if key.starts_with('/') { key.to_owned() } else { format!("{}/{key}", self.device) }
    }

    fn config(&self, entries: &[Value]) -> DomainConfig {
        let text = json!({
            "c_info": { "type": self.domain_type, "name": "d" },
            "b_info": { format!("type.{}", self.domain_type): {} },
            self.array: entries,
        });
        DomainConfig::read(text.to_string().as_bytes(), Mode::Strict).unwrap().config
    }

    fn normal(&self, entries: &[Value]) -> Value {
        entries_of(&self.config(entries), self.array)
    }
}

impl Nodes {
    pub(super) fn insert(&mut self, path: String, value: Vec<u8>) {
        self.0.insert(path, value);
    }

    /// Adds the nodes of a text in the form that [`Scene::new`] describes.
    pub(super) fn add(&mut self, text: &str) {
        let mut directory = "";
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let Some((key, rest)) = line.split_once(" = \"") else {
                directory = line;
                continue;
            };
            // Behind the value may stand the permissions.
            let value = &rest[..rest.rfind('"').unwrap()];
            let path = if key.starts_with('/') { key.into() } else { format!("{directory}/{key}") };
            self.0.insert(path, value.into());
        }
    }

    /// Merges a template with these nodes.
    pub(super) fn merge(
        &self,
        domid: DomId,
        template: DomainConfig,
        hypervisor: Option<&dyn HypervisorView>,
        policy: Policy,
    ) -> Outcome {
        let trees = Trees::of(domid);
        let view = DomainView::of(&trees, &self.observe(&trees));
        let views = Views { view: &view, domain: None, hypervisor, policy, attachments: true };
        let Merged { config, devices, unseen, .. } = merge::merge(Some(template), views);
        Outcome { config, reports: devices, unseen }
    }

    /// Reads as the real thing does.
    fn observe(&self, trees: &Trees) -> Observed {
        let mut seen = Observed::default();
        for _ in 0..LEVELS {
            for ask in plan::wanted(trees, &seen) {
                let answer = match &ask {
                    Ask::Value(path) => Answer::Value(self.value(path)),
                    Ask::Children(path) => Answer::Children(self.children(path)),
                };
                seen.insert(ask.into_path(), answer);
            }
        }
        assert_eq!(plan::wanted(trees, &seen), BTreeSet::new(), "more than {LEVELS} levels");
        seen
    }

    fn value(&self, path: &Path) -> Result<Vec<u8>, Errno> {
        match self.0.get(path.as_str()) {
            Some(value) => Ok(value.clone()),
            None => self.children(path).map(|_| Vec::new()),
        }
    }

    fn children(&self, path: &Path) -> Result<Vec<Name>, Errno> {
        let below = format!("{path}/");
        let nodes = self.0.range(below.clone()..).map(|(node, _)| node);
        let names: BTreeSet<&str> = nodes
            .map_while(|node| node.strip_prefix(&below))
            .filter_map(|node| node.split('/').next())
            .collect();
        if names.is_empty() && !self.0.contains_key(path.as_str()) {
            return Err(Errno::ENOENT);
        }
        Ok(names.into_iter().map(|name| name.parse().unwrap()).collect())
    }
}

impl Outcome {
    /// The one device there is.
    #[track_caller]
    pub(super) fn only(&self) -> &DeviceReport {
        assert_eq!(self.reports.len(), 1, "{:#?}", self.reports);
        &self.reports[0]
    }

    pub(super) fn entries(&self, array: &str) -> Value {
        entries_of(&self.config, array)
    }

    #[track_caller]
    fn expect_change(&self, scene: &Scene, field: &str, change: &str) -> &DeviceReport {
        let report = self.only();
        let expected = scene.clone().entry(change);
        assert_eq!(self.entries(scene.array), scene.normal(&expected.entries), "{report:#?}");
        let fields: Vec<&str> = report.changes.iter().map(|change| change.field).collect();
        assert_eq!(fields, [field], "{report:#?}");
        assert!(report.problems.is_empty(), "{report:#?}");
        report
    }
}

impl HypervisorView for Host {
    fn domain(
        &self,
        _domid: DomId,
    ) -> Result<Option<HypervisorDomain>, Box<dyn Error + Send + Sync>> {
        Ok(None)
    }

    fn usb_address(&self, bus_id: &str) -> Option<(u8, u8)> {
        (bus_id == self.bus_id).then_some(self.address)
    }
}

/// An array of the configuration as JSON, whatever it was read from.
fn entries_of(config: &DomainConfig, array: &str) -> Value {
    let mut fresh = config.clone();
    fresh.forget_source();
    let whole = serde_json::to_value(&fresh).unwrap();
    whole.get(array).cloned().unwrap_or_else(|| json!([]))
}

fn patch(value: &mut Value, change: &Value) {
    let (Value::Object(value), Value::Object(change)) = (value, change) else { return };
    for (key, change) in change {
        match (value.get_mut(key), change) {
            (_, Value::Null) => {
                value.remove(key);
            }
            (Some(inner @ Value::Object(_)), Value::Object(_)) => patch(inner, change),
            _ => {
                value.insert(key.clone(), change.clone());
            }
        }
    }
}
