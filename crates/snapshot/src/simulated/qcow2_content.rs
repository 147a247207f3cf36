//! What a guest would read from a qcow2 image.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::wire::{Woken, wait};

/// Most octets of `qemu-img`'s error text that are kept.
const TEXT_MAX: u64 = 4096;

/// All of it, in a sparse file without a name in `directory`.
pub(super) fn raw(image: &Path, directory: &Path, deadline: Instant) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let raw = File::from(rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR)?);
    let mut child = Command::new("qemu-img")
        // Whoever has it open may go on: what is looked at does not change any more.
        .args(["convert", "-U", "-f", "qcow2", "-O", "raw"])
        .arg(image)
        // The file, which has no other name.
        .arg("/dev/fd/0")
        .stdin(raw.try_clone()?)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| wait(pidfd.as_fd(), PollFlags::IN, None, Some(deadline)));
    if !matches!(ended, Ok(Woken::Ready)) {
        child.kill()?;
    }
    let status = child.wait()?;
    if ended? != Woken::Ready {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if status.success() {
        return Ok(raw);
    }
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(TEXT_MAX).read_to_end(&mut text)?;
    }
    Err(io::Error::other(String::from_utf8_lossy(&text).trim().to_owned()))
}
