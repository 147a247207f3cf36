//! A host with a domain that was saved piece by piece, so that what a restore does depends on nothing that saves.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::model::{BuildKind, DevId, Disk, DiskFormat, DomainType, Mac, MemKb, Nic};
use libxl_config::template::MemoryStore;
use libxl_config::{DomainConfig, Layout};
use serde_json::{Value, json};
use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::disk::image::{Digest, ImageFormat, ImageRef};
use snapshot::disk::qemu_img::QemuImg;
use snapshot::disk::{DiskSnapshot, LiveOverlay, LiveOverlays, digest_image, snapshot};
use snapshot::image::{Limits, mapped, packed, passthrough};
use snapshot::restore::{DiskRestore, NewIdentity, RestoreRequest, UuidChoice};
use snapshot::simulated::check::{self, CheckedMemory};
use snapshot::simulated::{
    DomainSpec, GuestSpec, Host, HostProcess, HostXenstore, Inspection, Operator, SimulatedDomain,
    listener_on_stdin,
};
use snapshot::xenstore_state::{ExtractRequest, extract};
use snapshot::{HostAccess, RestorePlan, Snapshot, Target, plan_restore};
use tempfile::TempDir;
use uuid::Uuid;
use xenstore_migration::{ByteOrder, Peer, Preamble, StreamWriter, Version};
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Nodes, OpenError, Options};

pub(super) const DIRECTORY: &str = "DOMKEEP_TEST_RESTORE_DIRECTORY";
const PAGES: u64 = 1024;
const SEED: u64 = 23;
const DISKS: [&str; 2] = ["xvda", "xvdb"];

#[test]
#[ignore = "the program of a simulated host, which other tests start"]
fn simulated_host_program() {
    let Some(directory) = env::var_os(DIRECTORY).map(PathBuf::from) else { return };
    let xenstore = Embedded::new(Store::new());
    let socket = directory.join("xenstore");
    let _served = xenstore.serve_unix(&socket).unwrap();
    let client = Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default());
    let host = Host::new(&directory, Some(HostXenstore::new(client, socket))).unwrap();
    host.serve(&listener_on_stdin().unwrap()).unwrap();
}

pub(super) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// In which format memory is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    Stream,
    Mapped,
    Packed,
    No,
}

/// A host, its domain `web`, and a snapshot of that; the domain runs on.
pub(super) struct Saved {
    process: HostProcess,
    pub(super) directory: TempDir,
    pub(super) web: DomainIdentity,
    pub(super) snapshot: Snapshot,
    /// The same as the snapshot's memory.
    pub(super) memory: CheckedMemory,
    frozen: Vec<Vec<u8>>,
}

/// What became of the original.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Original {
    Runs,
    Paused,
    Destroyed,
}

/// As [`Saved`], or the reason why not.
pub(super) fn saved(test: &str, memory: Memory) -> Option<Saved> {
    saved_and(test, memory, Original::Runs)
}

pub(super) fn saved_and(test: &str, memory: Memory, original: Original) -> Option<Saved> {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return None;
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut program = Command::new(env::current_exe().unwrap());
    program.args(["--ignored", "--exact", "restore::saved::simulated_host_program"]);
    program.env(DIRECTORY, directory.path()).stdout(Stdio::null());
    let process = HostProcess::start(program, directory.path().join("host"), soon()).unwrap();
    Some(save(process, directory, memory, original))
}

fn save(process: HostProcess, directory: TempDir, format: Memory, original: Original) -> Saved {
    let at = |name: &str| directory.path().join(name);
    let mut spec = DomainSpec::new("web", Uuid::from_u128(0x77_6562), GuestSpec::new(SEED, PAGES));
    for vdev in DISKS {
        let arguments = ["create", "-q", "-f", "qcow2"];
        let made = Command::new("qemu-img").args(arguments).arg(at(vdev)).arg("8M").status();
        assert!(made.unwrap().success());
        spec = spec.with_qcow2_disk(vdev, at(vdev));
    }
    let (control, operator) = (process.control(), process.operator());
    let web = operator.create(spec, soon()).unwrap().identity;
    control.unpause(&web, soon()).unwrap();
    operator.await_tick(&web, 5, soon()).unwrap();

    let stream = File::create_new(at("stream")).unwrap();
    control.suspend_to(&web, stream.as_fd(), false, soon().into()).unwrap();
    let memory = check::stream(&mut File::open(at("stream")).unwrap()).unwrap();
    let xenstore = saved_xenstore(&mut connected(&operator).unwrap(), web, &at("xenstore-state"));
    let qmp = operator.inspect(&web, false, soon()).unwrap().qmp.unwrap();
    let overlays = DISKS.map(|vdev| {
        let overlay = at(&format!("{vdev}-1"));
        LiveOverlay::new(vdev, format!("{vdev}-qcow2"), overlay, format!("{vdev}-1"))
    });
    let disks = snapshot(&mut LiveOverlays::new(qmp, overlays.to_vec()), soon()).unwrap();
    match original {
        Original::Runs => control.resume(&web, soon()).unwrap(),
        Original::Paused => {
            control.pause(&web, soon()).unwrap();
            control.resume(&web, soon()).unwrap();
        }
        Original::Destroyed => control.destroy(&web, soon()).unwrap(),
    }

    let disks: Vec<_> = disks.into_iter().map(digested).collect();
    let frozen = disks.iter().map(|disk| fs::read(&disk.frozen.path).unwrap()).collect();
    let memory_artifact = saved_memory(format, &at("stream"), &at("memory"));
    let snapshot = as_snapshot(web, &disks, &memory_artifact, &xenstore, &configuration(&at));
    Saved { process, directory, web, snapshot, memory, frozen }
}

