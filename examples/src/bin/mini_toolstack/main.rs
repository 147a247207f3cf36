//! A mini toolstack: a domain's life on a simulated host, with everything that a real toolstack does around it.
//!
//! ```text
//! this process                                       another, which is also this program
//! +------------------------------------------+       +--------------------------------------+
//! | the toolstack, an embedded Xenstore,     |  ---> | the simulated hypervisor: guests     |
//! | a thread that plays QEMU and the guest   |       | with real memory and real disks      |
//! +------------------------------------------+       +--------------------------------------+
//! ```
//!
//! On a Xen host the hypervisor is `libxl_control::Libxl` and Xenstore is the host's own; all the rest stays as it is here.

mod nodes;
mod simulation;
mod snapshots;

use std::error::Error;
use std::fs;
use std::path::{Path as FilePath, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{env, thread};

use libxl_config::hotplug::{AttachError, Device, DeviceName, Hotplug, begin};
use libxl_config::model::{BuildKind, DomainType, MemKb};
use libxl_config::retrieve::{DeviceClass, Retriever};
use libxl_config::template::{TemplateKey, TemplateText, UserdataDir, create, forget};
use libxl_config::{DomainConfig, Layout};
use snapshot::control::{DomainControl, DomainIdentity};
use snapshot::simulated::{DomainSpec, GuestSpec, HostProcess};
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Nodes, Options, Path, RetryPolicy, on_one_line};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Memory of the guest, in pages of 4096 octets.
const PAGES: u64 = 1024;

/// Every call that can wait has a deadline.
const PATIENCE: Duration = Duration::from_secs(60);

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        // Two helpers have to be processes of their own. They are this program again, told so by its first argument, so that
        // nothing but the toolstack has to be installed and the versions always fit.
        ["simulated-host", directory] => simulation::host(FilePath::new(directory)),
        ["guardian"] => simulation::guardian(),
        [] => tempfile::tempdir().map_err(Into::into).and_then(|scratch| tour(scratch.path())),
        [directory] => tour(FilePath::new(directory)),
        _ => Err("usage: mini_toolstack [DIRECTORY]".into()),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("mini_toolstack: {}", on_one_line(error.as_ref()));
    ExitCode::FAILURE
}

/// The whole life of a domain, in the order in which it happens.
///
/// An error ends the program, and the simulated host with all domains ends with it. On a host that stays, a toolstack destroys
/// what it has half created.
fn tour(directory: &FilePath) -> Outcome {
    let host = Toolstack::start(directory)?;
    let domain = host.create("web")?;
    host.tell_configuration(domain)?;
    host.plug_by_hand(domain)?;
    host.plug_by_library(domain)?;
    let snapshot = host.save(domain)?;
    host.destroy(domain)?;
    let domain = host.restore(snapshot, "web-2")?;
    host.tell_configuration(domain)?;
    fs::write(host.file("xenstore.txt"), host.xenstore.snapshot().to_text())?;
    Ok(())
}

struct Toolstack {
    directory: PathBuf,
    xenstore: Embedded,
    templates: UserdataDir,
    hypervisor: HostProcess,
    /// Whether disks can be qcow2 images behind a real QEMU; raw ones are copied instead.
    has_qemu: bool,
}

impl Toolstack {
    fn start(directory: &FilePath) -> Outcome<Self> {
        let directory = fs::canonicalize(directory)
            .map_err(|error| format!("directory {}: {error}", directory.display()))?;
        let xenstore = Embedded::new(Store::new());
        fs::create_dir(directory.join("templates"))?;
        let templates = UserdataDir::open(directory.join("templates"))?;
        let hypervisor = simulation::start(&directory, soon())?;
        let drivers = connect(&xenstore);
        thread::spawn(move || simulation::play_drivers(drivers));
        let has_qemu = simulation::has_qemu();
        println!("started: a Xenstore, a template store, a simulated hypervisor");
        Ok(Self { directory, xenstore, templates, hypervisor, has_qemu })
    }

    /// Creates a domain: at the hypervisor, then its template, then its nodes.
    fn create(&self, name: &str) -> Outcome<DomainIdentity> {
        let image = self.file("root.img");
        let format = if self.has_qemu { "qcow2" } else { "raw" };
        let disk = simulation::new_disk("xvda", format, &image)?;
        let uuid = new_uuid()?;
        let mut guest = DomainSpec::new(name, uuid, GuestSpec::new(1, PAGES));
        // As long as libxl waits for a guest that is to suspend itself: hosts are busy.
        guest.acknowledge_ms = 60_000;
        let guest = if self.has_qemu {
            guest.with_qcow2_disk("xvda", &image)
        } else {
            guest.with_disk("xvda", &image)
        };
        let domain = self.hypervisor.operator().create(guest, soon())?.identity;

        let mut config = DomainConfig::default();
        config.c_info.domain_type = DomainType::Pv;
        config.c_info.name = Some(name.to_owned());
        config.c_info.uuid = uuid;
        config.b_info.kind = BuildKind::Pv(Default::default());
        config.b_info.max_memkb = MemKb::new(PAGES * 4);
        config.b_info.target_memkb = MemKb::new(PAGES * 4);
        config.b_info.max_vcpus = 1;
        config.b_info.avail_vcpus = (0..1).collect();
        config.disks.push(disk);
        self.publish(domain, &config)?;
        self.hypervisor.control().unpause(&domain, soon())?;
        // So that there is something to save.
        self.hypervisor.operator().await_tick(&domain, 5, soon())?;
        println!("created: domain {} ({name}) runs, with a template and its nodes", domain.domid);
        Ok(domain)
    }

