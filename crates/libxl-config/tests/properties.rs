//! Properties of reading and writing, over documents that follow the schema to any degree.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a property that cannot be stated must fail"
)]

use std::collections::HashMap;

use libxl_config::json::{Number, Object, Value};
use libxl_config::model::{self, FieldInfo};
use libxl_config::{DomainConfig, FindingKind, Layout, Mode, check_stability, diff, json};
use proptest::collection::vec;
use proptest::prelude::*;

/// Turns octets into a document; no octets left gives an empty one, so that failures shrink.
struct Maker {
    choices: std::vec::IntoIter<u8>,
    structs: HashMap<&'static str, Vec<FieldInfo>>,
    enums: HashMap<&'static str, Vec<&'static str>>,
    /// Whether to break the rules now and then.
    wild: bool,
    unknown: usize,
}

impl Maker {
    fn new(choices: Vec<u8>, wild: bool) -> Maker {
        Maker {
            choices: choices.into_iter(),
            structs: model::structs().into_iter().map(|info| (info.name, info.fields)).collect(),
            enums: model::enums()
                .into_iter()
                .map(|info| (info.name, info.values.iter().map(|(name, _)| *name).collect()))
                .collect(),
            wild,
            unknown: 0,
        }
    }

    fn choose(&mut self) -> u8 {
        self.choices.next().unwrap_or(0)
    }

    fn number(&mut self) -> u64 {
        let octets = u64::from(self.choose() % 9);
        (0..octets).fold(0, |number, _| number << 8 | u64::from(self.choose()))
    }

    fn text(&mut self) -> String {
        let pieces =
            ["", "a", "/", "\"", "\\", "\n", "\u{7f}", "é", "\u{1f}", "xvda", "😀", "\u{fffd}"];
        (0..self.choose() % 4).map(|_| pieces[usize::from(self.choose()) % pieces.len()]).collect()
    }

    fn record(&mut self, name: &str) -> Value {
        let mut object = Object::new();
        let fields = self.structs.get(name).cloned().unwrap_or_default();
        let count = self.choose() % 6;
        let mut picked: Vec<usize> = (0..count).map(|_| usize::from(self.choose())).collect();
        // The two big ones are where the rest hangs.
        if name == "domain_config" {
            picked.extend([0, 1]);
        }
        if !fields.is_empty() {
            picked.iter_mut().for_each(|index| *index %= fields.len());
        }
        if !self.wild {
            picked.sort_unstable();
            picked.dedup();
        }
        for index in picked {
            let Some(field) = fields.get(index) else { break };
            self.field(name, field, &mut object);
            if self.choose() % 8 == 1 {
                self.unknown += 1;
                object.push(format!("x-{}", self.unknown), u64::try_from(self.unknown).unwrap());
            }
        }
        object.into()
    }

    fn field(&mut self, record: &str, field: &FieldInfo, object: &mut Object) {
        if let Some(discriminator) = field.schema_type.strip_prefix("keyed-union of ") {
            let choice = usize::from(self.choose());
            let names = &self.enums[discriminator];
            let variant = names[choice % names.len()];
            let payload = self.record(&format!("{record}.{variant}"));
            object.push(format!("{}.{variant}", field.name), payload);
            return;
        }
        let value = if self.wild && self.choose() % 4 == 1 {
            self.anything(3)
        } else {
            self.value(&field.schema_type)
        };
        object.push(field.name, value);
    }

