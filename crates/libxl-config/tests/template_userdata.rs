//! Reading libxl's directory, as a caller does: captured from a real host, and where nothing may be written.

#![expect(clippy::unwrap_used, reason = "the functions that tests share may panic as the tests do")]

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use libxl_config::template::{
    CreateError, DomId, Revision, TemplateKey, TemplateStore, TemplateText, UserdataDir, create,
    forget,
};
use uuid::Uuid;

/// Set for the child that runs where the directory is mounted read-only.
const READ_ONLY: &str = "DOMKEEP_TEST_READ_ONLY";

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(domid: u16, uuid: &str) -> TemplateKey {
    TemplateKey::new(DomId::new(domid), Uuid::parse_str(uuid).expect("a uuid"))
}

fn captures(test: &str) -> Option<PathBuf> {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/xen-4.17");
    if captures.is_dir() {
        return Some(captures);
    }
    println!("skipped: {test}: no captures of a real host beside the repository");
    None
}

/// Everything that reading could have changed: names, sizes and times, but not the time of the last reading.
fn state(directory: &Path) -> Vec<(PathBuf, u64, i64, i64, i64, i64)> {
    let describe = |path: PathBuf| {
        let of = path.metadata().unwrap();
        (path, of.size(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
    };
    let mut paths =
        directory.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    paths.push(directory.to_owned());
    paths.sort_unstable();
    paths.into_iter().map(describe).collect()
}

#[test]
fn every_template_of_a_real_host_is_listed_and_read_and_nothing_is_changed() {
    let Some(captures) = captures("every_template_of_a_real_host") else { return };
    let mut templates = 0;
    for capture in captures.read_dir().unwrap() {
        let capture = capture.unwrap().path();
        let before = state(&capture);
        let store = UserdataDir::open(&capture).unwrap();
        let keys = store.keys(later()).unwrap();
        assert!(keys.iter().any(|key| key.domid.get() == 0), "{}: dom0 has one", capture.display());
        for key in keys {
            let template = store.load(&key, later()).unwrap().unwrap();
            let json: serde_json::Value = serde_json::from_slice(&template.octets).unwrap();
            assert!(json.get("c_info").is_some(), "{}: {key}", capture.display());
            assert_eq!(template.revision, Revision::of(&template.octets));
            assert_eq!(store.keys_of(key.domid, later()).unwrap(), [key]);
            templates += 1;
        }
        let missing = key(9, "00000000-0000-0000-0000-000000000001");
        assert_eq!(store.load(&missing, later()).unwrap(), None);
        assert_eq!(state(&capture), before, "{}", capture.display());
    }
    assert!(templates > 10, "{templates}");
}

#[test]
fn a_domain_keeps_its_template_through_memory_changes_and_rename_and_changes_it_by_hotplug() {
    let Some(captures) = captures("a_domain_keeps_its_template") else { return };
    let revision = |step: &str| {
        let key = key(1, "a7989683-6a5f-495a-b64f-11438bce7d66");
        UserdataDir::open(captures.join(step))
            .unwrap()
            .load(&key, later())
            .unwrap()
            .unwrap()
            .revision
    };
    assert_ne!(revision("01-create-pv"), revision("02-block-attach"));
    assert_eq!(revision("04-mem-set"), revision("06-rename"));
}

#[test]
fn a_directory_that_is_missing_is_an_error_and_is_not_created() {
    let parent = tempfile::tempdir().unwrap();
    let error = UserdataDir::open(parent.path().join("xen")).unwrap_err();
    assert_eq!(error.path, parent.path().join("xen"));
    assert_eq!(error.source.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(parent.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_read_only_directory_is_read_and_a_write_fails_without_a_trace() {
    if let Some(directory) = std::env::var_os(READ_ONLY) {
        return read_where_nothing_can_be_written(Path::new(&directory));
    }
    let directory = tempfile::tempdir().unwrap();
    let store = UserdataDir::open(directory.path()).unwrap();
    let template = TemplateText::new("{}").unwrap();
    create(&store, &key(1, "a7989683-6a5f-495a-b64f-11438bce7d66"), &template, later()).unwrap();
    create(&store, &key(2, "a7989683-6a5f-495a-b64f-11438bce7d66"), &template, later()).unwrap();
    // As a process leaves it that dies with the lock.
    fs::write(
        directory
            .path()
            .join("userdata-l.2.a7989683-6a5f-495a-b64f-11438bce7d66.domain-userdata-lock"),
        "",
    )
    .unwrap();
    let before = state(directory.path());
    let script = r#"mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 77
        exec "$1" --exact a_read_only_directory_is_read_and_a_write_fails_without_a_trace"#;
    let child = Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .args([directory.path(), &std::env::current_exe().unwrap()])
        .env(READ_ONLY, directory.path())
        .output();
    match child {
        Ok(child) if child.status.success() => {}
        Ok(child) if child.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&child.stdout))
        }
        other => {
            println!("skipped: a_read_only_directory_is_read: no mount namespace here: {other:?}");
        }
    }
    assert_eq!(state(directory.path()), before);
}

fn read_where_nothing_can_be_written(directory: &Path) {
    let store = UserdataDir::open(directory).unwrap();
    let keys = store.keys(later()).unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert_eq!(store.load(&key, Instant::now()).unwrap().unwrap().octets, b"{}");
        assert!(forget(&store, &key, later()).is_err());
        let text = TemplateText::new("{ }").unwrap();
        assert!(matches!(create(&store, &key, &text, later()), Err(CreateError::Lock(_))));
    }
}
