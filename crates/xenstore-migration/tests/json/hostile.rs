//! JSON that nobody should have written: refused with its place, and never worse than that.

use serde_json::{Value, json};
use xenstore_migration::ReadOptions;
use xenstore_migration::json::{self, DocumentError, EncodeOptions};
use xenstore_migration::{ByteOrder, Peer, Preamble, Version};

use crate::round_trips::written;
use crate::{document, encoded, lines, rich};

const UNCHECKED: fn() -> EncodeOptions = || EncodeOptions::default().unchecked();

/// A record of every type, and which of them is the first of its type.
fn everything() -> (Vec<u8>, Value) {
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let records = rich::records(Version::V2, Peer::Specification);
    let stream = written(preamble, Peer::Specification, &records);
    let document = document(&stream);
    (stream, document)
}

fn first(document: &Value, record_type: &str, having: &str) -> usize {
    let records = document["records"].as_array().unwrap();
    let found = |record: &Value| record["type"] == record_type && !record[having].is_null();
    records.iter().position(found).unwrap()
}

#[test]
fn what_is_wrong_is_named_by_its_place_and_by_what_it_is() {
    let (_, good) = everything();
    for (record_type, having, field, value, expected) in [
        ("NODE_DATA", "path", "pth", json!("/a"), "pth: unknown field `pth`"),
        ("NODE_DATA", "path", "token", json!("t"), "token: is no field of such a NODE_DATA"),
        ("NODE_DATA", "path", "path", json!("/a\0b"), "path: path has a NUL in it"),
        ("NODE_DATA", "path", "path", Value::Null, "path: invalid type: null"),
        ("NODE_DATA", "path", "path", json!(7), "path: invalid type: integer `7`"),
        ("NODE_DATA", "path", "path_hex", json!("2f"), "path_hex: is there as `path` already"),
        ("NODE_DATA", "path", "path", json!("/".repeat(65535)), "path: path has 65536 octets"),
        ("NODE_DATA", "value", "value", json!("v".repeat(65536)), "value: value has 65536 octets"),
        ("NODE_DATA", "perms", "perms", json!("n0,r65536"), "perms[1]: is no permission"),
        ("NODE_DATA", "perms", "perms", json!(""), "perms[0]: is no permission"),
        ("NODE_DATA", "access", "access", json!("seen"), "access: is neither `removed`"),
        ("NODE_DATA", "access", "connection", json!(0), "connection: is zero"),
        (
            "NODE_DATA",
            "access",
            "transaction",
            json!(-1),
            "transaction: invalid value: integer `-1`",
        ),
        (
            "WATCH_DATA",
            "token",
            "connection",
            json!(1_u64 << 32),
            "connection: invalid value: integer `4294967296`",
        ),
        (
            "WATCH_DATA",
            "token",
            "connection",
            json!(1.5),
            "connection: invalid type: floating point",
        ),
        ("WATCH_DATA", "token", "depth", Value::Null, "depth: is no field of such a WATCH_DATA"),
        ("WATCH_DATA_EXTENDED", "depth", "depth", json!(65535), "depth: is neither levels"),
        (
            "WATCH_DATA_EXTENDED",
            "depth",
            "depth",
            json!(65536),
            "depth: invalid value: integer `65536`",
        ),
        ("WATCH_DATA_EXTENDED", "depth", "depth", json!("all"), "depth: is neither levels"),
        ("WATCH_DATA_EXTENDED", "depth", "depth", json!([1]), "depth: invalid type: sequence"),
        ("WATCH_DATA_EXTENDED", "depth", "depth", Value::Null, "depth: a watch of depth Untold"),
        ("CONNECTION_DATA", "target", "target", json!(32756), "target: is 32756"),
        ("CONNECTION_DATA", "target", "kind", json!("socket"), "fd: is missing"),
        ("CONNECTION_DATA", "target", "kind", json!("pipe"), "kind: is neither `ring`"),
        ("CONNECTION_DATA", "target", "kind", json!(1), "kind: is neither `ring`"),
        ("CONNECTION_DATA", "target", "fd", json!(1), "fd: is no field of such a CONNECTION_DATA"),
        ("CONNECTION_DATA", "spec", "spec", json!("07"), "spec: is not 8 octets"),
        ("CONNECTION_DATA", "spec", "spec", json!("0"), "spec: is not two hexadecimal digits"),
        ("CONNECTION_DATA", "output", "output_rest", json!(65535), "output_rest: 65535 octets"),
        ("CONNECTION_DATA", "input", "input", json!("i".repeat(65536)), "input: in-data has 65536"),
        ("DOMAIN_DATA", "domid", "domid", json!(65536), "domid: invalid value: integer `65536`"),
        ("DOMAIN_DATA", "features", "features", Value::Null, "features: is null, and version 2"),
        (
            "DOMAIN_DATA",
            "quotas",
            "quotas",
            json!([{ "name": "", "value": 1 }]),
            "quotas[0].name: is empty",
        ),
        (
            "DOMAIN_DATA",
            "quotas",
            "quotas",
            json!([{ "name": "a", "value": 1 }, { "value": 1 }]),
            "quotas[1].name: is missing",
        ),
        (
            "DOMAIN_DATA",
            "quotas",
            "quotas",
            json!([{ "name": "a", "valu": 1 }]),
            "quotas[0].valu: unknown field `valu`",
        ),
        (
            "GLOBAL_QUOTA_DATA",
            "global",
            "global",
            json!([{ "name": "a\0", "value": 1 }]),
            "global[0].name: is empty or has a NUL",
        ),
        ("GLOBAL_DATA", "socket_fd", "socket_fd", json!(-1), "socket_fd: is -1"),
        ("GLOBAL_DATA", "socket_fd", "socket_fd", json!(1_u64 << 31), "socket_fd: invalid value"),
        ("type 0x9", "body", "type", json!("END"), "type: is no type"),
        ("type 0x9", "body", "type", json!("node_data"), "type: is no type"),
        ("type 0x9", "body", "type", json!("type 0x100000000"), "type: is no type"),
        ("type 0x9", "body", "body", json!(["a"]), "body: invalid type: sequence"),
    ] {
        let index = first(&good, record_type, having);
        let mut bad = good.clone();
        bad["records"][index][field] = value;
        let error = encoded(&bad, UNCHECKED()).unwrap_err().to_string();
        let place = format!("records[{index}].{expected}");
        assert!(error.starts_with(&place), "{field} of {record_type}: {error}, not {place}");
        let text: Vec<String> =
            bad["records"].as_array().unwrap().iter().map(Value::to_string).collect();
        let text = format!(
            "{{\"version\":2,\"byte_order\":\"little\"}}\n{}\n{{\"records\":1}}\n",
            text.join("\n")
        );
        let error = json::encode(text.as_bytes(), UNCHECKED()).unwrap_err().to_string();
        assert!(error.starts_with(&place), "{field} of {record_type}, as lines: {error}");
        if let Some((_, line)) = error.split_once(" at line ") {
            assert!(line.starts_with(&format!("{} ", index + 2)), "{error}");
        }
    }
}

