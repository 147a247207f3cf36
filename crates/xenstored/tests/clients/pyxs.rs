//! pyxs, the Python client from PyPI.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use xenstored::Embedded;

const VERSION: &str = "0.4.1";

/// For pip, over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(2);

/// The directory with the package, downloaded once; or why it cannot be had.
fn package() -> Result<PathBuf, String> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let target = workspace.join(target);
    let package = target.join(format!("pyxs-{VERSION}"));
    if package.exists() {
        return Ok(package);
    }
    // Under its final name only when it is whole.
    let unfinished = tempfile::tempdir_in(&target).map_err(|error| error.to_string())?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    pip.arg("--target").arg(unfinished.path()).arg(format!("pyxs=={VERSION}"));
    stock_xenstore::run(&mut pip, "download pyxs", DOWNLOAD_LIMIT)
        .map_err(|unavailable| unavailable.to_string())?;
    match fs::rename(unfinished.keep(), &package) {
        Err(error) if !package.exists() => Err(error.to_string()),
        _ => Ok(package),
    }
}

#[test]
fn pyxs_reads_writes_commits_conflicts_and_monitors() {
    const TEST: &str = "pyxs_reads_writes_commits_conflicts_and_monitors";
    let package = match package() {
        Ok(package) => package,
        Err(reason) => return println!("skipped: {TEST}: {reason}"),
    };
    let directory = tempfile::tempdir().unwrap();
    let xenstore = Embedded::default();
    let server = xenstore.serve_unix(directory.path().join("socket")).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/with_pyxs.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(script)
        .arg(server.path())
        .env("PYTHONPATH", package)
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let complained = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{printed}{complained}");
    assert!(printed.ends_with("all checked\n"), "{printed}{complained}");
    let left = xenstore.snapshot();
    assert_eq!(left.read(&"/py/committed".parse().unwrap()), Some(&b"yes"[..]));
}
