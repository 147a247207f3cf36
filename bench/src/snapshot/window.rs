//! How long a guest is held for a snapshot of its disks, on a simulated domain with two qcow2 disks behind a real QEMU.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceImage, Replacement};
use libxl_config::template::UserdataDir;
use snapshot::control::{DomainControl, DomainIdentity};
use snapshot::disk::qemu_img::QemuImg;
use snapshot::disk::{BackingName, DiskSnapshotter, LiveOverlay, LiveOverlays};
use snapshot::save::{DiskRequest, DiskRequestAction, SaveRequest};
use snapshot::simulated::{
    DomainSpec, GuestSpec, Host, HostProcess, HostXenstore, SimulatedDomain, listener_on_stdin,
};
use snapshot::{
    GuardianProgram, HostAccess, Observer, Phase, Progress, Snapshot, Target, guard, plan_save,
    save,
};
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Endpoint, Options};

/// What this program is called with to be the simulated host of a directory, or a guardian.
pub(crate) const HOST: &str = "snapshot-window-host";
pub(crate) const GUARDIAN: &str = "snapshot-window-guardian";

/// Each on a domain of its own: what QEMU tells of its nodes grows with the square of a chain's length.
const RUNS: usize = 12;

/// Saves of one domain, for what a long chain costs: so many that it is not longer than the rules allow.
const LONG_RUNS: usize = 24;

const BUDGET: Duration = Duration::from_millis(50);

/// 64 MiB; of no matter, since the memory is not saved.
const PAGES: u64 = 1 << 14;

const DISKS: [&str; 2] = ["xvda", "xvdb"];

/// What the guest waits for: each begins with the phase named, and ends where the next one begins.
const PARTS: [(&str, Phase); 6] = [
    ("suspend", Phase::Suspend),
    ("capture", Phase::Capture),
    ("sync", Phase::Sync),
    ("name", Phase::Name),
    ("pivot", Phase::Pivot),
    ("configure", Phase::Configure),
];

pub(super) fn run() -> Result<(), Box<dyn Error>> {
    println!("how long the guest is held for a snapshot of two qcow2 disks, in ms; {RUNS} runs");
    println!("budget: under {} ms", BUDGET.as_millis());
    if !has_programs() {
        println!("  skipped: qemu-img, qemu-storage-daemon or setpriv cannot be started");
        return Ok(());
    }
    let bench = Bench::start()?;
    let held_of = |saved: &Snapshot| Duration::from_micros(saved.timings.held_us);
    let (mut bare, mut held, mut of_disks) = (Vec::new(), Vec::new(), Vec::new());
    let mut parts: BTreeMap<usize, Vec<Duration>> = BTreeMap::new();
    for number in 0..RUNS {
        let guest = bench.guest(number)?;
        // The peer: the same pivot with nothing around it, on the running guest.
        bare.push(guest.pivot()?);
        let (saved, phases) = guest.save(0)?;
        held.push(held_of(&saved));
        for (at, took) in phases.into_iter().enumerate() {
            parts.entry(at).or_default().push(took);
        }
        of_disks.push(Duration::from_micros(saved.timings.disks_us));
        guest.destroy()?;
    }
    let guest = bench.guest(RUNS)?;
    for number in 0..LONG_RUNS {
        guest.save(number)?;
    }
    let mut long = vec![held_of(&guest.save(LONG_RUNS)?.0)];
    println!("  {:<34} {:>8} {:>8} {:>8}", "", "median", "worst", "ratio");
    let median_of_bare = row("the pivot alone, prepared before", &mut bare, None);
    for (at, times) in &mut parts {
        row(&format!("of it while held: {}", PARTS[*at].0), times, Some(median_of_bare));
    }
    row("  in that: the disks", &mut of_disks, Some(median_of_bare));
    row("held, with journal and guardian", &mut held, Some(median_of_bare));
    row("held, each disk 25 images, once", &mut long, Some(median_of_bare));
    let kept = held.iter().all(|held| *held < BUDGET);
    println!("  {}", if kept { "kept in every run" } else { "NOT kept in every run" });
    Ok(())
}

fn row(what: &str, times: &mut [Duration], beside: Option<f64>) -> f64 {
    times.sort_unstable();
    let ms = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    let (median, worst) = (ms(times.get(times.len() / 2)), ms(times.last()));
    let ratio = beside.map(|beside| format!("{:.1}", median / beside)).unwrap_or_default();
    println!("  {what:<34} {median:>8.2} {worst:>8.2} {ratio:>8}");
    median
}

fn has_programs() -> bool {
    ["qemu-img", "qemu-storage-daemon", "setpriv"].iter().all(|program| {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        started.is_ok_and(|status| status.success())
    })
}

/// A simulated host, in a process of its own.
struct Bench {
    // Ended before its directory is removed.
    process: HostProcess,
    /// Of the host's socket, whose path is short wherever the build directory is.
    _sockets: tempfile::TempDir,
    directory: tempfile::TempDir,
    templates: UserdataDir,
}

/// A domain of it, whose guest writes.
struct Guest<'b> {
    bench: &'b Bench,
    name: String,
    domain: DomainIdentity,
    qmp: PathBuf,
}

impl Bench {
    fn start() -> Result<Self, Box<dyn Error>> {
        let program = std::env::current_exe()?;
        let beside = program.parent().ok_or("the program is in no directory")?;
        let directory = tempfile::tempdir_in(beside)?;
        std::fs::create_dir(directory.path().join("templates"))?;
        let mut command = Command::new(&program);
        command.arg(HOST).arg(directory.path());
        let sockets = tempfile::tempdir()?;
        let process = HostProcess::start(command, sockets.path().join("host"), soon())?;
        let templates = UserdataDir::open(directory.path().join("templates"))?;
        Ok(Self { process, _sockets: sockets, directory, templates })
    }