fn digested(mut disk: DiskSnapshot) -> DiskSnapshot {
    // What the transaction wrote last shows in the image's times.
    disk.frozen = ImageRef::read(&disk.frozen.path, disk.frozen.format).unwrap();
    let mut go_on = |_| std::ops::ControlFlow::Continue(());
    disk.digest = Some(digest_image(&disk.frozen.path, &disk.frozen, soon(), &mut go_on).unwrap());
    disk.chain[0] = disk.frozen.clone();
    disk
}

fn saved_memory(format: Memory, stream: &Path, image: &Path) -> Value {
    let input = File::open(stream).unwrap();
    let octets = input.metadata().unwrap().len();
    let (side, _) = passthrough::copy(&input, std::io::sink(), Limits::default()).unwrap();
    let digest = side.stream_digest().to_string();
    let new = || File::options().read(true).write(true).create_new(true).open(image).unwrap();
    let input = File::open(stream).unwrap();
    let name = match format {
        Memory::No => return Value::Null,
        Memory::Stream => {
            fs::copy(stream, image).unwrap();
            "stream"
        }
        Memory::Mapped => {
            mapped::write(input, new(), &Default::default()).unwrap().mark_complete().unwrap();
            "mapped"
        }
        Memory::Packed => {
            packed::write(input, new(), &Default::default()).unwrap().mark_complete().unwrap();
            "packed"
        }
    };
    json!({
        "location": { "path": image },
        "format": name,
        "stream_octets": octets,
        "file_octets": image.metadata().unwrap().len(),
        "stored_octets": null,
        "stream_digest": digest,
        "side_digest": null,
    })
}

fn saved_xenstore(client: &mut Client, web: DomainIdentity, path: &Path) -> Value {
    let state = extract(client, &ExtractRequest::new(web.domid, soon())).unwrap().state;
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification).unwrap();
    assert!(state.to_stream(&mut writer).unwrap().is_empty());
    let octets = writer.finish().unwrap();
    fs::write(path, &octets).unwrap();
    json!({
        "location": { "path": path },
        "octets": octets.len(),
        "digest": Digest::of(&octets),
        "nodes": state.nodes.len(),
        "missing": [],
    })
}

/// With the images from before the save, as it was then.
fn configuration(at: &dyn Fn(&str) -> PathBuf) -> DomainConfig {
    let mut config = DomainConfig::default();
    config.c_info.domain_type = DomainType::Pv;
    config.c_info.name = Some("web".into());
    config.c_info.uuid = Uuid::from_u128(0x77_6562);
    config.b_info.max_memkb = MemKb::new(PAGES * 4);
    config.b_info.kind = BuildKind::Pv(Default::default());
    config.disks = DISKS
        .iter()
        .map(|vdev| Disk {
            vdev: Some((*vdev).to_owned()),
            pdev_path: Some(at(vdev).to_str().unwrap().to_owned()),
            format: DiskFormat::Qcow2,
            readwrite: 1,
            ..Disk::default()
        })
        .collect();
    config.nics = vec![Nic {
        devid: DevId::new(0),
        mac: Mac::new([0, 22, 62, 0, 0, 1]),
        bridge: Some("xenbr0".into()),
        ..Nic::default()
    }];
    config
}

fn as_snapshot(
    web: DomainIdentity,
    disks: &[DiskSnapshot],
    memory: &Value,
    xenstore: &Value,
    config: &DomainConfig,
) -> Snapshot {
    let configuration: Value = serde_json::from_str(&config.to_json(Layout::Yajl)).unwrap();
    let named = |image: &ImageRef| json!({ "path": image.path, "format": image.format });
    let moves = disks.iter().map(
        |disk| json!({ "vdev": disk.vdev, "from": named(&disk.frozen), "to": named(&disk.active) }),
    );
    let snapshot = json!({
        "id": Uuid::from_u128(99),
        "created": 1,
        "domain": { "domid": web.domid.get(), "uuid": web.uuid, "name": "web", "kind": "pv" },
        "consistency": "complete",
        "consistency_reason": null,
        "state_before": "running",
        "state_after": "running",
        "memory": memory,
        "xenstore": xenstore,
        "disks": disks,
        "skipped": [],
        "configuration": configuration,
        "config_delta": moves.collect::<Vec<_>>(),
        "config_applied": false,
        "timings": { "total_us": 0, "held_us": 0, "memory_us": 0, "disks_us": 0 },
        "warnings": [],
    });
    serde_json::from_value(snapshot).unwrap()
}

