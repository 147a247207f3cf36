//! The tables of this crate against the schema as it was taken from xen.git: everything is there, and nothing else.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read its schema must fail"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use libxl_config::model::{self, FieldInfo};
use libxl_config::{DomainConfig, Layout, Mode};
use serde_json::{Map, Value, json};

fn schema() -> Option<Value> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/facts/libxl-schema.json");
    file.is_file().then(|| serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap())
}

/// The schema's structs, those without a name of their own included, as this crate calls them.
fn structs(schema: &Value) -> BTreeMap<String, Vec<Value>> {
    let mut structs = BTreeMap::new();
    for (name, body) in schema["structs"].as_object().unwrap() {
        let fields = body["fields"].as_array().unwrap();
        for field in fields {
            for (variant, payload) in field["variants"].as_object().into_iter().flatten() {
                if let Some(fields) = payload.as_array() {
                    structs.insert(format!("{name}.{variant}"), fields.clone());
                }
            }
            if field["type"] == "anonymous-struct" {
                let fields = field["fields"].as_array().unwrap().clone();
                structs.insert(format!("{name}.{}", field["name"].as_str().unwrap()), fields);
            }
        }
        structs.insert(name.clone(), fields.clone());
    }
    for fields in structs.values_mut() {
        fields.retain(|field| field["const"] != true);
    }
    structs
}

fn expected_type(record: &str, field: &Value) -> String {
    match &field["type"] {
        Value::Array(element) => format!("[{}]", element[0].as_str().unwrap()),
        Value::String(name) if name == "keyed-union" => {
            format!("keyed-union of {}", field["discriminator_type"].as_str().unwrap())
        }
        Value::String(name) if name == "anonymous-struct" => {
            format!("{record}.{}", field["name"].as_str().unwrap())
        }
        Value::String(name) if name == "string_list" => "[string]".to_owned(),
        name => name.as_str().unwrap().to_owned(),
    }
}

fn expected_name(field: &Value) -> &str {
    let name = if field["type"] == "keyed-union" { "discriminator" } else { "name" };
    field[name].as_str().unwrap()
}

/// What libxl initialises the field to; `null` for what has no value then.
fn expected_default(schema: &Value, field: &Value) -> Value {
    let Some(kind) = field["type"].as_str() else { return json!([]) };
    let declared = field["default"].as_str();
    if let Some(values) = schema["enums"].get(kind) {
        let number = match declared {
            None => 0,
            Some(name) if name.ends_with("_DEFAULT") => match schema["default_constants"].get(name)
            {
                Some(number) => number.as_str().unwrap().parse().unwrap(),
                None => 0,
            },
            Some(name) => {
                let named = values.as_array().unwrap().iter().find(|value| {
                    let ending = format!("_{}", value["name"].as_str().unwrap().to_uppercase());
                    name.ends_with(&ending)
                });
                return named.unwrap()["name"].clone();
            }
        };
        let value = values.as_array().unwrap().iter().find(|value| value["value"] == number);
        return value.map_or(Value::Null, |value| value["name"].clone());
    }
    match (kind, declared) {
        ("u64", Some(_)) => json!(u64::MAX),
        ("u32", Some(_)) => json!(u32::MAX),
        ("i32" | "devid", Some(_)) => json!(-1),
        ("u8" | "u32" | "i32" | "u64" | "domid", None) => json!(0),
        ("bool", None) => json!(false),
        ("defbool", None) => json!("<default>"),
        ("uuid", None) => json!("00000000-0000-0000-0000-000000000000"),
        ("mac", None) => json!("00:00:00:00:00:00"),
        ("ms_vm_genid", None) => json!(vec![0; 16]),
        ("bitmap" | "string_list" | "cpuid_policy_list", None) => json!([]),
        ("key_value_list", None) => json!({}),
        _ => Value::Null,
    }
}

