//! Devices that domkeep attaches to guests which run, use them and give them back.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::Scenario;
use super::retrieve::check_like_xl;
use crate::dom0::{Failure, Guest, GuestConfig, Host, run as run_program};

pub(super) const DEVICES: Scenario = Scenario {
    name: "devices",
    about: "disks, nics and a 9p share come and go by domkeep, the guest uses them, xl agrees",
    limit: Duration::from_mins(15),
    run,
    ..Scenario::PLAIN
};

const MAC: &str = "00:16:3e:00:02:01";

fn run(host: &mut Host) -> Result<(), Failure> {
    let qcow2 = host.qcow2_image("root", 32)?;
    // With a qcow2 disk it has a QEMU.
    let config = GuestConfig::pv("served")
        .disk(&format!("format=qcow2,vdev=xvda,access=rw,target={}", qcow2.display()));
    let served = host.create_ticking(&config)?;
    disk(host, &served, "raw")?;
    disk(host, &served, "qcow2")?;
    nic(host, &served)?;
    share(host, &served)?;
    held(host, &served)?;
    served.ticks_on()?;
    served.destroy()?;
    let bare = host.create_ticking(&GuestConfig::pv("bare"))?;
    without_qemu(host, &bare)?;
    disk(host, &bare, "raw")?;
    bare.ticks_on()?;
    bare.destroy()
}

/// The devices that `domkeep device list` has of a guest.
pub(super) fn listed(host: &Host, guest: &Guest) -> Result<Vec<Value>, Failure> {
    let domid = guest.domid().to_string();
    let answer = host.domkeep(&["--json", "device", "list", &domid])?.json()?;
    Ok(answer[0]["devices"].as_array().cloned().unwrap_or_default())
}

/// One of them, or null.
pub(super) fn device(host: &Host, guest: &Guest, name: &str) -> Result<Value, Failure> {
    let found = listed(host, guest)?
        .into_iter()
        .find(|device| device["name"] == name && device["class"] != "console");
    Ok(found.unwrap_or_default())
}

/// The vdevs, MACs and tags that a configuration has.
pub(super) fn names(config: &Value) -> Vec<String> {
    let mut names = Vec::new();
    for (list, key) in [("disks", "vdev"), ("nics", "mac"), ("p9s", "tag")] {
        let entries = config[list].as_array().cloned().unwrap_or_default();
        names.extend(entries.iter().filter_map(|entry| Some(entry[key].as_str()?.to_owned())));
    }
    names.sort();
    names
}

/// xl, domkeep and the stored template name the same devices.
pub(super) fn check_agree(host: &mut Host, guest: &Guest, when: &str) -> Result<(), Failure> {
    check_like_xl(host, guest, when)?;
    let domid = guest.domid().to_string();
    let template = host.domkeep(&["template", "show", &domid])?.ok()?.json()?;
    let xl = host.xl_config(guest.domid())?;
    host.check_equal(
        &format!("{when}, the template has what xl lists"),
        &names(&template),
        &names(&xl),
    )
}

/// A disk comes, is used, and goes.
pub(super) fn disk(host: &mut Host, guest: &Guest, format: &str) -> Result<(), Failure> {
    let name = format!("{}-{format}", guest.name());
    let image =
        if format == "raw" { host.raw_image(&name, 16)? } else { host.qcow2_image(&name, 16)? };
    let spec = format!("format={format},vdev=xvdc,access=rw,target={}", image.display());
    let attached = host.domkeep(&["device", "attach", guest.name(), "disk", &spec])?.ok()?;
    host.figure(
        &format!("attach a {format} disk to {}, s", guest.name()),
        attached.took.as_secs_f64(),
    );
    host.check_equal(
        &format!("domkeep says that the {format} disk is connected"),
        &attached.stdout.contains("connected"),
        &true,
    )?;
    guest.wait_for_devices("the disk", |devices| devices.contains("disk xvdc 32768"))?;
    guest.ask("fill xvdc 7 0 64")?;
    guest.ask("verify xvdc 7 0 64")?;
    host.check(&format!("the guest has read from the {format} disk what it wrote"), true)?;
    check_agree(host, guest, &format!("with a {format} disk that domkeep attached"))?;
    let listed = host.xl(&["block-list", guest.name()])?.stdout;
    let number = listed.lines().any(|line| line.starts_with("51744"));
    host.check("xl block-list has it", number)?;
    let detached = host.domkeep(&["device", "detach", guest.name(), "disk", "xvdc"])?.ok()?;
    host.figure(
        &format!("detach a {format} disk from {}, s", guest.name()),
        detached.took.as_secs_f64(),
    );
    guest.wait_for_devices("the disk to go", |devices| !devices.contains("xvdc"))?;
    check_agree(host, guest, &format!("without the {format} disk"))?;
    if format == "raw" {
        let octets = fs::read(&image)?;
        let written = octets[..64 * 4096].iter().any(|octet| *octet != 0);
        host.check("what the guest wrote is in the image", written)?;
        let loops = run_program(
            std::process::Command::new("losetup").arg("-j").arg(&image),
            Duration::from_mins(1),
        )?;
        host.check_equal("no loop device is left", &loops.stdout.trim(), &"")?;
    }
    nothing_left(host, guest, "51744")
}

