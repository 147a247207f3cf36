//! A host, its domains, and what is saved and restored of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::retrieve::Retriever;
use libxl_config::template::UserdataDir;
use serde::{Deserialize, Serialize};
use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::disk::BackingName;
use snapshot::disk::image::ImageFormat;
use snapshot::disk::qemu_img::QemuImg;
use snapshot::image::Limits;
use snapshot::image::mapped::MappedReader;
use snapshot::recover::{RecoverError, Recovered};
use snapshot::restore::{DiskRestore, RestoreMode, RestoreRequest, UuidChoice};
use snapshot::save::{
    After, Consistency, DiskRequest, DiskRequestAction, MemoryFormat, MemoryRequest, SaveRequest,
};
use snapshot::simulated::{
    DomainSpec, GuestSpec, Host, HostProcess, HostXenstore, Operator, SimulatedDomain, check,
    listener_on_stdin,
};
use snapshot::{HostAccess, Observer, Snapshot};
use tempfile::TempDir;
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Options};

use super::program;

const DIRECTORY: &str = "DOMKEEP_TEST_KILLS_DIRECTORY";
/// 4 MiB: more than any pipe holds.
const PAGES: u64 = 1024;
const SEED: u64 = 23;
/// The disks, and their images in a round's directory.
pub(super) const DISKS: [(&str, &str); 2] = [("xvda", "a"), ("xvdb", "b")];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Format {
    Stream,
    Mapped,
}

/// What is saved, and what becomes of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saving {
    pub(super) format: Format,
    /// The second disk gets a snapshot inside its image, instead of an overlay.
    pub(super) inside: bool,
    pub(super) after: After,
    /// Whether there is a guardian.
    pub(super) is_guarded: bool,
}

/// The tag of a snapshot inside an image.
pub(super) const TAG: &str = "before";

impl From<Format> for Saving {
    fn from(format: Format) -> Self {
        Self { format, inside: false, after: After::Resume, is_guarded: true }
    }
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

#[test]
#[ignore = "the program of a simulated host, which other tests start"]
fn host_program() {
    let Some(directory) = std::env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let xenstore = Embedded::new(Store::new());
    let socket = directory.join("xenstore");
    let _served = xenstore.serve_unix(&socket).unwrap();
    let client = Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default());
    let host = Host::new(&directory, Some(HostXenstore::new(client, socket))).unwrap();
    let host = host.with_templates(directory.join("templates")).unwrap();
    host.serve(&listener_on_stdin().unwrap()).unwrap();
}

/// Whether QEMU's programs are there; otherwise says that the test is skipped.
pub(super) fn available(test: &str) -> bool {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return false;
        }
    }
    true
}

/// A host in a process of its own.
pub(super) struct World {
    // Ended before its directory is removed.
    process: HostProcess,
    directory: TempDir,
}

