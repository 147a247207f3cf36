//! Comparing JSON documents so that a person sees where they differ.

use serde_json::Value;

/// Where `ours` and `theirs` differ: a line a place. Empty, if they are the same; the order of keys does not count.
pub fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("$", Some(ours), Some(theirs), &mut found);
    found
}

fn compare(path: &str, ours: Option<&Value>, theirs: Option<&Value>, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Some(Value::Object(ours)), Some(Value::Object(theirs))) => {
            let more = theirs.keys().filter(|key| !ours.contains_key(*key));
            for key in ours.keys().chain(more) {
                compare(&format!("{path}.{key}"), ours.get(key), theirs.get(key), found);
            }
        }
        (Some(Value::Array(ours)), Some(Value::Array(theirs))) => {
            for index in 0..ours.len().max(theirs.len()) {
                compare(&format!("{path}[{index}]"), ours.get(index), theirs.get(index), found);
            }
        }
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => {
            let text = |value: Option<&Value>| value.map_or("nothing".into(), Value::to_string);
            found.push(format!("{path}: {} here, {} there", text(ours), text(theirs)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_difference_is_named_with_its_place() {
        let ours = json!({"a": {"b": [1, 2]}, "only": true});
        let theirs = json!({"a": {"b": [1, 3, 4]}, "other": null});
        assert_eq!(
            differences(&ours, &theirs),
            [
                "$.a.b[1]: 2 here, 3 there",
                "$.a.b[2]: nothing here, 4 there",
                "$.only: true here, nothing there",
                "$.other: nothing here, null there",
            ]
        );
    }

    #[test]
    fn the_order_of_keys_does_not_count() {
        let ours: Value = serde_json::from_str(r#"{"a":1,"b":2}"#).unwrap();
        let theirs: Value = serde_json::from_str(r#"{"b":2,"a":1}"#).unwrap();
        assert_eq!(differences(&ours, &theirs), Vec::<String>::new());
    }
}
