//! What domkeep says a domain's configuration is, beside what xl says.

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use xsclient::Nodes;

use super::Scenario;
use crate::dom0::{Failure, Guest, GuestConfig, Host, run as run_program, start};

pub(super) const RETRIEVE: Scenario = Scenario {
    name: "retrieve",
    about: "a guest's configuration, equal to xl's at every step of its life",
    limit: Duration::from_mins(15),
    run,
    ..Scenario::PLAIN
};

const MAC: &str = "00:16:3e:00:01:01";
const SECOND_MAC: &str = "00:16:3e:00:01:02";

fn run(host: &mut Host) -> Result<(), Failure> {
    let raw = host.raw_image("web", 64)?;
    let qcow2 = host.qcow2_image("web", 64)?;
    let config = GuestConfig::pv("web")
        .memory(192)
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
        .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display()))
        .nic(&format!("bridge=xenbr0,mac={MAC}"));
    let guest = host.create_ticking(&config)?;
    check_like_xl(host, &guest, "after creation")?;
    dom0_is_right(host)?;
    block(host, &guest)?;
    network(host, &guest)?;
    memory_and_name(host, &guest)?;
    let guest = save_and_restore(host, guest)?;
    killed_attach(host, &guest)?;
    other_spelling(host, &guest)?;
    unreadable_device(host, &guest)?;
    lost_template(host, &guest)?;
    guest.ticks_on()?;
    guest.destroy()
}

/// Both list the same configuration of the guest, and `domkeep retrieve` gives it too.
pub(super) fn check_like_xl(host: &mut Host, guest: &Guest, when: &str) -> Result<(), Failure> {
    let retrieved = host.retrieve(guest.domid())?;
    let unseen = retrieved["report"]["unseen"].as_array().cloned().unwrap_or_default();
    host.check_equal(&format!("{when}, domkeep has seen everything"), &unseen, &Vec::new())?;
    let theirs = host.xl_config(guest.domid())?;
    let ours = host.domkeep_config(guest.domid())?;
    host.check_same(&format!("{when}, `domkeep list -l` is `xl list -l`"), &ours, &theirs)?;
    host.check_same(&format!("{when}, so is `domkeep retrieve`"), &retrieved["config"], &theirs)
}

/// libxl before 4.21 says one KiB too few of dom0.
fn dom0_is_right(host: &mut Host) -> Result<(), Failure> {
    let target = host.xenstore()?.read_text(&"/local/domain/0/memory/target".parse()?)?;
    let dom0 = xsclient::DomId::DOM0;
    let ours = host.domkeep_config(dom0)?["b_info"]["target_memkb"].as_u64();
    host.check_equal("dom0's memory is the live target", &ours, &Some(target.parse()?))?;
    let theirs = host.xl_config(dom0)?["b_info"]["target_memkb"].as_u64();
    host.step(&format!("xl says {theirs:?}"));
    Ok(())
}

fn block(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let third = host.raw_image("third", 16)?;
    let disk = format!("format=raw,vdev=xvdc,access=rw,target={}", third.display());
    host.xl(&["block-attach", guest.name(), &disk])?;
    guest.wait_for_devices("the third disk", |devices| devices.contains("disk xvdc 32768"))?;
    check_like_xl(host, guest, "after a disk was attached")?;
    let disks = disks(&host.domkeep_config(guest.domid())?);
    host.check_equal("the attached disk is listed", &disks.contains(&"xvdc".into()), &true)?;
    guest.ask("fill xvdc 7 0 64")?;
    guest.ask("verify xvdc 7 0 64")?;
    host.xl(&["block-detach", guest.name(), "xvdc"])?;
    guest.wait_for_devices("the third disk to go", |devices| !devices.contains("xvdc"))?;
    check_like_xl(host, guest, "after it was detached")
}

fn network(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    host.xl(&["network-attach", guest.name(), "bridge=xenbr0", &format!("mac={SECOND_MAC}")])?;
    guest.wait_for_devices("the second interface", |devices| devices.contains(SECOND_MAC))?;
    check_like_xl(host, guest, "after an interface was attached")?;
    host.xl(&["network-detach", guest.name(), SECOND_MAC])?;
    guest.wait_for_devices("the interface to go", |devices| !devices.contains(SECOND_MAC))?;
    check_like_xl(host, guest, "after it was detached")
}

fn memory_and_name(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    host.xl(&["mem-set", guest.name(), "176"])?;
    check_like_xl(host, guest, "after mem-set")?;
    let memory = host.domkeep_config(guest.domid())?["b_info"]["target_memkb"].as_u64();
    host.check_equal("the memory is what was asked for", &memory, &Some(176 << 10))?;
    host.xl(&["sched-credit2", "-d", guest.name(), "-w", "300"])?;
    check_like_xl(host, guest, "after a new scheduler weight")?;
    let weight = host.domkeep_config(guest.domid())?["b_info"]["sched_params"]["weight"].as_u64();
    host.check_equal("the weight is the new one", &weight, &Some(300))?;
    host.xl(&["rename", guest.name(), "shop"])?;
    check_like_xl(host, guest, "after a new name")?;
    let name = host.domkeep_config(guest.domid())?["c_info"]["name"].clone();
    host.check_equal("the name is the new one", &name, &Value::from("shop"))
}

fn save_and_restore(host: &mut Host, guest: Guest) -> Result<Guest, Failure> {
    let file = host.work().join("shop.save");
    let file = file.to_string_lossy();
    let before = guest.ticks_on()?;
    host.step("save and restore");
    host.xl(&["save", "shop", &file])?;
    guest.forget();
    host.xl(&["restore", &file])?;
    fs::remove_file(&*file)?;
    let guest = Guest::adopt("shop")?;
    let after = guest.wait_for_tick(before + 2)?;
    host.check(&format!("the restored guest ticks on: {before}, then {after}"), after > before)?;
    check_like_xl(host, &guest, "after saving and restoring")?;
    Ok(guest)
}