#[test]
fn every_field_of_every_record_has_to_be_there() {
    let (stream, good) = everything();
    assert_eq!(encoded(&good, UNCHECKED()).unwrap(), stream);
    for (index, record) in good["records"].as_array().unwrap().iter().enumerate() {
        for field in record.as_object().unwrap().keys() {
            let mut bad = good.clone();
            bad["records"][index].as_object_mut().unwrap().remove(field);
            let result = encoded(&bad, UNCHECKED());
            if ["index", "offset"].contains(&field.as_str()) {
                assert_eq!(result.unwrap(), stream);
                continue;
            }
            let error = result.unwrap_err().to_string();
            assert!(error.starts_with(&format!("records[{index}]")), "{field}: {error}");
            assert!(error.contains("missing") || error.contains("is neither"), "{field}: {error}");
        }
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused_wherever_it_is() {
    let (_, good) = everything();
    let good = good.to_string();
    for (key, again) in [
        ("\"version\":2", "\"version\":1"),
        ("\"byte_order\":", "\"byte_order\":\"big\""),
        ("\"records\":", "\"records\":[]"),
        ("\"peer\":", "\"peer\":null"),
        ("\"socket_fd\":", "\"socket_fd\":4"),
        ("\"type\":", "\"type\":\"NODE_DATA\""),
        ("\"path\":", "\"path\":\"/b\""),
        ("\"token\":", "\"token\":\"t\""),
        ("\"name\":", "\"name\":\"b\""),
    ] {
        let bad = good.replacen(key, &format!("{again},{key}"), 1);
        assert_ne!(bad, good, "{key}");
        let error = json::encode(bad.as_bytes(), UNCHECKED()).unwrap_err().to_string();
        assert!(error.contains("duplicate field"), "{key}: {error}");
    }
}

#[test]
fn what_is_said_about_the_stream_has_to_be_right() {
    let (_, good) = everything();
    for (field, value, expected) in [
        ("version", json!(3), "version: is none of 1, 2"),
        ("version", json!("2"), "version: invalid type"),
        ("byte_order", json!("native"), "byte_order: is none of `little`, `big`"),
        ("peer", json!("nobody"), "peer: is none of `specification`"),
        ("peer", json!("c-4.17"), "c-4.17 does not know version 2 of the stream"),
        ("peer", Value::Null, "peer: is null"),
        ("records", json!({}), "records: invalid type: map"),
        ("records", Value::Null, "records: invalid type: null"),
        ("records", json!(["x"]), "records[0]: invalid type"),
        ("record", json!([]), "record: unknown field `record`"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        let error = encoded(&bad, UNCHECKED()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{field}: {error}");
    }
    for missing in ["version", "byte_order", "records"] {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(missing);
        let error = encoded(&bad, UNCHECKED()).unwrap_err().to_string();
        assert!(error.contains(&format!("missing field `{missing}`")), "{error}");
    }
}

#[test]
fn lines_that_do_not_end_are_taken_for_cut() {
    let (stream, _) = everything();
    let good = lines(&stream);
    assert_eq!(json::encode(good.join("\n").as_bytes(), UNCHECKED()).unwrap(), stream);
    for count in 2..good.len() {
        let error = json::encode(good[..count].join("\n").as_bytes(), UNCHECKED()).unwrap_err();
        assert!(matches!(error, DocumentError::NoEnd), "{count} lines: {error}");
    }
    let broken = r#"{"records":0,"peer":null,"deviations":[],"error":{"message":"cut"}}"#;
    let broken = format!("{}\n{}\n{broken}\n", good[0], good[1]);
    let error = json::encode(broken.as_bytes(), UNCHECKED()).unwrap_err();
    assert!(matches!(error, DocumentError::BrokenOff), "{error}");
    let odd = [good[0].clone(), good[1].clone(), r#"{"records":1,"per":null}"#.to_owned()];
    let error = json::encode(odd.join("\n").as_bytes(), UNCHECKED()).unwrap_err().to_string();
    assert!(error.starts_with("the last line: per: unknown field"), "{error}");
}

/// Cut anywhere, a text makes no stream, rather than a shorter one.
#[test]
fn a_text_that_was_cut_makes_no_stream() {
    let (stream, _) = everything();
    let document = json::decode(&*stream, ReadOptions::default()).unwrap();
    for text in [document.trim_end().to_owned(), lines(&stream).join("\n")] {
        for len in 0..text.len() {
            assert!(json::encode(&text.as_bytes()[..len], UNCHECKED()).is_err(), "{len} octets");
        }
        assert!(json::encode(text.as_bytes(), UNCHECKED()).is_ok());
        let more = format!("{text}\n {{}}");
        assert!(json::encode(more.as_bytes(), UNCHECKED()).is_err());
    }
}

/// What changes in one octet makes another stream or none, and that stream reads.
#[test]
fn any_octet_may_be_another() {
    let (stream, _) = everything();
    let text = json::decode(&*stream, ReadOptions::default()).unwrap().into_bytes();
    let (mut made, mut refused) = (0, 0);
    for at in 0..text.len() {
        for other in [0, b'"', b'9', b'}', b'\\', 0xFF] {
            let mut text = text.clone();
            text[at] = other;
            match json::encode(&text, UNCHECKED()) {
                Ok(stream) => {
                    json::decode(&*stream, ReadOptions::default()).unwrap();
                    made += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(made > 100 && refused > 1000, "{made} made, {refused} refused");
}

#[test]
fn nesting_has_no_bottom_to_fall_through() {
    let deep = |count| format!("{}{}", "[".repeat(count), "]".repeat(count));
    let (stream, good) = everything();
    for count in [100, 200, 100_000] {
        let text = good.to_string();
        let ignored =
            text.replacen("\"deviations\":[]", &format!("\"deviations\":{}", deep(count)), 1);
        assert_ne!(ignored, text);
        assert_eq!(json::encode(ignored.as_bytes(), UNCHECKED()).unwrap(), stream);
        for (from, to) in [
            ("\"records\":[", format!("\"records\":[{},", deep(count))),
            ("\"socket_fd\":", format!("\"socket_fd\":{},\"fd\":", deep(count))),
            ("\"depth\":", format!("\"depth\":{},\"fd\":", deep(count))),
            ("\"version\":", format!("\"version\":{},\"peer\":", deep(count))),
        ] {
            let text = text.replacen(from, &to, 1);
            assert!(json::encode(text.as_bytes(), UNCHECKED()).is_err(), "{from}");
        }
        assert!(json::encode(deep(count).as_bytes(), UNCHECKED()).is_err());
    }
}

/// Names in errors are what somebody else chose.
#[test]
fn an_error_is_one_short_line_whatever_the_field_is_called() {
    let (_, mut bad) = everything();
    let name = format!("a\n\u{1b}[31m{}", "x".repeat(1 << 20));
    bad["records"][3][&name] = json!(1);
    let error = encoded(&bad, UNCHECKED()).unwrap_err().to_string();
    assert!(error.starts_with("records[3].a\\n\\u{1b}[31mxxx"), "{}", &error[..100]);
    assert!(error.len() < 1000 && !error.contains(char::is_control), "{} octets", error.len());
}

#[test]
fn octets_that_are_no_text_are_no_json() {
    let (_, good) = everything();
    let mut text = good.to_string().into_bytes();
    let at = text.windows(8).position(|octets| octets == b"\"/local/").unwrap();
    text[at + 2] = 0xFF;
    let error = json::encode(&text, UNCHECKED()).unwrap_err().to_string();
    assert!(error.contains("unicode"), "{error}");
    let lone = good.to_string().replacen("\"/local/", "\"\\ud800/", 1);
    assert!(json::encode(lone.as_bytes(), UNCHECKED()).is_err());
}

/// The end of the lines was looked for after each record by counting all octets before it: some hours for this text.
#[test]
fn many_lines_do_not_cost_a_look_at_all_before_each_of_them() {
    const RECORDS: usize = 200_000;
    let (stream, _) = everything();
    let good = lines(&stream);
    let node = r#"{"type":"NODE_DATA","perms":"n0","path":"/a","value":"v"}"#;
    let text = format!("{}\n{}", good[0], format!("{node}\n").repeat(RECORDS));
    let last = format!(r#"{{"records":{RECORDS},"peer":"specification"}}"#);
    let encoded = json::encode(format!("{text}{last}\n").as_bytes(), UNCHECKED()).unwrap();
    assert_eq!(encoded.len(), 16 + 32 * RECORDS + 8, "a preamble, the nodes, an end");
    // An error names its line, however many are before it.
    let wrong = format!("{text}{{\"type\":\n\"NODE_DATA\",\"domid\":[]}}\n{last}\n");
    let error = json::encode(wrong.as_bytes(), UNCHECKED()).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("records[{RECORDS}].domid: invalid type: sequence")),
        "{error}"
    );
    assert!(error.contains(&format!(" at line {} column ", RECORDS + 3)), "{error}");
}
