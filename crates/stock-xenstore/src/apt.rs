//! apt-get beside the system's own: its own lists and caches, no hooks, no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Unavailable;
use crate::commands::run;
use crate::fetch::in_cache as at;

/// For one run of apt-get: some 20 MB of lists or 2 MB of packages, over a slow line.
pub(crate) const DOWNLOAD_LIMIT: Duration = Duration::from_mins(3);

const TO_UPDATE: &str = "download Debian's package lists";

/// Fetches package lists below the directory `work`, and gives the configuration that has apt-get use them.
pub fn own_lists(work: &Path, apt_get: &Path) -> Result<PathBuf, Unavailable> {
    let state = work.join("apt");
    for directory in ["lists/partial", "cache/archives/partial"] {
        let directory = state.join(directory);
        fs::create_dir_all(&directory).map_err(at(&directory))?;
    }
    let private =
        format!("Dir::State::Lists \"{0}/lists\";\nDir::Cache \"{0}/cache\";\n", state.display());
    let with_own_lists = write_configuration(&work.join("own.conf"), &private)?;
    run(
        Command::new(apt_get).arg("-c").arg(&with_own_lists).arg("update"),
        TO_UPDATE,
        DOWNLOAD_LIMIT,
    )?;
    Ok(with_own_lists)
}

/// Writes to `file` a configuration, of which `more` is a part, that apt-get reads after the system's.
pub fn write_configuration(file: &Path, more: &str) -> Result<PathBuf, Unavailable> {
    // The system's hooks would run on its own caches. As root, apt drops privileges that it needs to write here. An
    // update that could not reach a server counts as failed.
    let text = format!(
        "#clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         APT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"1\";\n\
         Acquire::http::Timeout \"20\";\n\
         Acquire::https::Timeout \"20\";\n\
         {more}"
    );
    fs::write(file, text).map_err(at(file))?;
    Ok(file.to_owned())
}