impl World {
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("templates")).unwrap();
        let mut program = Command::new(std::env::current_exe().unwrap());
        program.args(["--ignored", "--exact", "kills::world::host_program"]);
        program.env(DIRECTORY, directory.path()).stdout(Stdio::null());
        let process = HostProcess::start(program, directory.path().join("host"), soon()).unwrap();
        Self { process, directory }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn control(&self) -> SimulatedDomain {
        self.process.control()
    }

    pub(super) fn operator(&self) -> Operator {
        self.process.operator()
    }

    /// A directory with something of somebody else's.
    pub(super) fn files(&self, name: &str) -> PathBuf {
        let files = self.path().join(name);
        fs::create_dir(&files).unwrap();
        for other in ["other", "memory.bak", ".partial-0-memory"] {
            fs::write(files.join(other), "of another").unwrap();
        }
        files
    }

    /// A domain with two qcow2 disks in a directory, which runs.
    pub(super) fn running(&self, name: &str, files: &Path) -> DomainIdentity {
        let mut spec = DomainSpec::new(name, uuid_of(name), guest());
        for (vdev, letter) in DISKS {
            let image = files.join(letter);
            let created = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "8M"])
                .status();
            assert!(created.unwrap().success());
            spec = spec.with_qcow2_disk(vdev, image);
        }
        let domain = self.operator().create(spec, soon()).unwrap().identity;
        self.control().unpause(&domain, soon()).unwrap();
        self.operator().await_tick(&domain, 5, soon()).unwrap();
        domain
    }

    /// The guest does something from now on, and has found all that it had.
    pub(super) fn runs_on(&self, domain: &DomainIdentity) {
        let tick = self.operator().inspect(domain, false, soon()).unwrap().tick;
        self.operator().await_tick(domain, tick + 5, soon()).unwrap();
        let inspection = self.operator().inspect(domain, true, soon()).unwrap();
        assert_eq!(inspection.wrong, None);
        assert_eq!(inspection.view.state, DomainState::Running);
    }

    /// The images that template and Xenstore name, which agree.
    pub(super) fn configured(&self, domain: &DomainIdentity) -> Vec<PathBuf> {
        let mut client = xenstore(self.path()).unwrap();
        let templates = templates(self.path());
        let retrieved = Retriever::new(&mut client, &templates).retrieve(domain.domid).unwrap();
        assert!(retrieved.report.is_clean(), "{:#?}", retrieved.report);
        let disks = retrieved.config.disks.iter();
        disks.map(|disk| disk.pdev_path.clone().unwrap().into()).collect()
    }

    /// Ends a domain, whose images hold all that its guest has written.
    pub(super) fn end(&self, domain: &DomainIdentity, images: &[PathBuf]) {
        self.control().suspend_only(domain, soon().into()).unwrap();
        let tick = self.operator().inspect(domain, false, soon()).unwrap().tick;
        self.control().destroy(domain, soon()).unwrap();
        assert_eq!(self.ticks(images), [tick, tick]);
    }

    /// The snapshots inside an image.
    pub(super) fn tags(&self, image: &Path) -> Vec<String> {
        let info = QemuImg::default().info(image, ImageFormat::Qcow2, true, soon()).unwrap();
        info.snapshots.into_iter().map(|snapshot| snapshot.name).collect()
    }

    /// The tick of the snapshot inside an image that may be written meanwhile.
    pub(super) fn tick_inside(&self, number: usize, image: &Path) -> u64 {
        let raw = self.path().join("inside");
        let converted = Command::new("qemu-img")
            .args(["convert", "-U", "-l", &format!("snapshot.name={TAG}"), "-O", "raw"])
            .args([image, &*raw])
            .status();
        assert!(converted.unwrap().success());
        let tick = check::raw_disk(SEED, number, &fs::File::open(&raw).unwrap()).unwrap();
        fs::remove_file(raw).unwrap();
        tick
    }

    pub(super) fn ticks(&self, images: &[PathBuf]) -> Vec<u64> {
        images.iter().enumerate().map(|(number, image)| self.tick(number, image)).collect()
    }

    pub(super) fn tick(&self, number: usize, image: &Path) -> u64 {
        check::qcow2_disk(SEED, number, image, self.path(), soon()).unwrap()
    }
}

/// The socket of a domain's QEMU.
pub(super) fn qmp(host: &Path, domain: &DomainIdentity) -> PathBuf {
    host.join(format!("qmp-libxl-{}", domain.domid))
}

fn uuid_of(name: &str) -> Uuid {
    let octets = name.bytes().chain(std::iter::repeat(0)).take(16).collect::<Vec<_>>();
    Uuid::from_slice(&octets).unwrap()
}

fn guest() -> GuestSpec {
    GuestSpec::new(SEED, PAGES)
}

fn xenstore(host: &Path) -> Result<Client, xsclient::OpenError> {
    Client::open(Endpoint::UnixSocket(host.join("xenstore")), Options::default())
}

fn templates(host: &Path) -> UserdataDir {
    UserdataDir::open(host.join("templates")).unwrap()
}

