//! Stores as text: real hosts' stores and any others survive being written and read.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use xenstore_proto::{Path, Perms};
use xenstored::Store;

#[test]
fn captured_stores_load_and_save_octet_for_octet() {
    let captures =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    let Ok(steps) = fs::read_dir(&captures) else {
        println!(
            "skipped: captured_stores_load_and_save_octet_for_octet: no captures at {}",
            captures.display()
        );
        return;
    };
    let mut loaded = 0;
    for step in steps {
        let file = step.unwrap().path().join("xenstore.txt");
        let text = fs::read_to_string(&file).unwrap();
        let store = Store::from_text(&text).unwrap();
        assert!(store.to_text() == text, "{} comes back different", file.display());
        assert_eq!(
            store.nodes().count(),
            text.lines().count() + 1,
            "{}: a line a node, and the root",
            file.display()
        );
        loaded += 1;
    }
    assert!(loaded >= 10, "{loaded} captures");
}

#[test]
fn every_octet_is_written_as_the_stock_tool_writes_it() {
    let mut store = Store::new();
    let all: Vec<u8> = (0..=255).collect();
    store.write(&"/bytes".parse().unwrap(), &all).unwrap();
    let text = store.to_text();
    // As `xenstore-ls -fp` of Xen 4.17 prints the same value.
    let expected = concat!(
        r#"/bytes = "\000\001\002\003\004\005\006\007\x08\t\n\x0b\x0c\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19"#,
        r#"\x1a\x1b\x1c\x1d\x1e\x1f !"#,
        "\"",
        r##"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~\x7f\x80"##,
    );
    assert_eq!(&text[..expected.len()], expected);
    assert!(text.ends_with("\\xfe\\xff\"   (n0)\n"));
}

fn any_node() -> impl Strategy<Value = (Path, Vec<u8>, Perms)> {
    let path = "(/[a-c@_]){1,4}".prop_map(|text| text.parse().unwrap());
    let odd = prop_oneof![
        any::<u8>(),
        Just(b'\\'),
        Just(b'"'),
        Just(b'('),
        Just(b' '),
        Just(b'0'),
        Just(b'x')
    ];
    let perms = "[nrwb][0-9]{1,4}(,[nrwb][0-9]{1,4}){0,3}".prop_map(|text| text.parse().unwrap());
    (path, proptest::collection::vec(odd, 0..40), perms)
}

proptest! {
    #[test]
    fn any_store_reads_back_from_its_text(
        nodes in proptest::collection::vec(any_node(), 0..30), root in proptest::option::of(any_node())
    ) {
        let mut store = Store::new();
        for (path, value, perms) in &nodes {
            store.write(path, value).unwrap();
            store.set_perms(path, perms.clone()).unwrap();
        }
        if let Some((_, value, perms)) = root {
            store.write(&Path::root(), &value).unwrap();
            store.set_perms(&Path::root(), perms).unwrap();
        }
        let text = store.to_text();
        let again = Store::from_text(&text).unwrap();
        prop_assert_eq!(&again, &store);
        prop_assert_eq!(again.to_text(), text);
    }
}
