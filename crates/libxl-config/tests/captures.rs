//! What real hosts have stored and printed: read without a deviation, written back octet for octet.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its data must fail")]

use std::fs;
use std::path::{Path, PathBuf};

use libxl_config::{DomainConfig, Layout, Mode, json};

fn captures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    folder.is_dir().then_some(folder)
}

fn files(named: fn(&str) -> bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for step in fs::read_dir(captures().unwrap()).unwrap() {
        for file in fs::read_dir(step.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            if named(path.file_name().unwrap().to_str().unwrap()) {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn stored_files_are_read_strictly_and_written_octet_for_octet() {
    if captures().is_none() {
        println!(
            "skipped: stored_files_are_read_strictly_and_written_octet_for_octet: no captures"
        );
        return;
    }
    let stored = files(|name| name.starts_with("userdata-d."));
    assert!(stored.len() >= 20);
    for path in stored {
        let octets = fs::read(&path).unwrap();
        let read = DomainConfig::read_userdata(&octets, Mode::Strict)
            .unwrap_or_else(|e| panic!("{path:?}: {e}"));
        assert_eq!(read.findings, []);
        assert_eq!(read.config.to_userdata(Layout::Yajl), octets, "{path:?}");

        // The same without what was remembered: a new configuration is written as 4.17 writes it.
        let mut fresh = read.config.clone();
        fresh.forget_source();
        assert_eq!(fresh.to_userdata(Layout::Yajl), octets, "{path:?}");

        let again =
            DomainConfig::read(fresh.to_json(Layout::JsonC).as_bytes(), Mode::Strict).unwrap();
        assert_eq!(again.config, read.config);

        let text = std::str::from_utf8(&octets).unwrap().trim_end_matches('\0');
        let expected: serde_json::Value = serde_json::from_str(text).unwrap();
        let ours = serde_json::to_value(&read.config).unwrap();
        assert_eq!(ours.to_string(), expected.to_string());
        let back: DomainConfig = serde_json::from_value(expected).unwrap();
        assert_eq!(back.to_userdata(Layout::Yajl), octets);
    }
}

#[test]
fn list_output_is_written_octet_for_octet_and_its_configurations_are_strict() {
    if captures().is_none() {
        println!(
            "skipped: list_output_is_written_octet_for_octet_and_its_configurations_are_strict: no captures"
        );
        return;
    }
    for path in files(|name| name == "list-l.json") {
        let octets = fs::read(&path).unwrap();
        let parsed = json::parse(&octets, Mode::Strict).unwrap();
        // xl ends the line once more.
        let mut written = parsed.value.to_text(Layout::Yajl);
        written.push('\n');
        assert_eq!(written.as_bytes(), octets, "{path:?}");
        for domain in parsed.value.as_array().unwrap() {
            let value = domain.get("config").unwrap();
            let read = DomainConfig::read_value(value, Mode::Strict)
                .unwrap_or_else(|e| panic!("{path:?}: {e}"));
            assert_eq!(&read.config.to_value(), value);
        }
    }
}
