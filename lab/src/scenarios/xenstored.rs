//! Domkeep's daemon as the only Xenstore of a host that is used as hosts are.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use xsclient::Nodes;

use super::Scenario;
use super::retrieve::check_like_xl;
use crate::dom0::{Failure, Guest, GuestConfig, Host};
use crate::xenstored::Xenstored;

pub(super) const XENSTORED: Scenario = Scenario {
    name: "xenstored",
    about: "domkeep's daemon as the host's only Xenstore: PV, PVH and qdisk guests through all that xl does with them",
    limit: Duration::from_mins(20),
    run,
    xenstored: Xenstored::Ours,
    ..Scenario::PLAIN
};

/// For what a daemon of the host does about a domain that ended.
const CLEANUP_LIMIT: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(200);

fn run(host: &mut Host) -> Result<(), Failure> {
    let begun = host.xenstored_pid()?;
    life(host, GuestConfig::pv("paravirt"), "00:16:3e:00:07:01")?;
    life(host, GuestConfig::pvh("hardware"), "00:16:3e:00:07:11")?;
    ends_by_itself(host)?;
    host.check_equal("the daemon is the process that it was", &host.xenstored_pid()?, &begun)
}

/// All of a guest's life by xl.
fn life(host: &mut Host, kind: GuestConfig, mac: &str) -> Result<(), Failure> {
    let name = kind.name().to_owned();
    let raw = host.raw_image(&name, 32)?;
    let qcow2 = host.qcow2_image(&name, 32)?;
    let config = kind
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
        // This one is served by a QEMU.
        .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display()))
        .nic(&format!("bridge=xenbr0,mac={mac}"));
    let before = Instant::now();
    let guest = host.create_ticking(&config)?;
    host.figure(&format!("create {name} until it obeys, s"), before.elapsed().as_secs_f64());
    guest.wait_for_devices("its devices", |devices| {
        ["disk xvda 65536", "disk xvdb 65536", mac].iter().all(|device| devices.contains(device))
    })?;
    for disk in ["xvda", "xvdb"] {
        guest.ask(&format!("fill {disk} 1 0 64"))?;
        guest.ask(&format!("verify {disk} 1 0 64"))?;
    }
    let listed = host.xl(&["list"])?.stdout;
    host.check(&format!("xl lists {name}"), listed.contains(&name))?;
    check_like_xl(host, &guest, &format!("with {name}"))?;
    guest.ask("node-write data/greeting from the guest")?;
    attach_and_detach(host, &guest)?;
    let guest = save_and_restore(host, guest, mac)?;
    attach_and_detach(host, &guest)?;
    let domid = guest.domid();
    guest.destroy()?;
    gone(host, &domid.to_string(), &name)
}

/// Devices by xl that the guest uses.
fn attach_and_detach(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    for format in ["raw", "qcow2"] {
        let image = attach(host, guest, format)?;
        check_like_xl(host, guest, &format!("with a {format} disk that xl attached"))?;
        detach(host, guest, &image)?;
        check_like_xl(host, guest, &format!("without the {format} disk"))?;
    }
    let mac = format!("00:16:3e:00:08:{:02x}", guest.domid().get());
    host.xl(&["network-attach", guest.name(), "bridge=xenbr0", &format!("mac={mac}")])?;
    guest.wait_for_devices("the interface", |devices| devices.contains(&mac))?;
    check_like_xl(host, guest, "with another interface")?;
    host.xl(&["network-detach", guest.name(), &mac])?;
    guest.wait_for_devices("the interface to go", |devices| !devices.contains(&mac))?;
    check_like_xl(host, guest, "without it")
}

/// A disk by xl comes, is used and goes.
pub(super) fn block(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = attach(host, guest, "raw")?;
    detach(host, guest, &image)
}

/// A disk by xl that the guest writes to and reads from. For one in qcow2 the guest must have a QEMU already.
fn attach(host: &mut Host, guest: &Guest, format: &str) -> Result<PathBuf, Failure> {
    let name = format!("{}-{}-attached", guest.name(), guest.domid());
    let made =
        if format == "raw" { host.raw_image(&name, 16) } else { host.qcow2_image(&name, 16) };
    let image = made?;
    let disk = format!("format={format},vdev=xvdc,access=rw,target={}", image.display());
    host.xl(&["block-attach", guest.name(), &disk])?;
    guest.wait_for_devices("the disk", |devices| devices.contains("disk xvdc 32768"))?;
    guest.ask("fill xvdc 7 0 64")?;
    guest.ask("verify xvdc 7 0 64")?;
    Ok(image)
}

