//! Compiles a stand-in.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

/// The library that gcc makes of a source beside this one, in a directory of its own; why it cannot be made.
pub(crate) fn compile(
    source: &str,
    library: &str,
    more: &[&str],
) -> Result<(TempDir, PathBuf), String> {
    let directory = tempfile::tempdir().map_err(|error| error.to_string())?;
    let library = directory.path().join(library);
    let source = format!("{}/tests/fake/{source}", env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("gcc")
        .args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1", "-pthread"])
        .args(more)
        .arg("-o")
        .args([library.as_os_str(), source.as_ref()])
        .output()
        .map_err(|error| format!("gcc cannot be started: {error}"))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok((directory, library))
}