    /// A new one, of the number given, which runs.
    fn guest(&self, number: usize) -> Result<Guest<'_>, Box<dyn Error>> {
        let name = format!("guest-{number}");
        let uuid = Uuid::from_u128(1 + number as u128);
        let mut spec = DomainSpec::new(&*name, uuid, GuestSpec::new(1, PAGES));
        for vdev in DISKS {
            let image = self.path(&format!("{name}-{vdev}.qcow2"));
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", "qcow2"])
                .arg(&image)
                .arg("1G")
                .status()?;
            if !made.success() {
                return Err(format!("qemu-img: {made}").into());
            }
            spec = spec.with_qcow2_disk(vdev, image);
        }
        let domain = self.process.operator().create(spec, soon())?.identity;
        self.process.control().unpause(&domain, soon())?;
        let seen = self.process.operator().await_tick(&domain, 5, soon())?;
        let qmp = seen.qmp.ok_or("the domain has no QMP socket")?;
        Ok(Guest { bench: self, name, domain, qmp })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn client(&self) -> Result<Client, xsclient::OpenError> {
        Client::open(Endpoint::UnixSocket(self.path("xenstore")), Options::default())
    }
}

impl Guest<'_> {
    /// Pivots both disks with nothing else around it, and tells what the commit took.
    fn pivot(&self) -> Result<Duration, Box<dyn Error>> {
        let disks = DISKS.map(|vdev| {
            let overlay = self.bench.path(&format!("{}-{vdev}-bare.qcow2", self.name));
            LiveOverlay::new(vdev, format!("{vdev}-qcow2"), overlay, format!("{vdev}-bare"))
        });
        let mut overlays = LiveOverlays::new(&self.qmp, disks.into());
        overlays.prepare(&mut snapshot::NoLog, soon())?;
        let start = Instant::now();
        let moved = overlays.commit(soon())?;
        let took = start.elapsed();
        // Nobody else tells the configuration of it.
        let moves: Vec<_> = moved
            .iter()
            .map(|disk| {
                let image = Image::new(disk.active.path.to_string_lossy(), DiskFormat::Qcow2);
                Replacement::new(&*disk.vdev, image)
            })
            .collect();
        let mut client = self.bench.client()?;
        ReplaceImage::new(&mut client, &self.bench.templates).replace(self.domain.domid, &moves)?;
        Ok(took)
    }

    /// Saves both disks, with everything around it that there can be. Also tells how long each of the [`PARTS`] took.
    fn save(&self, number: usize) -> Result<(Snapshot, Vec<Duration>), Box<dyn Error>> {
        let control = self.bench.process.control();
        let connect = |_: Instant| self.bench.client();
        let guardian = GuardianProgram {
            program: std::env::current_exe()?,
            arguments: vec![GUARDIAN.to_owned()],
        };
        let mut access = HostAccess {
            control: &control,
            xenstore: &connect,
            templates: &self.bench.templates,
            hypervisor: None,
            qemu_img: QemuImg::default(),
            guardian: Some(guardian),
            hooks: BTreeMap::new(),
            quiescers: BTreeMap::new(),
        };
        let target =
            |what: &str| Target::Path(self.bench.path(&format!("{}-{number}-{what}", self.name)));
        let mut request = SaveRequest::new(self.domain);
        request.qmp = Some(self.qmp.clone());
        request.journal = Some(target("journal"));
        request.xenstore = Some(target("xenstore"));
        let overlay = |vdev: &str| DiskRequestAction::ExternalQcow2 {
            overlay: target(vdev),
            node: None,
            overlay_node: None,
            backing: BackingName::Absolute,
            digest: false,
        };
        let disk = |vdev: &str| DiskRequest { vdev: vdev.to_owned(), action: overlay(vdev) };
        request.disks = DISKS.map(disk).into();
        let plan = plan_save(&mut access, request)?;
        let mut begun: Vec<(Phase, Instant)> = Vec::new();
        let mut progress = |progress: &Progress| {
            if begun.last().is_none_or(|(phase, _)| *phase != progress.phase) {
                begun.push((progress.phase, Instant::now()));
            }
        };
        let saved = save(&mut access, plan, &mut Observer::none().progress(&mut progress))?;
        let began = |phase: Phase| begun.iter().position(|(known, _)| *known == phase);
        let parts = PARTS.iter().filter_map(|(_, phase)| {
            let at = began(*phase)?;
            Some(begun.get(at + 1)?.1.duration_since(begun[at].1))
        });
        let parts: Vec<_> = parts.collect();
        Ok((saved, parts))
    }

    fn destroy(self) -> Result<(), Box<dyn Error>> {
        Ok(self.bench.process.control().destroy(&self.domain, soon())?)
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// Is a simulated host, until whoever started it goes away.
pub(crate) fn host(directory: &str) -> Result<(), Box<dyn Error>> {
    let directory = Path::new(directory);
    let xenstore = Embedded::new(Store::new());
    let socket = directory.join("xenstore");
    let _served = xenstore.serve_unix(&socket)?;
    let client = Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default());
    let host = Host::new(directory, Some(HostXenstore::new(client, socket)))?;
    let host = host.with_templates(directory.join("templates"))?;
    Ok(host.serve(&listener_on_stdin()?)?)
}

/// Is a guardian, as `domkeep guard` is.
pub(crate) fn guardian() -> Result<(), Box<dyn Error>> {
    let mut input = BufReader::new(io::stdin());
    let needs = guard::read_needs(&mut input)?;
    let control = SimulatedDomain::from_guardian(&needs)?;
    guard::run(&control, &needs.domain, input, io::stdout())?;
    Ok(())
}