fn detach(host: &mut Host, guest: &Guest, image: &Path) -> Result<(), Failure> {
    host.xl(&["block-detach", guest.name(), "xvdc"])?;
    guest.wait_for_devices("the disk to go", |devices| !devices.contains("xvdc"))?;
    Ok(std::fs::remove_file(image)?)
}

/// Every node with its permissions, in an order that does not depend on the daemon.
pub(super) fn nodes(host: &Host) -> Result<Vec<String>, Failure> {
    let listed = host.domkeep(&["xenstore", "ls", "-fp"])?.ok()?.stdout;
    let mut lines: Vec<_> = listed.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// The guest runs, obeys through the watch that it has had since its start, and uses a new disk.
pub(super) fn goes_on(host: &mut Host, guest: &Guest, when: &str) -> Result<(), Failure> {
    let name = guest.name();
    guest.ticks_on()?;
    guest.ask(&format!("node-write data/round {when}"))?;
    let read = guest.ask("node-read data/round")?;
    host.check_equal(&format!("after {when} {name} writes and reads"), &read.as_str(), &when)?;
    let listed = host.xl(&["list"])?.stdout;
    host.check(&format!("after {when} xl lists {name}"), listed.contains(name))?;
    check_like_xl(host, guest, &format!("after {when}"))?;
    block(host, guest)?;
    host.check(&format!("after {when} {name} used a new disk"), true)?;
    guest.ticks_on().map(drop)
}

fn save_and_restore(host: &mut Host, guest: Guest, mac: &str) -> Result<Guest, Failure> {
    let name = guest.name().to_owned();
    let file = host.work().join(format!("{name}.save"));
    let file = file.to_string_lossy();
    let (before, domid) = (guest.ticks_on()?, guest.domid().to_string());
    host.step("save");
    host.xl(&["save", &name, &file])?;
    guest.forget();
    gone(host, &domid, &name)?;
    host.step("restore");
    host.xl(&["restore", &file])?;
    std::fs::remove_file(&*file)?;
    let guest = Guest::adopt(&name)?;
    let after = guest.wait_for_tick(before + 2)?;
    host.check(&format!("the restored {name} ticks on: {before}, then {after}"), after > before)?;
    for disk in ["xvda", "xvdb"] {
        guest.ask(&format!("verify {disk} 1 0 64"))?;
    }
    guest.wait_for_devices("its interface", |devices| devices.contains(mac))?;
    check_like_xl(host, &guest, "after saving and restoring")?;
    guest.ask("node-write data/greeting from the restored guest")?;
    Ok(guest)
}

/// Nothing of a domain that was destroyed is left.
fn gone(host: &mut Host, domid: &str, name: &str) -> Result<(), Failure> {
    for path in [format!("/local/domain/{domid}"), format!("/libxl/{domid}")] {
        let left = host.xenstore()?.read_optional(&path.parse()?)?;
        host.check_equal(&format!("{path} is gone with {name}"), &left, &None)?;
    }
    let listed = host.xl(&["list"])?.stdout;
    host.check(&format!("xl does not list {name}"), !listed.contains(name))
}

/// A guest that powers itself off is noticed: whoever waits for that hears it from Xenstore.
fn ends_by_itself(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("leaver"))?;
    let domid = guest.domid().to_string();
    guest.tell("power-off")?;
    let deadline = Instant::now() + CLEANUP_LIMIT;
    while host.xl(&["list"])?.stdout.contains("leaver") {
        if Instant::now() >= deadline {
            let why = "a guest that powered itself off is still listed: nobody heard of it";
            return Err(Failure::because(why));
        }
        // Domains cannot be watched but through what is tested here.
        std::thread::sleep(LOOK);
    }
    guest.forget();
    gone(host, &domid, "leaver")?;
    let left = Path::new("/var/lib/xen").read_dir()?.filter_map(Result::ok);
    let left = left.filter(|entry| {
        entry.file_name().to_string_lossy().starts_with(&format!("userdata-d.{domid}."))
    });
    host.check_equal("xl cleaned up behind it", &left.count(), &0)
}
