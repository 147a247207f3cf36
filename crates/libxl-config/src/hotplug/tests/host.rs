//! A guest with a template, a Xenstore, both ends of its devices and hotplug scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use tempfile::TempDir;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Client, DomId, Endpoint, Nodes, Options, Path};

use crate::DomainConfig;
use crate::hotplug::simulated::{Behaviour, Ends};
use crate::hotplug::{Device, Hotplug, Timeouts, spec};
use crate::retrieve::{DeviceClass, DeviceReport, Presence, Retrieved, Retriever};
use crate::template::{TemplateKey, TemplateStore, TemplateText, UserdataDir, create};

pub(super) const GUEST: DomId = DomId::new(7);

pub(super) const UUID: &str = "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11";

pub(super) const TEMPLATE: &str = r#"{
    "c_info": { "type": "pv", "name": "web", "uuid": "5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11" },
    "b_info": {
        "max_vcpus": 1, "avail_vcpus": [0], "max_memkb": 262144, "target_memkb": 262144, "video_memkb": 0,
        "sched_params": {}, "type.pv": {}, "arch_arm": {}, "arch_x86": {}
    },
    "owner": "ops"
}"#;

/// Where the guest's Xenstore is.
enum Server {
    Embedded(#[expect(dead_code, reason = "serves as long as it lives")] UnixServer),
    Stock(#[expect(dead_code, reason = "runs as long as it lives")] StockDaemon),
}

pub(super) struct Host {
    ends: Option<Ends>,
    _server: Server,
    pub(super) socket: PathBuf,
    pub(super) directory: TempDir,
    pub(super) templates: UserdataDir,
}

pub(super) fn key() -> TemplateKey {
    TemplateKey::new(GUEST, UUID.parse().unwrap())
}

pub(super) fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// What libxl leaves of a guest without devices.
pub(super) fn nodes() -> String {
    let mut lines = vec!["/local/domain/0/name = \"Domain-0\"   (n0)".to_owned()];
    lines.push("/local/domain/0/backend = \"\"   (n0)".to_owned());
    for (key, value) in [
        ("", ""),
        ("/vm", &*format!("/vm/{UUID}")),
        ("/name", "web"),
        ("/device", ""),
        ("/cpu/0/availability", "online"),
        ("/memory/static-max", "262144"),
        ("/memory/target", "262144"),
        ("/memory/videoram", "0"),
    ] {
        lines.push(format!("/local/domain/7{key} = \"{value}\"   (n0,r7)"));
    }
    for (key, value) in [("", ""), ("/device", ""), ("/type", "pv"), ("/dm-version", "qemu_xen")] {
        lines.push(format!("/libxl/7{key} = \"{value}\"   (n0)"));
    }
    lines.join("\n")
}

impl Host {
    /// On the embedded Xenstore.
    pub(super) fn new() -> Self {
        Self::of(&nodes(), TEMPLATE)
    }

    /// With these nodes and this template.
    pub(super) fn of(nodes: &str, template: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let xenstore = Embedded::new(Store::from_text(nodes).unwrap());
        let server = Server::Embedded(xenstore.serve_unix(&socket).unwrap());
        Self::on(server, socket, directory, template)
    }

    /// On a stock daemon; `None` with a line that says so where it cannot run.
    pub(super) fn stock(test: &str, kind: Kind) -> Option<Self> {
        let skip = |reason: String| {
            println!("skipped: {test}: {reason}");
            None
        };
        let packages = match Packages::of_workspace() {
            Ok(packages) => packages,
            Err(reason) => return skip(reason.to_string()),
        };
        let daemon = match StockDaemon::start(kind, packages) {
            Ok(daemon) => daemon,
            Err(StartError::Unavailable(reason)) => return skip(reason.to_string()),
            Err(error) => panic!("{error}"),
        };
        daemon.fill(&nodes()).unwrap();
        let socket = daemon.socket().to_owned();
        let directory = tempfile::tempdir().unwrap();
        Some(Self::on(Server::Stock(daemon), socket, directory, TEMPLATE))
    }

    fn on(server: Server, socket: PathBuf, directory: TempDir, template: &str) -> Self {
        let path = directory.path();
        for file in ["a.img", "b.img", "q.qcow2"] {
            fs::write(path.join(file), "").unwrap();
        }
        fs::create_dir(path.join("templates")).unwrap();
        fs::create_dir(path.join("scripts")).unwrap();
        write_scripts(path, &socket);
        let templates = UserdataDir::open(path.join("templates")).unwrap();
        create(&templates, &key(), &TemplateText::new(template).unwrap(), later()).unwrap();
        let mut host = Self { ends: None, _server: server, socket, directory, templates };
        host.scripts("ok");
        host.ends = Some(Ends::play(host.client(), Behaviour::default()));
        host
    }

    pub(super) fn client(&self) -> Client {
        connect(&self.socket)
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.ends.as_ref().unwrap().behave(behaviour);
    }

    /// What scripts do from now on: `ok`, `fail`, `hang`, `lie`.
    pub(super) fn scripts(&self, mode: &str) {
        fs::write(self.directory.path().join("scripts/mode"), mode).unwrap();
    }

    /// What scripts were called with, a line a call.
    pub(super) fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.directory.path().join("scripts/calls"));
        calls.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// As if a QEMU served the guest: this process.
    pub(super) fn with_qemu(self) -> Self {
        let mut client = self.client();
        let pid = std::process::id().to_string();
        for (path, value) in [
            ("/local/domain/0/device-model/7/state", "running"),
            ("/local/domain/7/image/device-model-pid", &*pid),
        ] {
            client.write(&path.parse().unwrap(), value.as_bytes()).unwrap();
        }
        self
    }

    pub(super) fn path(&self, file: &str) -> String {
        self.directory.path().join(file).display().to_string()
    }

    pub(super) fn disk(&self, vdev: &str) -> Device {
        spec::disk(&format!("vdev={vdev},format=raw,target={}", self.path("a.img"))).unwrap().into()
    }

    pub(super) fn qcow2(&self, vdev: &str) -> Device {
        let image = self.path("q.qcow2");
        spec::disk(&format!("vdev={vdev},format=qcow2,target={image}")).unwrap().into()
    }

    pub(super) fn share(&self, tag: &str) -> Device {
        let path = self.path("templates");
        spec::p9(&format!("tag={tag},security_model=none,path={path}")).unwrap().into()
    }

    /// Does something with a hotplug whose times are a test's.
    pub(super) fn plug<R>(&self, act: impl FnOnce(Hotplug<'_>) -> R) -> R {
        let mut client = self.client();
        act(hotplug(&mut client, &self.templates, self.directory.path()))
    }

    pub(super) fn retrieve(&self) -> Retrieved {
        Retriever::new(&mut self.client(), &self.templates).retrieve(GUEST).unwrap()
    }

    pub(super) fn report(&self, class: DeviceClass, id: &str) -> Option<DeviceReport> {
        self.retrieve().report.device(class, id).cloned()
    }

    pub(super) fn template(&self) -> DomainConfig {
        let octets = self.templates.load(&key(), later()).unwrap().unwrap().octets;
        DomainConfig::read(&octets, crate::Mode::Lenient).unwrap().config
    }

    /// Every node below a path with its value and permissions, but the state of both ends.
    pub(super) fn nodes_below(&self, path: &str) -> Vec<String> {
        let mut nodes = Vec::new();
        list(&mut self.client(), &path.parse().unwrap(), &mut nodes);
        nodes.sort();
        nodes
    }

    /// That template and live view agree, device by device, or the report says so.
    #[track_caller]
    pub(super) fn assert_truthful(&self) {
        let retrieved = self.retrieve();
        let template = self.template();
        for device in &retrieved.report.devices {
            let settled = device.presence == Presence::Both && device.attachment.is_settled();
            assert!(
                settled || device.note.is_some() || !device.attachment.is_settled(),
                "{device:?}"
            );
        }
        let both = retrieved.report.devices.iter().filter(|d| d.presence != Presence::XenstoreOnly);
        let known = template.disks.len() + template.nics.len() + template.p9s.len();
        assert_eq!(both.count(), known, "{:?}", retrieved.report.devices);
    }

    /// That nothing of any device is left.
    #[track_caller]
    pub(super) fn assert_bare(&self) {
        for path in [
            "/local/domain/7/device",
            "/libxl/7/device",
            "/libxl/7/domkeep",
            "/local/domain/0/backend",
        ] {
            let left = self.nodes_below(path);
            let below = left.iter().filter(|node| node.starts_with(&format!("{path}/")));
            assert_eq!(below.count(), 0, "{left:?}");
        }
        let template = self.template();
        assert_eq!((template.disks.len(), template.nics.len(), template.p9s.len()), (0, 0, 0));
    }
}

pub(super) fn connect(socket: &FilePath) -> Client {
    Client::open(Endpoint::UnixSocket(socket.to_owned()), Options::default()).unwrap()
}

pub(super) fn hotplug<'a>(
    client: &'a mut Client,
    templates: &'a dyn TemplateStore,
    directory: &FilePath,
) -> Hotplug<'a> {
    let timeouts = Timeouts {
        backend: Duration::from_secs(5),
        script: Duration::from_secs(20),
        connect: Duration::from_secs(5),
        let_go: Duration::from_secs(2),
        undo: Duration::from_secs(5),
        ..Timeouts::default()
    };
    let scripts = directory.join("scripts").display().to_string();
    Hotplug::new(client, templates).script_directory(scripts).timeouts(timeouts)
}