fn connected(operator: &Operator) -> Result<Client, OpenError> {
    let socket = operator.host(soon()).unwrap().xenstore.unwrap();
    Client::open(Endpoint::UnixSocket(socket), Options::default())
}

/// Calls with access to the host that listens there.
pub(super) fn with_host<T>(socket: &Path, work: impl FnOnce(&mut HostAccess<'_>) -> T) -> T {
    let (control, operator) = (SimulatedDomain::new(socket), Operator::new(socket));
    let templates = MemoryStore::new();
    let mut access = HostAccess {
        control: &control,
        xenstore: &|_| connected(&operator),
        templates: &templates,
        hypervisor: None,
        qemu_img: QemuImg::default(),
        guardian: None,
        hooks: BTreeMap::new(),
        quiescers: BTreeMap::new(),
    };
    work(&mut access)
}

/// As a new domain of that name, with overlays of that name and a journal.
pub(super) fn request(snapshot: Snapshot, directory: &Path, name: &str) -> RestoreRequest {
    let mut request = RestoreRequest::new(snapshot);
    let uuid = UuidChoice::New(Uuid::from_u128(name.bytes().map(u128::from).sum()));
    request.identity = NewIdentity { name: Some(name.to_owned()), uuid };
    for vdev in DISKS {
        let overlay = Target::Path(directory.join(format!("{name}-{vdev}")));
        request.disks.insert(vdev.to_owned(), DiskRestore::NewOverlay { overlay });
    }
    request.journal = Some(Target::Path(directory.join(format!("{name}-journal"))));
    request
}

impl Saved {
    pub(super) fn control(&self) -> SimulatedDomain {
        self.process.control()
    }

    pub(super) fn operator(&self) -> Operator {
        self.process.operator()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn xenstore(&self) -> Client {
        connected(&self.operator()).unwrap()
    }

    /// Calls with a host's access.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut HostAccess<'_>) -> T) -> T {
        with_host(&self.path("host"), work)
    }

    pub(super) fn request(&self, name: &str) -> RestoreRequest {
        request(self.snapshot.clone(), self.directory.path(), name)
    }

    pub(super) fn plan(&self, request: RestoreRequest) -> RestorePlan {
        self.with(|access| plan_restore(access, request)).unwrap()
    }

    pub(super) fn inspect(&self, domain: &DomainIdentity) -> Inspection {
        self.operator().inspect(domain, true, soon()).unwrap()
    }

    /// The domain goes on, and has found nothing wrong.
    pub(super) fn ticks(&self, domain: &DomainIdentity) {
        let now = self.inspect(domain).tick;
        let then = self.operator().await_tick(domain, now + 20, soon()).unwrap();
        assert_eq!(then.wrong, None);
        assert_eq!(self.inspect(domain).wrong, None);
    }

    /// All domains with their states, by name.
    pub(super) fn domains(&self) -> BTreeMap<String, DomainState> {
        let list = self.control().list(soon()).unwrap();
        list.into_iter().map(|view| (view.name.unwrap(), view.state)).collect()
    }

    pub(super) fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> =
            names.filter(|name| !name.starts_with("qmp-") && !name.starts_with("nbd-")).collect();
        names.sort_unstable();
        names
    }

    /// That no frozen image has changed.
    pub(super) fn frozen_is_as_it_was(&self) {
        for (disk, frozen) in self.snapshot.disks.iter().zip(&self.frozen) {
            assert!(fs::read(&disk.frozen.path).unwrap() == *frozen, "{} was written", disk.vdev);
        }
    }

    /// That only the original is there, runs on, and nothing it rests on was touched.
    pub(super) fn nothing_but_the_original(&self) {
        let states = self.domains();
        assert_eq!(states, BTreeMap::from([("web".to_owned(), DomainState::Running)]));
        self.ticks(&self.web);
        self.frozen_is_as_it_was();
    }

    /// That memory and disks of a domain that has not run yet are those of the save.
    pub(super) fn is_as_saved(&self, domain: &DomainIdentity) {
        let inspection = self.inspect(domain);
        assert_eq!(inspection.wrong, None);
        assert_eq!(inspection.tick, self.memory.tick);
        let ticks = inspection.disks.iter().enumerate().map(|(number, disk)| {
            let image = disk.image.path();
            check::qcow2_disk(SEED, number, image, self.directory.path(), soon()).unwrap()
        });
        check::consistent(&self.memory, &ticks.collect::<Vec<_>>()).unwrap();
    }

    /// What the guest has in Xenstore.
    pub(super) fn guest_node(&self, domain: &DomainIdentity, path: &str) -> Option<String> {
        let path = format!("/local/domain/{}/{path}", domain.domid).parse().unwrap();
        self.xenstore().read_text(&path).ok()
    }
}

/// An image that the snapshot has nothing to do with.
pub(super) fn image(path: &Path, format: ImageFormat) -> DiskRestore {
    DiskRestore::Image { path: path.to_owned(), format, verify: true }
}