/// xl is killed while the hotplug script runs: the disk is in the template, and its backend waits.
fn killed_attach(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let script = host.work().join("slow");
    let fifo = host.work().join("slow.started");
    fs::write(&script, format!("#!/bin/sh\necho > {}\nexec sleep 1000\n", fifo.display()))?;
    run_program(Command::new("chmod").arg("+x").arg(&script), Duration::from_mins(1))?.ok()?;
    run_program(Command::new("mkfifo").arg(&fifo), Duration::from_mins(1))?.ok()?;
    let image = host.raw_image("killed", 16)?;
    let disk = format!(
        "format=raw,vdev=xvdd,access=rw,script={},target={}",
        script.display(),
        image.display()
    );
    let attach = start(Command::new("xl").args(["block-attach", guest.name(), &disk]))?;
    // Opens when the script does.
    run_program(Command::new("cat").arg(&fifo), Duration::from_mins(2))?.ok()?;
    attach.kill()?;
    check_like_xl(host, guest, "after xl was killed while it attached a disk")?;
    let retrieved = host.retrieve(guest.domid())?;
    let report = retrieved["report"]["devices"].as_array().cloned().unwrap_or_default();
    let device = report.iter().find(|device| device["id"] == "xvdd").cloned().unwrap_or_default();
    host.check_equal(
        "and domkeep says that it is half attached",
        &device["attachment"]["is"],
        &Value::from("half_attached"),
    )?;
    // It waits for a backend that nobody serves.
    host.xl_either(&["block-detach", guest.name(), "xvdd", "--force"])?.ok()?;
    check_like_xl(host, guest, "after it was detached by force")
}

/// A disk may be named by its number.
fn other_spelling(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    const XVDE: &str = "51776";
    let image = host.raw_image("number", 16)?;
    let disk = format!("format=raw,vdev={XVDE},access=rw,target={}", image.display());
    host.xl(&["block-attach", guest.name(), &disk])?;
    guest.wait_for_devices("the disk named by number", |devices| devices.contains("xvde"))?;
    let ours = disks(&host.domkeep_config(guest.domid())?);
    host.check(
        &format!("domkeep lists a disk that is named by number: {ours:?}"),
        ours.iter().any(|vdev| vdev == XVDE),
    )?;
    check_like_xl(host, guest, "with a disk that is named by number")?;
    host.xl(&["block-detach", guest.name(), "xvde"])?;
    guest.wait_for_devices("it to go", |devices| !devices.contains("xvde")).map(drop)
}

/// libxl drops a whole class of devices, and succeeds, if it cannot read one of them.
fn unreadable_device(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let before = macs(&host.domkeep_config(guest.domid())?);
    let node = format!("/libxl/{}/device/vif/0/mac", guest.domid()).parse()?;
    host.xenstore()?.write(&node, b"nonsense")?;
    let theirs = macs(&host.xl_config(guest.domid())?);
    host.step(&format!("xl lists the interfaces {theirs:?}"));
    let retrieved = host.retrieve(guest.domid())?;
    host.check_equal(
        "domkeep keeps an interface whose nodes cannot be read",
        &macs(&retrieved["config"]),
        &before,
    )?;
    let devices = retrieved["report"]["devices"].as_array().cloned().unwrap_or_default();
    let told =
        devices.iter().any(|device| device["class"] == "nic" && device["problems"].is_array());
    host.check("and says what it could not read", told)?;
    host.xenstore()?.write(&node, MAC.as_bytes())?;
    check_like_xl(host, guest, "after the nodes were mended")
}

/// Without a template xl leaves the domain out. Domkeep builds the answer from Xenstore, and says so.
fn lost_template(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let before = host.domkeep_config(guest.domid())?;
    let uuid = before["c_info"]["uuid"].as_str().unwrap_or_default();
    let template = format!("/var/lib/xen/userdata-d.{}.{uuid}.libxl-json", guest.domid());
    fs::remove_file(&template)?;
    let theirs = host.xl(&["list", "-l"])?.json()?;
    let entries = theirs.as_array().map(Vec::as_slice).unwrap_or_default();
    let domid = u64::from(guest.domid().get());
    host.step(&format!(
        "xl lists it without a template: {}",
        entries.iter().any(|entry| entry["domid"] == domid)
    ));
    let ours = host.domkeep_config(guest.domid())?;
    host.check_equal("a guest without a template has its disks", &disks(&ours), &disks(&before))?;
    host.check_equal("and its interfaces", &macs(&ours), &macs(&before))?;
    for (part, key) in [("c_info", "name"), ("c_info", "uuid"), ("b_info", "target_memkb")] {
        host.check_equal(&format!("and its {key}"), &ours[part][key], &before[part][key])?;
    }
    let report = host.retrieve(guest.domid())?;
    host.check_equal(
        "and the report says that the template is missing",
        &report["report"]["template"]["template"],
        &Value::from("missing"),
    )
}

fn macs(config: &Value) -> Vec<String> {
    let nics = config["nics"].as_array().map(Vec::as_slice).unwrap_or_default();
    nics.iter().map(|nic| nic["mac"].as_str().unwrap_or_default().to_owned()).collect()
}

fn disks(config: &Value) -> Vec<String> {
    let disks = config["disks"].as_array().map(Vec::as_slice).unwrap_or_default();
    disks.iter().map(|disk| disk["vdev"].as_str().unwrap_or_default().to_owned()).collect()
}
