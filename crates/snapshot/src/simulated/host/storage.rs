//! The `qemu-storage-daemon` of a domain that has qcow2 disks, as libxl runs one QEMU per domain.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::json;
use xsclient::DomId;

use crate::simulated::spec::{DiskImage, DiskSpec};
use crate::simulated::wire::{Woken, wait};

/// How long it may take to write down what it holds of its images, before it is killed.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Most octets of its error text that are kept.
const TEXT_MAX: u64 = 4096;

/// Run as `sh -c SCRIPT PARENT ARGUMENTS`: if the host died before the death signal was set, nothing is started.
const UNLESS_ORPHANED: &str = r#"[ "$PPID" = "$0" ] && exec qemu-storage-daemon "$@""#;

/// A process that has a domain's qcow2 images open. It ends with this value, and with this process however that ends.
pub(super) struct StorageDaemon {
    pid: u32,
    pidfd: OwnedFd,
    qmp: PathBuf,
    nbd: PathBuf,
    /// Waits for the process, and returns what it said. The kernel sends the death signal when the **thread** ends that
    /// started the process, so this is the one.
    keeper: Option<JoinHandle<String>>,
}

impl StorageDaemon {
    /// Starts one if a disk is qcow2. The images may not be open yet when this returns: who opens its disks waits for them.
    pub(super) fn start(
        directory: &Path,
        domid: DomId,
        disks: &[DiskSpec],
    ) -> io::Result<Option<Self>> {
        let disks: Vec<_> = disks
            .iter()
            .filter_map(|disk| match &disk.image {
                DiskImage::Qcow2 { path } => Some((disk, path.as_path())),
                DiskImage::Raw { .. } => None,
            })
            .collect();
        if disks.is_empty() {
            return Ok(None);
        }
        let directory = std::path::absolute(directory)?;
        let qmp = directory.join(format!("qmp-libxl-{domid}"));
        let nbd = directory.join(format!("nbd-libxl-{domid}"));
        // Of a host that was killed.
        let _ = (fs::remove_file(&qmp), fs::remove_file(&nbd));
        // It listens before the daemon runs, so that nobody has to try again and again.
        let listener = UnixListener::bind(&nbd)?;
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "sh", "-c", UNLESS_ORPHANED]);
        command.arg(std::process::id().to_string()).args(arguments(&qmp, &disks)?);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::piped());

        let (sender, receiver) = mpsc::channel();
        let keeper = thread::Builder::new().name(format!("storage-{domid}")).spawn(move || {
            match started(command) {
                Ok((mut child, pidfd, stderr)) => {
                    // Whoever started it waits for this, or is gone and has dropped all there is.
                    let _ = sender.send(Ok((child.id(), pidfd)));
                    let text = stderr.map(text_of).unwrap_or_default();
                    if let Err(error) = child.wait() {
                        tracing::warn!(%error, "cannot wait for a qemu-storage-daemon");
                    }
                    text
                }
                Err(error) => {
                    let _ = sender.send(Err(error));
                    String::new()
                }
            }
        })?;
        let (pid, pidfd) =
            receiver.recv().map_err(|_| io::Error::other("the keeper's thread has ended"))??;
        Ok(Some(Self { pid, pidfd, qmp, nbd, keeper: Some(keeper) }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Where it listens for QMP.
    pub(super) fn qmp(&self) -> &Path {
        &self.qmp
    }

    /// Where its exports are, each under its disk's vdev.
    pub(super) fn nbd(&self) -> &Path {
        &self.nbd
    }

    /// Ends it, so that the images hold all that was written to them; returns what it said.
    pub(super) fn stop(mut self) -> String {
        self.end(Signal::TERM)
    }

    fn end(&mut self, signal: Signal) -> String {
        let Some(keeper) = self.keeper.take() else { return String::new() };
        // If it has ended already, there is nobody to get the signal.
        let _ = pidfd_send_signal(&self.pidfd, signal);
        let give_up = Instant::now() + END_LIMIT;
        if !matches!(wait(self.pidfd.as_fd(), PollFlags::IN, None, Some(give_up)), Ok(Woken::Ready))
        {
            tracing::warn!(pid = self.pid, "a qemu-storage-daemon does not end, and is killed");
            let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        }
        let text = keeper.join().unwrap_or_default();
        let _ = (fs::remove_file(&self.qmp), fs::remove_file(&self.nbd));
        text
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        self.end(Signal::KILL);
    }
}

fn started(mut command: Command) -> io::Result<(Child, OwnedFd, Option<ChildStderr>)> {
    let mut child = command.spawn()?;
    // Only the daemon itself is to hold the listener: when it ends, whoever waits for it is to know.
    drop(command);
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|errno| {
        let _ = child.kill().and_then(|()| child.wait());
        io::Error::from(errno)
    })?;
    let stderr = child.stderr.take();
    Ok((child, pidfd, stderr))
}

/// Monitor, nodes, server and exports, in the order in which they have to exist.
fn arguments(qmp: &Path, disks: &[(&DiskSpec, &Path)]) -> io::Result<Vec<OsString>> {
    let utf8 = |path: &Path| {
        let text = path.to_str().map(str::to_owned);
        text.ok_or_else(|| {
            let problem = format!("{}: the path is not UTF-8", path.display());
            io::Error::new(io::ErrorKind::InvalidInput, problem)
        })
    };
    // A comma in a value is doubled.
    let path = utf8(qmp)?.replace(',', ",,");
    let mut arguments =
        vec!["--chardev".to_owned(), format!("socket,id=qmp,path={path},server=on,wait=off")];
    arguments.extend(["--monitor".to_owned(), "chardev=qmp".to_owned()]);
    for (disk, path) in disks {
        let node = json!({
            "driver": "qcow2",
            "node-name": node_name(&disk.vdev),
            "read-only": disk.read_only,
            // As Xen's block backend in QEMU opens images.
            "file": { "driver": "file", "filename": utf8(path)?, "locking": "off" },
        });
        arguments.extend(["--blockdev".to_owned(), node.to_string()]);
    }
    arguments.extend(["--nbd-server".to_owned(), "addr.type=fd,addr.str=0".to_owned()]);
    for (disk, _) in disks {
        let export = json!({
            "type": "nbd",
            "id": disk.vdev,
            "name": disk.vdev,
            "node-name": node_name(&disk.vdev),
            "writable": !disk.read_only,
        });
        arguments.extend(["--export".to_owned(), export.to_string()]);
    }
    Ok(arguments.into_iter().map(OsString::from).collect())
}

fn node_name(vdev: &str) -> String {
    format!("{vdev}-qcow2")
}

/// What it says until it ends; the rest is read and forgotten, so that it never waits for a reader.
fn text_of(mut stderr: ChildStderr) -> String {
    let mut text = Vec::new();
    let _ = (&mut stderr).take(TEXT_MAX).read_to_end(&mut text);
    let _ = io::copy(&mut stderr, &mut io::sink());
    String::from_utf8_lossy(&text).trim().to_owned()
}