    fn value(&mut self, kind: &str) -> Value {
        if let Some(element) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            return (0..self.choose() % 4).map(|_| self.value(element)).collect();
        }
        if self.structs.contains_key(kind) {
            return self.record(kind);
        }
        if let Some(names) = self.enums.get(kind).cloned() {
            return names[usize::from(self.choose()) % names.len()].into();
        }
        let number = self.number();
        match kind {
            "bool" => (number % 2 == 1).into(),
            "defbool" => ["True", "False", "<default>"][usize::from(self.choose()) % 3].into(),
            "u8" => (number % 256).into(),
            "u32" | "domid" => (number % (1 << 32)).into(),
            "u64" => (number >> 1).into(),
            "i32" | "devid" => {
                i64::from(i32::try_from(number % (1 << 31)).unwrap() - i32::from(number % 2 == 1))
                    .into()
            }
            "string" => self.text().into(),
            "uuid" => uuid::Uuid::from_u128(u128::from(number) << 32).to_string().into(),
            "mac" => format!("00:16:3e:00:00:{:02x}", number % 256).into(),
            "bitmap" => (0..number % 5).map(|bit| Value::from(bit * 3)).collect(),
            "key_value_list" => {
                let keys: Vec<String> = (0..number % 3).map(|key| format!("k{key}")).collect();
                keys.into_iter()
                    .map(|key| (key, Value::from(self.text())))
                    .collect::<Object>()
                    .into()
            }
            "ms_vm_genid" => (0..16).map(|index| Value::from((number >> index) % 256)).collect(),
            "cpuid_policy_list" => {
                let leaf: Object =
                    [("leaf", Value::from(number % (1 << 32))), ("eax", self.text().into())]
                        .into_iter()
                        .collect();
                Value::Array(vec![leaf.into()])
            }
            other => unreachable!("a schema type {other}"),
        }
    }

    fn anything(&mut self, depth: usize) -> Value {
        match self.choose() % if depth == 0 { 5 } else { 7 } {
            0 => Value::Null,
            1 => true.into(),
            2 => i64::try_from(self.number() >> 1).map(|number| number - 5).unwrap().into(),
            3 => self.odd_number(),
            4 => self.text().into(),
            5 => (0..self.choose() % 4).map(|_| self.anything(depth - 1)).collect(),
            _ => {
                let keys = ["cpuid", "msr", "leaf", "type.hvm", "name", "é"];
                let count = self.choose() % 4;
                let mut object = Object::new();
                for _ in 0..count {
                    let key = keys[usize::from(self.choose()) % keys.len()];
                    object.push(key, self.anything(depth - 1));
                }
                object.into()
            }
        }
    }

    fn odd_number(&mut self) -> Value {
        let lexemes = [
            "-1",
            "1e3",
            "007",
            "NaN",
            "-Infinity",
            "18446744073709551616",
            "0.5",
            "1.",
            "9e99",
            "4294967295",
        ];
        let lexeme = lexemes[usize::from(self.choose()) % lexemes.len()];
        json::parse(lexeme.as_bytes(), Mode::Lenient).expect("a lexeme the parser takes").value
    }
}

fn document(choices: Vec<u8>, wild: bool) -> Value {
    Maker::new(choices, wild).record("domain_config")
}

fn choices() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..600)
}

/// The members this test has strewn in, in order.
fn unknown_members(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for member in object.members() {
                if member.key.starts_with("x-") {
                    found.push(member.key.to_string());
                }
                unknown_members(&member.value, found);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                unknown_members(element, found);
            }
        }
        _ => {}
    }
}

