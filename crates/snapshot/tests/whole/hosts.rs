//! Simulated hosts, each a process, and what a saver has of one.

use std::collections::BTreeMap;
use std::env;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::retrieve::Retriever;
use libxl_config::template::UserdataDir;
use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::disk::image::ImageFormat;
use snapshot::disk::qemu_img::QemuImg;
use snapshot::disk::{BackingName, CopyMethod};
use snapshot::guard;
use snapshot::save::{
    DiskRequest, DiskRequestAction, MemoryFormat, MemoryRequest, SaveFailure, SaveRequest,
};
use snapshot::simulated::{
    DomainSpec, GuestSpec, Host, HostProcess, HostXenstore, Inspection, Operator, SimulatedDomain,
    check, listener_on_stdin,
};
use snapshot::{GuardianProgram, HostAccess, Observer, Snapshot, plan_save, save};
use tempfile::TempDir;
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, OpenError, Options};

/// Where a program finds what it is about.
const DIRECTORY: &str = "DOMKEEP_TEST_DIRECTORY";
/// 4 MiB: more than any pipe holds.
pub(crate) const PAGES: u64 = 1024;
pub(crate) const SEED: u64 = 11;

/// This test program once more, asked to run one of its programs: an ignored test that does nothing unless it finds its directory.
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

#[test]
#[ignore = "the program of a guardian, which savers start"]
fn guardian_program() {
    let mut input = BufReader::new(io::stdin());
    let Ok(needs) = guard::read_needs(&mut input) else { return };
    let control = SimulatedDomain::from_guardian(&needs).unwrap();
    // What the tests' own runner has begun to say ends here.
    io::stdout().write_all(b"\n").unwrap();
    guard::run(&control, &needs.domain, input, io::stdout()).unwrap();
}

pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Whether QEMU's programs are there; otherwise says that the test is skipped.
pub(crate) fn has_qemu(test: &str) -> bool {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return false;
        }
    }
    true
}

/// A host with its directory.
pub(crate) struct TestHost {
    // Ended before its directory is removed.
    pub(crate) process: HostProcess,
    pub(crate) directory: TempDir,
    pub(crate) templates: UserdataDir,
    pub(crate) control: SimulatedDomain,
    open: Box<dyn Fn(Instant) -> Result<Client, OpenError>>,
}

pub(crate) fn start() -> TestHost {
    let directory = tempfile::tempdir().unwrap();
    let program = program("hosts::simulated_host_program", directory.path());
    let process = HostProcess::start(program, directory.path().join("host"), soon()).unwrap();
    std::fs::create_dir(directory.path().join("saved")).unwrap();
    TestHost::of(process, directory)
}

pub(crate) fn uuid_of(name: &str) -> Uuid {
    let octets = name.bytes().chain(std::iter::repeat(0)).take(16).collect::<Vec<_>>();
    Uuid::from_slice(&octets).unwrap()
}

pub(crate) fn connect(socket: PathBuf) -> Box<dyn Fn(Instant) -> Result<Client, OpenError>> {
    Box::new(move |_| Client::open(Endpoint::UnixSocket(socket.clone()), Options::default()))
}

impl TestHost {
    fn of(process: HostProcess, directory: TempDir) -> Self {
        let view = process.operator().host(soon()).unwrap();
        let templates = UserdataDir::open(view.templates.unwrap()).unwrap();
        let open = connect(view.xenstore.unwrap());
        let control = process.control();
        Self { process, directory, templates, control, open }
    }