/// The host, as whoever saves or restores is given it.
fn with_access<T>(host: &Path, is_guarded: bool, call: impl FnOnce(&mut HostAccess<'_>) -> T) -> T {
    let (control, templates) = (SimulatedDomain::new(host.join("host")), templates(host));
    let xenstore = |_: Instant| xenstore(host);
    call(&mut HostAccess {
        control: &control,
        xenstore: &xenstore,
        templates: &templates,
        hypervisor: None,
        qemu_img: QemuImg::default(),
        guardian: is_guarded.then(program::guardian),
        hooks: BTreeMap::new(),
        quiescers: BTreeMap::new(),
    })
}

/// Saves a domain whole, into `memory`, `xenstore`, `a-1`, `b-1` and `journal`, with `digests` beside a stream.
pub(super) fn save(
    host: &Path,
    files: &Path,
    domain: &DomainIdentity,
    saving: Saving,
    observer: &mut Observer<'_>,
) -> Snapshot {
    let target = |name: &str| files.join(name).into();
    let mut request = SaveRequest::new(*domain);
    let before = files.join("qmp");
    request.qmp = Some(if before.exists() { before } else { qmp(host, domain) });
    request.disks = DISKS
        .map(|(vdev, letter)| {
            let action = if saving.inside && letter == "b" {
                DiskRequestAction::InternalQcow2 { tag: TAG.into(), node: None }
            } else {
                DiskRequestAction::ExternalQcow2 {
                    overlay: target(&format!("{letter}-1")),
                    node: None,
                    overlay_node: None,
                    backing: BackingName::Absolute,
                    digest: true,
                }
            };
            DiskRequest { vdev: vdev.into(), action }
        })
        .into();
    request.after = saving.after;
    let format = match saving.format {
        Format::Stream => MemoryFormat::Stream { side_digest: Some(target("digests")) },
        Format::Mapped => MemoryFormat::Mapped,
    };
    request.memory = Some(MemoryRequest { target: target("memory"), format, live: false });
    request.xenstore = Some(target("xenstore"));
    request.min_consistency = Consistency::Complete;
    request.journal = Some(target("journal"));
    with_access(host, saving.is_guarded, |access| {
        let plan = snapshot::save::plan_save(access, request).unwrap();
        program::begins();
        snapshot::save::save(access, plan, observer).unwrap()
    })
}

/// Restores a snapshot in the place of a domain, or beside it as `copy`, over new images `a-2` and `b-2`.
pub(super) fn restore(
    host: &Path,
    files: &Path,
    manifest: &Path,
    mode: RestoreMode,
    observer: &mut Observer<'_>,
) {
    let snapshot = Snapshot::from_json(&fs::read_to_string(manifest).unwrap()).unwrap();
    let mut request = RestoreRequest::new(snapshot);
    request.mode = mode;
    if mode == RestoreMode::New {
        request.identity.name = Some("copy".into());
        request.identity.uuid = UuidChoice::New(Uuid::from_u128(77));
    }
    for (vdev, letter) in DISKS {
        let overlay = files.join(format!("{letter}-2")).into();
        request.disks.insert(vdev.into(), DiskRestore::NewOverlay { overlay });
    }
    request.journal = Some(files.join("journal").into());
    with_access(host, false, |access| {
        let plan = snapshot::plan_restore(access, request).unwrap();
        program::begins();
        snapshot::restore::restore(access, plan, observer).unwrap();
    });
}

/// Recovers whatever the journal there is of.
pub(super) fn recover(
    host: &Path,
    files: &Path,
    observer: &mut Observer<'_>,
) -> Result<Recovered, RecoverError> {
    with_access(host, false, |access| snapshot::recover(access, &files.join("journal"), observer))
}

/// What a memory image holds, which is checked.
pub(super) fn memory_of(path: &Path, format: Format) -> check::CheckedMemory {
    let file = fs::File::open(path).unwrap();
    match format {
        Format::Stream => check::stream(&mut &file).unwrap(),
        Format::Mapped => {
            let image = MappedReader::open(file, Limits::default()).unwrap();
            image.verify().unwrap();
            let mut stream = tempfile::tempfile().unwrap();
            image
                .write_stream(stream.as_fd().try_clone_to_owned().map(fs::File::from).unwrap())
                .unwrap();
            std::io::Seek::rewind(&mut stream).unwrap();
            check::stream(&mut stream).unwrap()
        }
    }
}