/// No node of the device, and no claim.
fn nothing_left(host: &mut Host, guest: &Guest, devid: &str) -> Result<(), Failure> {
    let domid = guest.domid();
    for path in [
        format!("/libxl/{domid}"),
        "/local/domain/0/backend".into(),
        format!("/local/domain/{domid}/device"),
    ] {
        let tree = host.domkeep(&["xenstore", "ls", "-f", &path])?.ok()?.stdout;
        let left = tree.lines().find(|line| {
            line.split(" = ").next().is_some_and(|path| path.split('/').any(|name| name == devid))
                || line.contains("/domkeep")
        });
        host.check_equal(&format!("nothing of {devid} is left below {path}"), &left, &None)?;
    }
    Ok(())
}

fn nic(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let spec = format!("bridge=xenbr0,mac={MAC}");
    let attached = host.domkeep(&["device", "attach", guest.name(), "nic", &spec])?.ok()?;
    host.figure("attach a nic, s", attached.took.as_secs_f64());
    guest.wait_for_devices("the interface", |devices| devices.contains(MAC))?;
    let port = format!("/sys/class/net/xenbr0/brif/vif{}.0", guest.domid());
    host.check("its other end is in the bridge", Path::new(&port).exists())?;
    check_agree(host, guest, "with a nic that domkeep attached")?;
    host.check(
        "xl network-list has it",
        host.xl(&["network-list", guest.name()])?.stdout.contains(MAC),
    )?;
    host.domkeep(&["device", "detach", guest.name(), "nic", MAC])?.ok()?;
    guest.wait_for_devices("the interface to go", |devices| !devices.contains(MAC))?;
    host.check("it is not in the bridge any more", !Path::new(&port).exists())?;
    check_agree(host, guest, "without the nic")
}

fn share(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let directory = host.work().join("shared");
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("greeting"), "hello")?;
    let spec = format!("tag=shared,security_model=none,path={}", directory.display());
    let attached = host.domkeep(&["device", "attach", guest.name(), "p9", &spec])?.ok()?;
    host.figure("attach a share, s", attached.took.as_secs_f64());
    let mounted = guest.ask("mount-9p shared")?;
    let read = guest.ask(&format!("file-read {mounted}/greeting"))?;
    host.check_equal("the guest reads the host's file", &read.trim(), &"hello")?;
    guest.ask(&format!("file-write {mounted}/answer back"))?;
    let answer = fs::read_to_string(directory.join("answer"))?;
    host.check_equal("the host reads the guest's file", &answer.trim(), &"back")?;
    check_agree(host, guest, "with a share that domkeep attached")?;
    guest.ask(&format!("unmount {mounted}"))?;
    let detached = host.domkeep(&["device", "detach", guest.name(), "p9", "shared"])?.ok()?;
    host.figure("detach a share, s", detached.took.as_secs_f64());
    check_agree(host, guest, "without the share")
}

/// A guest that is paused does not let a disk go. One that merely uses it does: Linux since 5.16 gives up a disk in use.
fn held(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("held", 16)?;
    let spec = format!("vdev=xvdd,target={}", image.display());
    host.domkeep(&["device", "attach", guest.name(), "disk", &spec])?.ok()?;
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdd"))?;
    host.xl(&["pause", guest.name()])?;
    let held = host.domkeep(&["device", "detach", guest.name(), "disk", "xvdd", "--wait", "3"])?;
    let held = held.status_is(1)?;
    host.check(
        "a disk of a guest that does not answer is named as not let go",
        held.stderr.contains("not let go"),
    )?;
    let is = device(host, guest, "xvdd")?["attachment"]["is"].clone();
    host.check_equal("it is listed half detached", &is, &"half_detached".into())?;
    host.xl(&["unpause", guest.name()])?;
    let repaired = host.domkeep_json(&["device", "repair", guest.name(), "disk", "xvdd"])?;
    host.check_equal(
        "once the guest lets go, repair finishes it",
        &repaired[0]["mended"],
        &"detached".into(),
    )?;
    guest.wait_for_devices("the disk to go", |devices| !devices.contains("xvdd"))?;
    check_agree(host, guest, "after a detach that was repaired")?;
    nothing_left(host, guest, "51760")
}

fn without_qemu(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let directory = host.work().join("shared");
    let share = format!("tag=shared,security_model=none,path={}", directory.display());
    let refused = host.domkeep(&["device", "attach", guest.name(), "p9", &share])?.status_is(1)?;
    host.check("a share is refused by name", refused.stderr.contains("needs a QEMU"))?;
    let image = host.qcow2_image("unserved", 16)?;
    let spec = format!("format=qcow2,vdev=xvdc,access=rw,target={}", image.display());
    let refused = host.domkeep(&["device", "attach", guest.name(), "disk", &spec])?.status_is(1)?;
    host.check("a qcow2 disk is refused by name", refused.stderr.contains("needs a QEMU"))?;
    check_agree(host, guest, "after what was refused")?;
    // It exits with 0, and nothing connects.
    host.xl(&["block-attach", guest.name(), &spec])?;
    let unserved = device(host, guest, "xvdc")?;
    host.check_equal(
        "what xl attached to nobody is reported half attached",
        &unserved["attachment"]["is"],
        &"half_attached".into(),
    )?;
    let repaired = host.domkeep_json(&["device", "repair", guest.name(), "disk", "xvdc"])?;
    host.check_equal("and repair detaches it", &repaired[0]["mended"], &"detached".into())?;
    check_agree(host, guest, "after that repair")?;
    nothing_left(host, guest, "51744")
}
