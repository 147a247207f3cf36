use std::os::unix::ffi::OsStringExt;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::text::sealed;
use super::{MANIFEST_VERSION, ManifestError, Snapshot, sample};

fn read_octets(octets: &[u8]) -> Option<Snapshot> {
    // What is no text cannot even be asked.
    Snapshot::from_json(std::str::from_utf8(octets).ok()?).ok()
}

#[test]
fn a_manifest_is_read_as_it_was_written() {
    for snapshot in [sample::snapshot(), sample::empty()] {
        let text = snapshot.to_json().unwrap();
        let read = Snapshot::from_json(&text).unwrap();
        assert_eq!(read, snapshot);
        assert_eq!(read.to_json().unwrap(), text);
    }
}

#[test]
fn a_path_that_is_not_utf8_is_an_error_and_no_panic() {
    let mut snapshot = sample::snapshot();
    let name = std::ffi::OsString::from_vec(b"/images/\xff".to_vec());
    snapshot.disks[0].frozen.path = name.into();
    assert!(matches!(snapshot.to_json(), Err(ManifestError::Unwritable { .. })));
}

#[test]
fn every_flipped_bit_of_a_manifest_is_refused() {
    let mut octets = sample::snapshot().to_json().unwrap().into_bytes();
    for at in 0..octets.len() {
        for bit in 0..8 {
            octets[at] ^= 1 << bit;
            assert!(read_octets(&octets).is_none(), "bit {bit} of octet {at}");
            octets[at] ^= 1 << bit;
        }
    }
    assert!(read_octets(&octets).is_some());
}

#[test]
fn an_octet_of_any_other_value_is_refused() {
    let mut octets = sample::snapshot().to_json().unwrap().into_bytes();
    for at in (0..octets.len()).step_by(13) {
        let was = octets[at];
        for value in (0..=u8::MAX).filter(|value| *value != was) {
            octets[at] = value;
            assert!(read_octets(&octets).is_none(), "{value:#x} at {at}");
        }
        octets[at] = was;
    }
}

#[test]
fn a_manifest_that_is_cut_or_goes_on_is_refused() {
    let text = sample::snapshot().to_json().unwrap();
    for len in 0..text.len() {
        assert!(read_octets(&text.as_bytes()[..len]).is_none(), "{len}");
    }
    for more in [" ", "\n", "\0", "{}", &text] {
        assert!(Snapshot::from_json(&format!("{text}{more}")).is_err(), "{more:?} behind it");
        assert!(Snapshot::from_json(&format!("{more}{text}")).is_err(), "{more:?} before it");
    }
}

#[test]
fn an_octet_that_is_missing_or_there_twice_is_refused() {
    let text = sample::snapshot().to_json().unwrap().into_bytes();
    for at in 0..text.len() {
        let (mut less, mut more) = (text.clone(), text.clone());
        let octet = less.remove(at);
        more.insert(at, octet);
        assert!(read_octets(&less).is_none(), "without {at}");
        assert!(read_octets(&more).is_none(), "{at} twice");
    }
}

#[test]
fn the_same_values_laid_out_in_another_way_are_refused() {
    let text = sample::snapshot().to_json().unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let edited = [
        value.to_string(),
        format!("{value:#}"),
        text.replace("\n", "\r\n"),
        text.replacen("  \"", "\t\"", 1),
        text.replacen("\"created\": ", "\"created\":  ", 1),
        // The same key twice: a parser takes the last one.
        text.replacen("{\n", "{\n  \"format\": \"domkeep-snapshot\",\n", 1),
        // The same characters, written otherwise.
        text.replacen("domkeep-snapshot", "domkeep\\u002dsnapshot", 1),
        // Something beside the snapshot, which no digest covers.
        text.replacen("{\n", "{\n  \"comment\": \"nice\",\n", 1),
    ];
    for edited in edited {
        assert_ne!(edited, text);
        assert!(Snapshot::from_json(&edited).is_err(), "{edited}");
    }
}