fn list(client: &mut Client, path: &Path, nodes: &mut Vec<String>) {
    let Some(value) = client.read_optional(path).unwrap() else { return };
    let perms = client.get_perms(&path.clone().into()).unwrap();
    nodes.push(format!("{path} = \"{}\"   ({perms})", value.escape_ascii()));
    for name in client.directory(path).unwrap() {
        list(client, &path.child(&name).unwrap(), nodes);
    }
}

const SCRIPT: &str = "DOMKEEP_TEST_SCRIPT";
const SOCKET: &str = "DOMKEEP_TEST_SOCKET";

/// Scripts that behave as the mode says, and do what the real ones do to Xenstore: by this test program.
fn write_scripts(directory: &FilePath, socket: &FilePath) {
    let scripts = directory.join("scripts");
    let (here, program) = (scripts.display(), std::env::current_exe().unwrap());
    for name in ["block", "vif-bridge"] {
        let text = format!(
            "#!/bin/sh\n\
             echo \"{name} $* $XENBUS_PATH $vif\" >> {here}/calls\n\
             case \"$(cat {here}/mode) $1\" in\n\
             'fail add'|'fail online') echo no loop device >&2; exit 3 ;;\n\
             'hang add'|'hang online') exec sleep 600 ;;\n\
             esac\n\
             unset DOMKEEP_TEST_ROLE DOMKEEP_TEST_DIE_AFTER\n\
             exec env {SCRIPT}=\"$1 $(cat {here}/mode)\" {SOCKET}={} {} --exact {THIS} --nocapture\n",
            socket.display(),
            program.display(),
        );
        let path = scripts.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

const THIS: &str = "hotplug::tests::host::a_hotplug_script";

#[test]
fn a_hotplug_script() {
    let Ok(asked) = std::env::var(SCRIPT) else { return };
    let mut client = connect(FilePath::new(&std::env::var(SOCKET).unwrap()));
    let backend: Path =
        format!("/local/domain/0/{}", std::env::var("XENBUS_PATH").unwrap()).parse().unwrap();
    let mut put = |key: &str, value: &str| {
        client.write(&backend.join(key).unwrap(), value.as_bytes()).unwrap();
    };
    let (action, mode) = asked.split_once(' ').unwrap();
    match (action, mode) {
        ("add" | "online", "lie") => {
            put("hotplug-error", "no loop device");
            put("hotplug-status", "error");
        }
        ("add", _) => {
            put("node", "/dev/loop0");
            put("physical-device", "7:0");
            put("hotplug-status", "connected");
            // The real one for files refuses any other state.
            let state = client.read_text(&backend.join("state").unwrap()).unwrap();
            assert!(matches!(&*state, "2" | "4"), "run at state {state}");
        }
        ("online", _) => put("hotplug-status", "connected"),
        _ => {}
    }
}