#[test]
fn every_struct_field_and_default_is_there_and_no_other() {
    let Some(schema) = schema() else {
        println!("skipped: every_struct_field_and_default_is_there_and_no_other: no schema");
        return;
    };
    let expected = structs(&schema);
    let ours: BTreeMap<String, Vec<FieldInfo>> =
        model::structs().into_iter().map(|info| (info.name.to_owned(), info.fields)).collect();
    assert_eq!(ours.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert_eq!(ours.len(), 36 + 7);

    let mut count = 0;
    for (record, fields) in &expected {
        let ours = &ours[record];
        let names: Vec<&str> = ours.iter().map(|field| field.name).collect();
        assert_eq!(names, fields.iter().map(expected_name).collect::<Vec<_>>(), "{record}");
        for (field, ours) in fields.iter().zip(ours) {
            let name = format!("{record}.{}", ours.name);
            assert_eq!(ours.schema_type, expected_type(record, field), "{name}");
            assert_eq!(ours.absent_in_4_17, field["absent_in_4_17"] == true, "{name}");
            if !ours.schema_type.starts_with("keyed-union") {
                let default = serde_json::to_value(&ours.default).unwrap();
                let nested = expected.contains_key(ours.schema_type.trim_matches(['[', ']']));
                let expected = if nested { Value::Null } else { expected_default(&schema, field) };
                assert_eq!(default, expected, "{name}");
            }
            count += 1;
        }
    }
    println!("{count} fields");
}

#[test]
fn every_enum_value_is_there_and_no_other() {
    let Some(schema) = schema() else {
        println!("skipped: every_enum_value_is_there_and_no_other: no schema");
        return;
    };
    let read = |value: &Value| {
        (value["name"].as_str().unwrap().to_owned(), value["value"].as_i64().unwrap())
    };
    let expected: BTreeMap<String, Vec<(String, i64)>> = schema["enums"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, values)| (name.clone(), values.as_array().unwrap().iter().map(read).collect()))
        .collect();
    let ours: BTreeMap<String, Vec<(String, i64)>> = model::enums()
        .into_iter()
        .map(|info| {
            let values =
                info.values.iter().map(|(name, number)| ((*name).to_owned(), i64::from(*number)));
            (info.name.to_owned(), values.collect())
        })
        .collect();
    assert_eq!(ours, expected);
    assert_eq!(ours.len(), 34);
}

/// An object of that struct with every field at something that is written.
fn filled(
    schema: &Value,
    all: &BTreeMap<String, Vec<Value>>,
    record: &str,
    variant: usize,
) -> Value {
    let mut object = Map::new();
    for field in &all[record] {
        let kind = expected_type(record, field);
        let name = expected_name(field);
        if kind.starts_with("keyed-union") {
            let variants: Vec<&String> = field["variants"].as_object().unwrap().keys().collect();
            let chosen = variants[variant % variants.len()];
            let payload = format!("{record}.{chosen}");
            let body = if all.contains_key(&payload) {
                filled(schema, all, &payload, variant)
            } else {
                json!({})
            };
            object.insert(format!("{name}.{chosen}"), body);
            continue;
        }
        object.insert(
            name.to_owned(),
            filled_value(schema, all, &kind, &expected_default(schema, field), variant),
        );
    }
    Value::Object(object)
}

fn filled_value(
    schema: &Value,
    all: &BTreeMap<String, Vec<Value>>,
    kind: &str,
    default: &Value,
    variant: usize,
) -> Value {
    if let Some(element) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
        let element = filled_value(schema, all, element, &Value::Null, variant);
        return json!([element, element]);
    }
    if all.contains_key(kind) {
        return filled(schema, all, kind, variant);
    }
    if let Some(values) = schema["enums"].get(kind) {
        let name = values
            .as_array()
            .unwrap()
            .iter()
            .map(|value| &value["name"])
            .find(|name| *name != default);
        return name.unwrap().clone();
    }
    match kind {
        "bool" => json!(true),
        "defbool" => json!("True"),
        "u8" => json!(7),
        "u32" | "u64" | "i32" | "domid" | "devid" => json!(77),
        "string" => json!("text"),
        "uuid" => json!("a7989683-6a5f-495a-b64f-11438bce7d66"),
        "mac" => json!("00:16:3e:aa:bb:01"),
        "bitmap" => json!([0, 5]),
        "key_value_list" => json!({"a": "b", "c": null}),
        "ms_vm_genid" => json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 255]),
        "cpuid_policy_list" => json!([{"leaf": 1, "subleaf": 2, "eax": "x"}]),
        _ => panic!("no value for {kind}"),
    }
}

#[test]
fn a_configuration_with_every_field_set_survives_without_what_was_read() {
    let Some(schema) = schema() else {
        println!(
            "skipped: a_configuration_with_every_field_set_survives_without_what_was_read: no schema"
        );
        return;
    };
    let all = structs(&schema);
    for variant in 0..4 {
        let mut document = filled(&schema, &all, "domain_config", variant);
        let kinds: Vec<String> = schema["structs"]["domain_build_info"]["fields"]
            .as_array()
            .unwrap()
            .iter()
            .find_map(|field| field["variants"].as_object())
            .map(|variants| variants.keys().cloned().collect())
            .unwrap();
        document["c_info"]["type"] = json!(kinds[variant]);
        let text = document.to_string();
        let read = DomainConfig::read(text.as_bytes(), Mode::Lenient).unwrap();
        let deviations: Vec<String> = read
            .findings
            .iter()
            .filter(|finding| finding.is_deviation() && !finding.to_string().contains("deprecated"))
            .map(ToString::to_string)
            .collect();
        assert_eq!(deviations, [""; 0]);

        // Every field comes from the typed value now, in the schema's order.
        let mut config = read.config;
        config.forget_source();
        if kinds[variant] == "invalid" {
            // The default is left out.
            document["c_info"].as_object_mut().unwrap().shift_remove("type");
        }
        let written: Value = serde_json::from_str(&config.to_json(Layout::JsonC)).unwrap();
        assert_eq!(written.to_string(), document.to_string());
    }
}
