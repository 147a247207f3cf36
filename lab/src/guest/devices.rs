//! What the guest sees of its devices.

use std::ffi::CString;
use std::fs;
use std::io;

use rustix::mount::{MountFlags, UnmountFlags, mount};

use super::Answer;

/// Names a line: `disk NAME SECTORS` for each disk, `net NAME MAC` for each interface.
pub(super) fn list() -> Answer {
    let mut found = Vec::new();
    for name in names("/sys/block")? {
        if name.starts_with("xvd") {
            found.push(format!("disk {name} {}", attribute(&format!("/sys/block/{name}/size"))));
        }
    }
    for name in names("/sys/class/net")? {
        if name != "lo" {
            found.push(format!(
                "net {name} {}",
                attribute(&format!("/sys/class/net/{name}/address"))
            ));
        }
    }
    Ok(found.join("\n"))
}

/// Mounts a 9p share at /mnt/TAG.
pub(super) fn mount_9p(tag: &str) -> Answer {
    let at = format!("/mnt/{tag}");
    fs::create_dir_all(&at)?;
    let options = CString::new("trans=xen,version=9p2000.L")?;
    mount(tag, at.as_str(), "9p", MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(at)
}

pub(super) fn unmount(at: &str) -> Answer {
    rustix::mount::unmount(at, UnmountFlags::empty())?;
    Ok(String::new())
}

fn names(directory: &str) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

fn attribute(file: &str) -> String {
    fs::read_to_string(file).map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}
