//! Simulated hosts, each a process: this test program once more, asked to run one of its programs instead of tests.
//!
//! The crate itself has no program, since one that has a Xenstore depends on `xenstored`, which only tests may here.

use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use libxl_config::model::{Disk, DomainType, MemKb};
use snapshot::control::{DomainControl, DomainIdentity, DomainView};
use snapshot::simulated::{
    DomainSpec, GuestSpec, Host, HostProcess, HostXenstore, Inspection, Operator, SimulatedDomain,
    check, listener_on_stdin,
};
use tempfile::TempDir;
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Options};

/// Where a program finds what it is about.
pub(crate) const DIRECTORY: &str = "DOMKEEP_TEST_DIRECTORY";

/// One of the programs below, or in other modules: an ignored test that does nothing unless it finds its directory.
pub(crate) fn program(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--ignored", "--exact", name]).env(DIRECTORY, directory);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The directory, in a program.
pub(crate) fn directory_of_program() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

#[test]
#[ignore = "the program of a simulated host, which other tests start"]
fn simulated_host_program() {
    let Some(directory) = directory_of_program() else { return };
    let xenstore = Embedded::new(Store::new());
    let socket = directory.join("xenstore");
    let _served = xenstore.serve_unix(&socket).unwrap();
    let client = Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default());
    let host = Host::new(&directory, Some(HostXenstore::new(client, socket))).unwrap();
    let templates = directory.join("templates");
    std::fs::create_dir(&templates).unwrap();
    let host = host.with_templates(templates).unwrap();
    host.serve(&listener_on_stdin().unwrap()).unwrap();
}

/// A host with its directory.
pub(crate) struct TestHost {
    // Ended before its directory is removed.
    pub(crate) process: HostProcess,
    pub(crate) directory: TempDir,
}

pub(crate) fn start() -> TestHost {
    let directory = tempfile::tempdir().unwrap();
    let program = program("hosts::simulated_host_program", directory.path());
    let process = HostProcess::start(program, directory.path().join("host"), soon()).unwrap();
    TestHost { process, directory }
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// 4 MiB: more than any pipe holds.
pub(crate) const PAGES: u64 = 1024;
/// Not a multiple of what goes into a record.
const ABSENT: u64 = 300;
pub(crate) const SEED: u64 = 11;

impl TestHost {
    pub(crate) fn control(&self) -> SimulatedDomain {
        self.process.control()
    }

    pub(crate) fn operator(&self) -> Operator {
        self.process.operator()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// An empty image.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        File::create_new(&path).unwrap();
        path
    }

    /// A domain with two disks that has done a few ticks and runs on.
    pub(crate) fn running(&self, name: &str) -> DomainIdentity {
        let domain = self
            .create(name, GuestSpec { vcpus: 2, absent: ABSENT, ..GuestSpec::new(SEED, PAGES) });
        self.control().unpause(&domain, soon()).unwrap();
        self.operator().await_tick(&domain, 5, soon()).unwrap();
        domain
    }

    /// A paused domain with two disks.
    pub(crate) fn create(&self, name: &str, guest: GuestSpec) -> DomainIdentity {
        let spec = DomainSpec::new(name, uuid_of(name), guest)
            .with_disk("xvda", self.image(&format!("{name}-a")))
            .with_disk("xvdb", self.image(&format!("{name}-b")));
        self.operator().create(spec, soon()).unwrap().identity
    }

    pub(crate) fn inspect(&self, domain: &DomainIdentity) -> Inspection {
        self.operator().inspect(domain, true, soon()).unwrap()
    }

    /// A whole stream of a running domain, which is suspended then.
    pub(crate) fn suspended_to(&self, domain: &DomainIdentity, name: &str) -> File {
        let file = File::create_new(self.path(name)).unwrap();
        self.control().suspend_to(domain, file.as_fd(), false, soon().into()).unwrap();
        self.open(name)
    }

    pub(crate) fn open(&self, name: &str) -> File {
        File::open(self.path(name)).unwrap()
    }

    /// Copies of the images, and what the copy of a domain is built from.
    pub(crate) fn copied(&self, domain: &str, copy: &str) -> DomainConfig {
        let mut config = configuration(copy, uuid_of(copy), PAGES + ABSENT);
        for (vdev, letter) in [("xvda", "a"), ("xvdb", "b")] {
            let image = self.path(&format!("{copy}-{letter}"));
            std::fs::copy(self.path(&format!("{domain}-{letter}")), &image).unwrap();
            config.disks.push(disk(vdev, &image));
        }
        config
    }

    pub(crate) fn build(&self, config: &DomainConfig, stream: &File) -> DomainView {
        self.control().build_from(config, stream.as_fd(), soon().into()).unwrap()
    }

    /// The last tick on an image; it panics if the image is not of one moment.
    pub(crate) fn disk_tick(&self, number: usize, name: &str) -> u64 {
        check::raw_disk(SEED, number, &self.open(name)).unwrap()
    }
}

pub(crate) fn configuration(name: &str, uuid: Uuid, pages: u64) -> DomainConfig {
    let mut config = DomainConfig::default();
    config.c_info.domain_type = DomainType::Pv;
    config.c_info.name = Some(name.to_owned());
    config.c_info.uuid = uuid;
    config.b_info.max_memkb = MemKb::new(pages * 4);
    config
}

pub(crate) fn disk(vdev: &str, image: &Path) -> Disk {
    Disk {
        vdev: Some(vdev.to_owned()),
        pdev_path: Some(image.to_str().unwrap().to_owned()),
        readwrite: 1,
        ..Disk::default()
    }
}

pub(crate) fn uuid_of(name: &str) -> Uuid {
    let octets = name.bytes().chain(std::iter::repeat(0)).take(16).collect::<Vec<_>>();
    Uuid::from_slice(&octets).unwrap()
}
