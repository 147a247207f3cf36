//! The cache of packages.

use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, thread};

use stock_xenstore::{Packages, Tools, Unavailable};

use crate::started::packages;

#[test]
fn an_absent_tool_is_named_before_anything_is_downloaded() {
    let absent = PathBuf::from("/nonexistent/tool");
    for tools in [
        Tools { apt_get: absent.clone(), ..Tools::default() },
        Tools { dpkg_deb: absent.clone(), apt_get: "true".into(), ..Tools::default() },
        Tools { cc: absent.clone(), apt_get: "true".into(), dpkg_deb: "true".into() },
    ] {
        let cache = tempfile::tempdir().unwrap();
        let error = Packages::fetch_with(cache.path(), &tools).unwrap_err();
        let Unavailable::ToolMissing { tool, .. } = &error else { panic!("{error}") };
        assert_eq!(tool, &absent);
        assert!(error.to_string().contains("`/nonexistent/tool` is not installed"), "{error}");
        let left: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().path()).collect();
        assert_eq!(left, [cache.path().join("lock")]);
    }
}

#[test]
fn a_failed_download_is_quoted_and_leaves_nothing() {
    let cache = tempfile::tempdir().unwrap();
    let script = cache.path().join("apt-get");
    fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = --version ] || { echo E: no network >&2; exit 100; }\n",
    )
    .unwrap();
    let mut permissions = fs::metadata(&script).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    fs::set_permissions(&script, permissions).unwrap();
    let tools = Tools { apt_get: script, dpkg_deb: "true".into(), cc: "true".into() };
    let directory = cache.path().join("cache");
    let error = Packages::fetch_with(&directory, &tools).unwrap_err();
    assert!(error.to_string().ends_with("E: no network"), "{error}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "only the lock is left");
}

#[test]
fn callers_at_once_get_one_finished_cache_and_later_ones_at_once() {
    const TEST: &str = "callers_at_once_get_one_finished_cache_and_later_ones_at_once";
    if packages(TEST).is_none() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let roots: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> =
            (0..4).map(|_| scope.spawn(|| Packages::fetch(cache.path()))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for packages in roots {
        match packages {
            Ok(packages) => assert!(packages.version().starts_with("4.17")),
            // The workspace's cache may be older than the loss of the network.
            Err(reason) => return println!("skipped: {TEST}: {reason}"),
        }
    }
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 3, "lock, packages, stand-in");
    let before = Instant::now();
    let no_tools = || PathBuf::from("/nonexistent/tool");
    let tools = Tools { apt_get: no_tools(), dpkg_deb: no_tools(), cc: no_tools() };
    Packages::fetch_with(cache.path(), &tools).unwrap();
    assert!(before.elapsed() < Duration::from_secs(1));
}