/// The document without one member, and how many there were of its name at each level.
fn without(value: &Value, path: &[&str]) -> (Value, usize) {
    let (Value::Object(object), Some((key, rest))) = (value, path.split_first()) else {
        return (value.clone(), 1);
    };
    let mut count = 0;
    let mut left = Object::new();
    for member in object.members() {
        if *member.key != **key {
            left.push(member.key.clone(), member.value.clone());
            continue;
        }
        count += 1;
        if !rest.is_empty() {
            let (value, below) = without(&member.value, rest);
            count = count.max(below);
            left.push(member.key.clone(), value);
        }
    }
    (left.into(), count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_octets_are_read_or_refused(octets in vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(check_stability(&octets), Ok(()));
    }

    #[test]
    fn octets_like_json_are_stable(text in "[\\[\\]{}:,\"' \\\\/*0-9a-fA-FutrnlsNIieE.+-]{0,80}") {
        prop_assert_eq!(check_stability(text.as_bytes()), Ok(()));
    }

    #[test]
    fn documents_around_the_schema_are_stable(choices in choices()) {
        let text = document(choices, true).to_octets(Layout::JsonC);
        prop_assert_eq!(check_stability(&text), Ok(()));
    }

    #[test]
    fn one_broken_octet_keeps_a_document_stable(choices in choices(), at in any::<prop::sample::Index>(), octet in any::<u8>()) {
        let mut text = document(choices, true).to_octets(Layout::Yajl);
        let at = at.index(text.len());
        text[at] = octet;
        prop_assert_eq!(check_stability(&text), Ok(()));
    }

    #[test]
    fn what_is_read_and_not_changed_is_written_as_it_was(choices in choices()) {
        let document = document(choices, true);
        let read = DomainConfig::read_value(&document, Mode::Lenient).unwrap();
        prop_assert_eq!(read.config.to_value(), document);
    }

    #[test]
    fn documents_survive_both_layouts(choices in choices()) {
        let document = document(choices, true);
        for layout in [Layout::Yajl, Layout::JsonC] {
            let parsed = json::parse(&document.to_octets(layout), Mode::Lenient).unwrap();
            prop_assert_eq!(&parsed.value, &document);
        }
    }

    #[test]
    fn any_string_survives_both_layouts(octets in vec(any::<u8>(), 0..40)) {
        let quoted: Vec<u8> = octets.into_iter().filter(|octet| !matches!(octet, b'"' | b'\\')).collect();
        let text = [b"\"".as_slice(), &quoted, b"\""].concat();
        let value = json::parse(&text, Mode::Lenient).unwrap().value;
        for layout in [Layout::Yajl, Layout::JsonC] {
            prop_assert_eq!(&json::parse(&value.to_octets(layout), Mode::Lenient).unwrap().value, &value);
        }
    }

    #[test]
    fn a_new_configuration_survives_both_layouts_without_a_finding(choices in choices()) {
        let read = DomainConfig::read_value(&document(choices, false), Mode::Lenient).unwrap();
        let mut config = read.config;
        config.forget_source();
        config.c_info.domain_type = model::DomainType::from_name(config.b_info.kind.name());
        for layout in [Layout::Yajl, Layout::JsonC] {
            let again = DomainConfig::read(config.to_json(layout).as_bytes(), Mode::Lenient).unwrap();
            prop_assert_eq!(&again.config, &config);
            let expected = |kind: &FindingKind| {
                matches!(kind, FindingKind::Deprecated { .. } | FindingKind::DeprecatedDisagrees { .. })
            };
            prop_assert!(again.findings.iter().all(|finding| expected(&finding.kind)), "{:?}", again.findings);
            prop_assert_eq!(diff(&config, &again.config), vec![]);
        }
    }

    #[test]
    fn changing_a_configuration_keeps_unknown_keys(choices in choices()) {
        let document = document(choices, false);
        let mut config = DomainConfig::read_value(&document, Mode::Lenient).unwrap().config;
        config.c_info.name = Some("renamed".into());
        config.b_info.max_vcpus += 1;
        config.b_info.sched_params.weight = 77;
        config.disks.push(model::Disk { vdev: Some("xvdz".into()), ..Default::default() });
        config.nics.iter_mut().for_each(|nic| nic.mtu = 9000);
        let written = config.to_value();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        unknown_members(&document, &mut before);
        unknown_members(&written, &mut after);
        prop_assert_eq!(before, after);
        let again = DomainConfig::read_value(&written, Mode::Lenient).unwrap().config;
        prop_assert_eq!(again, config);
    }

    #[test]
    fn changing_one_field_leaves_the_rest_of_any_document_as_it_was(choices in choices()) {
        let document = document(choices, true);
        let config = DomainConfig::read_value(&document, Mode::Lenient).unwrap().config;

        let mut changed = config.clone();
        changed.on_crash = model::ShutdownAction::Preserve;
        prop_assert_eq!(without(&changed.to_value(), &["on_crash"]).0, without(&document, &["on_crash"]).0);

        let mut changed = config;
        changed.c_info.name = Some("a name of no document".into());
        let (before, count) = without(&document, &["c_info", "name"]);
        // A second c_info gives way to the changed first; one that is no object, to an object.
        if count <= 1 && document.get("c_info").is_some_and(|c_info| c_info.as_object().is_some()) {
            prop_assert_eq!(without(&changed.to_value(), &["c_info", "name"]).0, before);
        }
    }

    #[test]
    fn serde_json_carries_a_configuration(choices in choices()) {
        let config = DomainConfig::read_value(&document(choices, false), Mode::Lenient).unwrap().config;
        let text = serde_json::to_string(&config).unwrap();
        let again: DomainConfig = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(again.to_json(Layout::Yajl), config.to_json(Layout::Yajl));
    }

    #[test]
    fn documents_of_any_numbers_keep_their_spelling(text in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?") {
        let value = json::parse(text.as_bytes(), Mode::Strict).unwrap().value;
        prop_assert_eq!(value.to_text(Layout::JsonC), text.clone());
        let Value::Number(number) = value else { panic!("{text} is a number") };
        prop_assert_eq!(Number::lexeme(&number), text);
    }
}