    /// Files the template of a new or restored domain, and writes its nodes: what `retrieve` reads afterwards.
    fn publish(&self, domain: DomainIdentity, config: &DomainConfig) -> Outcome {
        let text = TemplateText::new(config.to_json(Layout::Yajl))?;
        create(&self.templates, &key(domain), &text, soon())?;
        let domid = domain.domid;
        let mut client = connect(&self.xenstore);
        nodes::of_domain(domain, config)?.write(&mut client)?;
        // From now on the server knows the domain, and forgets what it owns when it is released.
        // Frame and event channel are of its ring, which nobody serves here.
        client.introduce(domid, 0, 1)?;
        for disk in &config.disks {
            nodes::of_disk(domid, disk)?.write(&mut client)?;
            nodes::await_connected(&mut client, domid, disk)?;
        }
        Ok(())
    }

    /// Hotplug at the low level: the toolstack writes the device's nodes itself, and the template follows.
    fn plug_by_hand(&self, domain: DomainIdentity) -> Outcome {
        let disk = simulation::new_disk("xvdb", "raw", &self.file("data.img"))?;

        // Between `begin` and its end libxl's own lock is held: no `xl` beside this process sees half of the change.
        let mut begun = begin(&self.templates, &key(domain), soon())?;
        begun.add(&disk.clone().into())?;
        begun.abort();
        println!("plug xvdb by hand: begun and aborted, nothing changed");

        let mut begun = begin(&self.templates, &key(domain), soon())?;
        begun.add(&disk.clone().into())?;
        // What can be wrong with the template shows here, while nothing is in Xenstore yet.
        begun.check()?;
        let mut client = connect(&self.xenstore);
        // If this fails, `begun` is dropped, and that is an abort.
        nodes::of_disk(domain.domid, &disk)?.write(&mut client)?;
        // If this fails, `retrieve` reports a disk that only Xenstore has, and `Hotplug::repair` finishes or undoes it.
        let revision = begun.commit(soon())?;
        nodes::await_connected(&mut client, domain.domid, &disk)?;
        println!("plug xvdb by hand: connected, template is now {revision}");
        self.tell_configuration(domain)
    }

    /// Hotplug at the high level: the library writes nodes and template, waits for both ends, and undoes what fails.
    fn plug_by_library(&self, domain: DomainIdentity) -> Outcome {
        let mut client = connect(&self.xenstore);
        let mut hotplug = Hotplug::new(&mut client, &self.templates);
        let image = self.file("more.img");
        let disk: Device = simulation::disk("xvdc", "raw", &image)?.into();
        match hotplug.attach(domain.domid, &disk) {
            Err(AttachError::Refused { refusals, .. }) => {
                for refusal in refusals {
                    println!("attach xvdc: refused, {}", self.without_directory(&refusal));
                }
            }
            Err(error) => return Err(error.into()),
            Ok(_) => return Err("a disk without an image was attached".into()),
        }
        simulation::new_disk("xvdc", "raw", &image)?;
        let attached = hotplug.attach(domain.domid, &disk)?;
        println!("attach {}: {}", attached.id, attached.attachment);
        self.tell_configuration(domain)?;
        // It takes away also what was plugged otherwise.
        let by_hand = DeviceName::parse(DeviceClass::Disk, "xvdb")?;
        for name in [attached.id.into(), by_hand] {
            let detached = hotplug.detach(domain.domid, &name)?;
            println!("detach {}: gone from Xenstore and template", detached.id);
        }
        Ok(())
    }

    /// What the domain is made of now, and where that comes from.
    fn tell_configuration(&self, domain: DomainIdentity) -> Outcome {
        let mut client = connect(&self.xenstore);
        let retrieved = Retriever::new(&mut client, &self.templates).retrieve(domain.domid)?;
        let name = retrieved.config.c_info.name.as_deref().unwrap_or("?");
        let report = &retrieved.report;
        let clean =
            if report.is_clean() { "template and Xenstore agree" } else { "see the report" };
        println!("retrieved: {name}, {clean}");
        for device in &report.devices {
            let mut disks = retrieved.config.disks.iter();
            let disk = disks.find(|disk| disk.vdev.as_ref() == Some(&device.id));
            let image = disk.and_then(|disk| disk.pdev_path.as_deref()).unwrap_or("not configured");
            let image = self.without_directory(&image);
            println!("    {} {}: {}, {image}", device.class, device.id, device.attachment);
        }
        Ok(())
    }

    /// The domain, its nodes and its template: everything that is not its owner's files.
    fn destroy(&self, domain: DomainIdentity) -> Outcome {
        self.hypervisor.control().destroy(&domain, soon())?;
        let domid = domain.domid;
        let mut client = connect(&self.xenstore);
        client.release(domid)?;
        let mut roots = vec![Path::of_domain(domid)];
        for root in [
            format!("/libxl/{domid}"),
            format!("/local/domain/0/backend/qdisk/{domid}"),
            format!("/local/domain/0/device-model/{domid}"),
        ] {
            roots.push(root.parse()?);
        }
        client.transact(&RetryPolicy::default(), |transaction| {
            roots.iter().try_for_each(|root| match transaction.rm(root) {
                Err(error) if error.is_not_found() => Ok(()),
                removed => removed,
            })
        })?;
        forget(&self.templates, &key(domain), soon())?;
        println!("destroyed: domain {domid}, its nodes and its template");
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn without_directory(&self, text: &dyn std::fmt::Display) -> String {
        text.to_string().replace(&format!("{}/", self.directory.display()), "")
    }
}

fn connect(xenstore: &Embedded) -> Client {
    Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::with_timeout(PATIENCE))
}

/// Templates are filed under both: a domid is used again, and a uuid may be.
fn key(domain: DomainIdentity) -> TemplateKey {
    TemplateKey::new(domain.domid, domain.uuid)
}

fn new_uuid() -> Outcome<Uuid> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().parse()?)
}
