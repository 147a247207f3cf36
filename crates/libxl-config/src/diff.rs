//! What differs between two configurations.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;

use serde::Serialize;

use crate::json::{JsonPath, Object, Step, Value};
use crate::model::DomainConfig;
use crate::model::field::{Field, Style};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Change {
    /// Where; devices by what identifies them, as in `$.disks[vdev=xvda].format`.
    pub path: JsonPath,
    /// The value in the first configuration; `None` if it is at its default or not there.
    pub before: Option<Value>,
    /// The value in the second.
    pub after: Option<Value>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| match value {
            None => "nothing".to_owned(),
            Some(Value::Object(_) | Value::Array(_)) => compact(value.as_ref()),
            Some(value) => value.to_text(crate::Layout::JsonC).replace("\\/", "/"),
        };
        write!(f, "{}: {} -> {}", self.path, show(&self.before), show(&self.after))
    }
}

/// The differences between two configurations, in the order of the schema.
///
/// Meaning is compared, not spelling: a default written out equals one left out, and the order of devices does not
/// count. Unknown keys are compared too. Devices are matched by identity (`vdev`, `devid`, the PCI address, `ctrl` and
/// `port`, `tag`, `path`), those whose identity is the same or unset by their order.
///
/// ```
/// use libxl_config::{DomainConfig, Mode, diff};
///
/// let read = |text: &str| DomainConfig::read(text.as_bytes(), Mode::Lenient);
/// let a = read(r#"{"disks": [{"vdev": "xvda"}, {"vdev": "xvdb"}]}"#)?.config;
/// let b = read(r#"{"disks": [{"vdev": "xvdb", "readwrite": 1}]}"#)?.config;
/// let changes: Vec<String> = diff(&a, &b).iter().map(|change| change.to_string()).collect();
/// assert_eq!(changes, [
///     r#"$.disks[vdev=xvda]: {"vdev":"xvda"} -> nothing"#,
///     "$.disks[vdev=xvdb].readwrite: nothing -> 1",
/// ]);
/// # Ok::<(), libxl_config::ReadError>(())
/// ```
pub fn diff(a: &DomainConfig, b: &DomainConfig) -> Vec<Change> {
    let mut changes = Vec::new();
    let (a, b) = (a.emit(None, Style::Canonical), b.emit(None, Style::Canonical));
    compare(&JsonPath::root(), Some(&a), Some(&b), &mut changes);
    changes
}

fn compare(path: &JsonPath, a: Option<&Value>, b: Option<&Value>, changes: &mut Vec<Change>) {
    if a == b {
        return;
    }
    if let (Some(a), Some(b)) = (records(a), records(b))
        && !(a.is_empty() && b.is_empty())
    {
        return compare_records(path, a, b, changes);
    }
    match (a, b) {
        (Some(Value::Object(a)), Some(Value::Object(b))) if distinct(a) && distinct(b) => {
            compare_objects(path, a, b, changes);
        }
        _ => changes.push(Change { path: path.clone(), before: a.cloned(), after: b.cloned() }),
    }
}

fn compare_objects(path: &JsonPath, a: &Object, b: &Object, changes: &mut Vec<Change>) {
    let in_a: HashSet<&str> = a.members().iter().map(|member| &*member.key).collect();
    let values: HashMap<&str, &Value> =
        b.members().iter().map(|member| (&*member.key, &member.value)).collect();
    for member in a.members() {
        let path = path.join(Step::Key(crate::json::shorten(&member.key)));
        compare(&path, Some(&member.value), values.get(&*member.key).copied(), changes);
    }
    for member in b.members().iter().filter(|member| !in_a.contains(&*member.key)) {
        let path = path.join(Step::Key(crate::json::shorten(&member.key)));
        compare(&path, None, Some(&member.value), changes);
    }
}

/// Elements matched by identity; those of the same identity by their order.
fn compare_records(path: &JsonPath, a: &[Value], b: &[Value], changes: &mut Vec<Change>) {
    let list = path.steps().last().and_then(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        _ => None,
    });
    let identify = |index: usize, record: &Value| identity(list.unwrap_or_default(), index, record);
    let mut others: HashMap<Step, VecDeque<&Value>> = HashMap::new();
    for (index, record) in b.iter().enumerate() {
        others.entry(identify(index, record)).or_default().push_back(record);
    }
    for (index, record) in a.iter().enumerate() {
        let step = identify(index, record);
        let other = others.get_mut(&step).and_then(VecDeque::pop_front);
        compare(&path.join(step), Some(record), other, changes);
    }
    for (index, record) in b.iter().enumerate() {
        let step = identify(index, record);
        let left = others
            .get_mut(&step)
            .filter(|left| left.front().is_some_and(|left| std::ptr::eq(*left, record)));
        if left.and_then(VecDeque::pop_front).is_some() {
            compare(&path.join(step), None, Some(record), changes);
        }
    }
}

/// What identifies an element of a list, as libxl compares devices; elsewhere its position.
fn identity(list: &str, index: usize, record: &Value) -> Step {
    let text = |field: &'static str| {
        let value = match record.get(field) {
            Some(Value::String(text)) => crate::json::shorten(text),
            Some(Value::Number(number)) => number.lexeme().into_owned(),
            _ => "unset".to_owned(),
        };
        Step::Device { field, value }
    };
    let number = |field: &str| match record.get(field) {
        Some(Value::Number(number)) => number.integer().unwrap_or_default(),
        _ => 0,
    };
    match list {
        "disks" => text("vdev"),
        "nics" | "vtpms" | "vkbs" | "vfbs" | "pvcallsifs" | "vdispls" | "vsnds" | "channels"
        | "usbctrls" | "virtios" => text("devid"),
        "p9s" => text("tag"),
        "dtdevs" => text("path"),
        "rdms" => text("start"),
        "connectors" | "streams" => text("unique_id"),
        "pcms" | "quota" => text("name"),
        "pcidevs" => {
            let (domain, bus, dev, func) =
                (number("domain"), number("bus"), number("dev"), number("func"));
            Step::Device {
                field: "bdf",
                value: format!("{domain:04x}:{bus:02x}:{dev:02x}.{func:x}"),
            }
        }
        "usbdevs" => {
            let ctrl = record.get("ctrl").map_or(-1, |_| number("ctrl"));
            Step::Device { field: "port", value: format!("{ctrl}:{}", number("port")) }
        }
        _ => Step::Index(index),
    }
}

/// A list of objects; one that is not there is an empty one.
fn records(value: Option<&Value>) -> Option<&[Value]> {
    let Some(value) = value else { return Some(&[]) };
    value.as_array().filter(|list| list.iter().all(|element| element.as_object().is_some()))
}

fn distinct(object: &Object) -> bool {
    let mut seen = HashSet::with_capacity(object.len());
    object.members().iter().all(|member| seen.insert(&*member.key))
}

/// On one line, for a message.
fn compact(value: Option<&Value>) -> String {
    let quote = |text: &str| Value::from(text).to_text(crate::Layout::JsonC).replace("\\/", "/");
    match value {
        None => String::new(),
        Some(Value::Array(elements)) => {
            let elements: Vec<String> =
                elements.iter().map(|element| compact(Some(element))).collect();
            format!("[{}]", elements.join(","))
        }
        Some(Value::Object(object)) => {
            let members: Vec<String> = object
                .members()
                .iter()
                .map(|member| format!("{}:{}", quote(&member.key), compact(Some(&member.value))))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Some(value) => value.to_text(crate::Layout::JsonC).replace("\\/", "/"),
    }
}