#[test]
fn fields_of_a_newer_minor_version_are_left_unread_and_another_major_one_is_refused() {
    let snapshot = sample::snapshot();
    let mut value = json!(snapshot);
    value["invented_later"] = json!({ "by": ["somebody"] });
    value["memory"]["invented_later"] = json!(1);
    value["disks"][0]["frozen"]["invented_later"] = json!(null);
    let [major, minor] = MANIFEST_VERSION;
    let text = sealed(&json!([major, minor + 1]), &value);
    assert_eq!(Snapshot::from_json(&text).unwrap(), snapshot);
    for version in [json!([major + 1, 0]), json!([0, 0]), json!([u64::MAX, 0])] {
        let error = Snapshot::from_json(&sealed(&version, &value)).unwrap_err();
        assert!(matches!(error, ManifestError::Version { .. }), "{version}: {error:?}");
    }
    for version in [json!([]), json!([major]), json!("1.0"), json!(1), json!([-1, 0]), json!(null)]
    {
        let error = Snapshot::from_json(&sealed(&version, &value)).unwrap_err();
        assert!(matches!(error, ManifestError::OtherFormat), "{version}: {error:?}");
    }
}

#[test]
fn json_that_is_no_manifest_is_named_as_such() {
    for text in ["", "{", "nonsense", "\u{feff}{}"] {
        let error = Snapshot::from_json(text).unwrap_err();
        assert!(matches!(error, ManifestError::Syntax { .. }), "{text:?}: {error:?}");
    }
    for text in ["{}", "[]", "null", "7", "\"domkeep-snapshot\"", r#"{"format": "tar"}"#] {
        let error = Snapshot::from_json(text).unwrap_err();
        assert!(matches!(error, ManifestError::OtherFormat), "{text:?}: {error:?}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(Snapshot::from_json(&deep), Err(ManifestError::Syntax { .. })));
    let long = " ".repeat(super::MANIFEST_MAX + 1);
    assert!(matches!(Snapshot::from_json(&long), Err(ManifestError::TooLong { .. })));
}

#[test]
fn a_sealed_snapshot_that_lacks_a_field_or_has_a_wrong_one_says_which() {
    let whole = json!(sample::snapshot());
    // An option that is absent is none, as serde has it; everything else has to be there.
    for name in ["id", "created", "domain", "consistency", "disks", "configuration", "timings"] {
        let mut value = whole.clone();
        value.as_object_mut().unwrap().remove(name);
        let error = Snapshot::from_json(&sealed(&json!(MANIFEST_VERSION), &value)).unwrap_err();
        let ManifestError::Content { source } = error else { panic!("{name}: {error:?}") };
        assert!(source.to_string().contains(name), "{name}: {source}");
    }
    let mut value = whole;
    value["domain"]["domid"] = json!(-1);
    let error = Snapshot::from_json(&sealed(&json!(MANIFEST_VERSION), &value)).unwrap_err();
    assert!(matches!(error, ManifestError::Content { .. }), "{error:?}");
}

/// JSON as configurations have it, and stranger.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        // serde_json reads a number with many digits as one of its neighbours.
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

#[test]
fn a_number_that_serde_json_reads_as_its_neighbour_does_not_break_a_manifest() {
    let mut snapshot = sample::snapshot();
    let odd: Vec<f64> = (1..2000_u32).map(|it| 1e15 / f64::from(it).sqrt()).collect();
    snapshot.configuration = json!(odd);
    assert!(Snapshot::from_json(&snapshot.to_json().unwrap()).is_ok());
}

proptest! {
    #[test]
    fn any_configuration_and_any_text_survive(
        configuration in any_json(),
        name in prop::option::of(any::<String>()),
        warnings in prop::collection::vec(any::<String>(), 0..3),
        created in any::<u64>(),
        mtime in any::<i64>(),
    ) {
        let mut snapshot = sample::snapshot();
        snapshot.configuration = configuration;
        snapshot.domain.name = name;
        snapshot.warnings = warnings;
        snapshot.created = created;
        snapshot.disks[0].frozen.mtime_ns = mtime;
        let text = snapshot.to_json().unwrap();
        let read = Snapshot::from_json(&text);
        prop_assert_eq!(read.unwrap(), snapshot);
    }
}