    pub(crate) fn operator(&self) -> Operator {
        self.process.operator()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where what is saved goes: nothing else is there.
    pub(crate) fn saved(&self, name: &str) -> PathBuf {
        self.path("saved").join(name)
    }

    /// Names of all that is in the directory of what is saved.
    pub(crate) fn saved_names(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(self.path("saved"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// With a guardian, and without hooks and quiescers.
    pub(crate) fn access(&self) -> HostAccess<'_> {
        let arguments = ["--ignored", "--exact", "hosts::guardian_program"];
        HostAccess {
            control: &self.control,
            xenstore: &*self.open,
            templates: &self.templates,
            hypervisor: None,
            qemu_img: QemuImg::default(),
            guardian: Some(GuardianProgram {
                program: env::current_exe().unwrap(),
                arguments: arguments.map(str::to_owned).to_vec(),
            }),
            hooks: BTreeMap::new(),
            quiescers: BTreeMap::new(),
        }
    }

    /// A domain with two raw disks that has done a few ticks and runs on.
    pub(crate) fn running(&self, name: &str) -> DomainIdentity {
        let image = |letter| {
            let path = self.path(&format!("{name}-{letter}"));
            File::create_new(&path).unwrap();
            path
        };
        self.run(
            DomainSpec::new(name, uuid_of(name), GuestSpec::new(SEED, PAGES))
                .with_disk("xvda", image("a"))
                .with_disk("xvdb", image("b")),
        )
    }

    /// The same with qcow2 disks behind a QEMU.
    pub(crate) fn running_qcow2(&self, name: &str) -> DomainIdentity {
        self.running_qcow2_over(name, &|_| ())
    }

    /// The same, with images that something was done to before anybody opened them.
    pub(crate) fn running_qcow2_over(&self, name: &str, prepare: &dyn Fn(&Path)) -> DomainIdentity {
        let image = |letter| {
            let path = self.path(&format!("{name}-{letter}"));
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", path.to_str().unwrap(), "8M"])
                .status();
            assert!(made.unwrap().success());
            prepare(&path);
            path
        };
        self.run(
            DomainSpec::new(name, uuid_of(name), GuestSpec::new(SEED, PAGES))
                .with_qcow2_disk("xvda", image("a"))
                .with_qcow2_disk("xvdb", image("b")),
        )
    }

    fn run(&self, spec: DomainSpec) -> DomainIdentity {
        let domain = self.operator().create(spec, soon()).unwrap().identity;
        self.control.unpause(&domain, soon()).unwrap();
        self.operator().await_tick(&domain, 5, soon()).unwrap();
        domain
    }

    pub(crate) fn inspect(&self, domain: &DomainIdentity) -> Inspection {
        self.operator().inspect(domain, true, soon()).unwrap()
    }

    /// The guest runs, has lost nothing, and goes on.
    pub(crate) fn assert_goes_on(&self, domain: &DomainIdentity) {
        assert_eq!(self.control.state(domain, soon()).unwrap(), DomainState::Running);
        let tick = self.inspect(domain).tick;
        let later = self.operator().await_tick(domain, tick + 20, soon()).unwrap();
        assert_eq!(later.wrong, None);
        assert_eq!(self.inspect(domain).wrong, None);
    }

    /// The images that Xenstore and template agree on.
    pub(crate) fn configured(&self, domain: &DomainIdentity) -> Vec<PathBuf> {
        let mut client = (self.open)(soon()).unwrap();
        let retrieved = Retriever::new(&mut client, &self.templates).retrieve(domain.domid);
        let retrieved = retrieved.unwrap();
        assert!(retrieved.report.is_clean(), "{:#?}", retrieved.report);
        let disks = retrieved.config.disks.into_iter();
        disks.map(|disk| PathBuf::from(disk.pdev_path.unwrap())).collect()
    }

    /// The last tick on each frozen disk; it panics if one is not of one moment.
    pub(crate) fn frozen_ticks(&self, snapshot: &Snapshot) -> Vec<u64> {
        let ticks = snapshot.disks.iter().enumerate().map(|(number, disk)| {
            let path = &disk.frozen.path;
            match disk.frozen.format {
                ImageFormat::Raw => {
                    check::raw_disk(SEED, number, &File::open(path).unwrap()).unwrap()
                }
                ImageFormat::Qcow2 => {
                    check::qcow2_disk(SEED, number, path, self.directory.path(), soon()).unwrap()
                }
            }
        });
        ticks.collect()
    }

    pub(crate) fn save(&self, request: SaveRequest) -> Result<Snapshot, Box<SaveFailure>> {
        let mut access = self.access();
        let plan = plan_save(&mut access, request).unwrap();
        save(&mut access, plan, &mut Observer::none())
    }

    /// Copies of both disks, and a journal.
    pub(crate) fn copying(&self, domain: &DomainIdentity) -> SaveRequest {
        let mut request = SaveRequest::new(*domain);
        for (vdev, name) in [("xvda", "a"), ("xvdb", "b")] {
            let destination = self.saved(name).into();
            let action = DiskRequestAction::Copy {
                destination,
                method: CopyMethod::ReflinkOrSparse,
                digest: true,
            };
            request.disks.push(DiskRequest { vdev: vdev.into(), action });
        }
        request.journal = Some(self.path("journal").into());
        request
    }

    /// Overlays over both disks, and a journal.
    pub(crate) fn overlaying(&self, domain: &DomainIdentity) -> SaveRequest {
        let mut request = SaveRequest::new(*domain);
        for (vdev, name) in [("xvda", "a"), ("xvdb", "b")] {
            let action = DiskRequestAction::ExternalQcow2 {
                overlay: self.saved(name).into(),
                node: None,
                overlay_node: None,
                backing: BackingName::Absolute,
                digest: true,
            };
            request.disks.push(DiskRequest { vdev: vdev.into(), action });
        }
        request.qmp = self.inspect(domain).qmp;
        request.journal = Some(self.path("journal").into());
        request
    }

    /// With memory and Xenstore state as well.
    pub(crate) fn with_memory(
        &self,
        mut request: SaveRequest,
        format: MemoryFormat,
    ) -> SaveRequest {
        let target = self.saved("memory").into();
        request.memory = Some(MemoryRequest { target, format, live: false });
        request.xenstore = Some(self.saved("xenstore").into());
        request
    }
}

/// In a program: saves the domain of the host in that directory, and is killed while its memory is written.
pub(crate) fn save_and_die(directory: &Path) {
    use snapshot::Phase;
    let control = SimulatedDomain::new(directory.join("host"));
    let domid = std::fs::read_to_string(directory.join("domain")).unwrap().parse().unwrap();
    let domain = control.find(DomId::new(domid), soon()).unwrap().unwrap().identity;
    let open = connect(directory.join("xenstore"));
    let templates = UserdataDir::open(directory.join("templates")).unwrap();
    let arguments = ["--ignored", "--exact", "hosts::guardian_program"];
    let mut access = HostAccess {
        control: &control,
        xenstore: &*open,
        templates: &templates,
        hypervisor: None,
        qemu_img: QemuImg::default(),
        guardian: Some(GuardianProgram {
            program: env::current_exe().unwrap(),
            arguments: arguments.map(str::to_owned).to_vec(),
        }),
        hooks: BTreeMap::new(),
        quiescers: BTreeMap::new(),
    };
    let mut request = SaveRequest::new(domain);
    for vdev in ["xvda", "xvdb"] {
        let destination = directory.join("saved").join(vdev).into();
        let method = CopyMethod::Sparse;
        let action = DiskRequestAction::Copy { destination, method, digest: false };
        request.disks.push(DiskRequest { vdev: vdev.into(), action });
    }
    let target = directory.join("saved/memory").into();
    request.memory = Some(MemoryRequest { target, format: MemoryFormat::Mapped, live: false });
    request.journal = Some(directory.join("journal").into());
    let plan = plan_save(&mut access, request).unwrap();
    let mut progress = |progress: &snapshot::Progress| {
        if progress.phase == Phase::Memory && progress.done > 1 << 20 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    };
    let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress));
    panic!("it is to be killed before: {saved:?}");
}
