//! QEMU's programs, or the reason why there are none.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snapshot::disk::qmp::QmpClient;
use tempfile::TempDir;

/// For everything that a test waits for; nothing should come near it.
pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// Whether the programs are there; otherwise says that the test is skipped.
pub(crate) fn available(test: &str, programs: &[&str]) -> bool {
    for program in programs {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return false;
        }
    }
    true
}

/// Runs `qemu-img` in a directory.
pub(crate) fn qemu_img(directory: &Path, arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the guest would read from an image: its first octets.
pub(crate) fn content(image: &Path, format: &str, octets: usize) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new().unwrap();
    let to = raw.path().to_str().unwrap();
    let from = image.to_str().unwrap();
    qemu_img(Path::new("/"), &["convert", "-U", "-f", format, "-O", "raw", from, to]);
    let mut read = std::fs::read(raw.path()).unwrap();
    read.truncate(octets);
    read
}

/// A `qemu-storage-daemon` with qcow2 disks, each a node `NAME-qcow2` and an NBD export `NAME`.
pub(crate) struct StorageDaemon {
    child: Child,
    pub(crate) directory: TempDir,
}

/// Octets of a disk.
pub(crate) const DISK: u64 = 8 << 20;

impl StorageDaemon {
    /// With new disks of these names.
    pub(crate) fn start(disks: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for disk in disks {
            let size = DISK.to_string();
            qemu_img(
                directory.path(),
                &["create", "-q", "-f", "qcow2", &format!("{disk}.qcow2"), &size],
            );
        }
        let described: Vec<_> = disks
            .iter()
            .map(|disk| {
                json!({
                    "driver": "qcow2",
                    "node-name": format!("{disk}-qcow2"),
                    "file": { "driver": "file", "filename": directory.path().join(format!("{disk}.qcow2")) },
                })
            })
            .collect();
        Self::start_in(directory, disks, &described)
    }

    /// With nodes that are described as for `blockdev-add`.
    pub(crate) fn start_in(directory: TempDir, disks: &[&str], described: &[Value]) -> Self {
        let mut command = Command::new("qemu-storage-daemon");
        let socket = directory.path().join("qmp");
        command
            .arg("--chardev")
            .arg(format!("socket,id=qmp,path={},server=on,wait=off", socket.display()));
        command.args(["--monitor", "chardev=qmp"]);
        for node in described {
            command.arg("--blockdev").arg(node.to_string());
        }
        let nbd = directory.path().join("nbd");
        command.arg("--nbd-server").arg(format!("addr.type=unix,addr.path={}", nbd.display()));
        for disk in disks {
            let export = format!("nbd,id={disk},node-name={disk}-qcow2,writable=on,name={disk}");
            command.arg("--export").arg(export);
        }
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, directory };
        let limit = deadline();
        while let Err(error) = QmpClient::connect(&daemon.qmp(), limit) {
            assert!(
                daemon.child.try_wait().unwrap().is_none() && Instant::now() < limit,
                "{error}"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        daemon
    }

    pub(crate) fn qmp(&self) -> PathBuf {
        self.path("qmp")
    }

    pub(crate) fn nbd(&self) -> PathBuf {
        self.path("nbd")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Names of the nodes with names, and what each rests on.
    pub(crate) fn graph(&self) -> Vec<(String, Option<String>)> {
        let mut client = QmpClient::connect(&self.qmp(), deadline()).unwrap();
        let nodes = client.nodes(deadline()).unwrap();
        let mut graph: Vec<_> = nodes
            .into_iter()
            .filter(|node| !node.name.starts_with('#'))
            .map(|node| (node.name, node.image.backing.map(|backing| backing.filename)))
            .collect();
        graph.sort();
        graph
    }

    /// Kills it, and waits for its end.
    pub(crate) fn end(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it in its tracks until the returned value is dropped.
    pub(crate) fn freeze(&self) -> Frozen {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        Frozen(pid)
    }
}

pub(crate) struct Frozen(rustix::process::Pid);

impl Drop for Frozen {
    fn drop(&mut self) {
        rustix::process::kill_process(self.0, rustix::process::Signal::CONT).unwrap();
    }
}

impl Drop for StorageDaemon {
    fn drop(&mut self) {
        self.end();
    }
}

/// Files of a directory, sorted, without sockets.
pub(crate) fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
