//! domkeep killed in every phase of an attach and a detach, on a real host: `retrieve` tells the truth, `repair` mends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xsclient::Nodes;

use super::Scenario;
use super::devices::{check_agree, device};
use crate::dom0::{Failure, Guest, GuestConfig, Host, Running, run as run_program, start};

pub(super) const CRASHES: Scenario = Scenario {
    name: "crashes",
    about: "domkeep is killed in every phase of an attach and a detach; retrieve tells it, repair mends it",
    limit: Duration::from_mins(20),
    run,
    ..Scenario::PLAIN
};

const XVDC: &str = "51744";
/// How many times an attach is killed somewhere on its way.
const MOMENTS: u32 = 8;
/// For a program of this scenario.
const LIMIT: Duration = Duration::from_mins(2);

fn run(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("crash"))?;
    waiting_for_lock(host, &guest)?;
    before_script(host, &guest)?;
    after_script(host, &guest)?;
    waiting_for_guest(host, &guest)?;
    at_any_moment(host, &guest)?;
    while_detaching(host, &guest)?;
    guest.ticks_on()?;
    guest.destroy()
}

/// A disk whose script is the given one.
fn spec(image: &Path, script: Option<&Path>) -> String {
    let script = script.map(|script| format!("script={},", script.display())).unwrap_or_default();
    format!("vdev=xvdc,{script}target={}", image.display())
}

fn attach(guest: &Guest, spec: &str) -> Result<Running, Failure> {
    start(Command::new("domkeep").args(["device", "attach", guest.name(), "disk", spec]))
}

/// A script that does something, then says that it has, then hangs.
fn hanging(host: &Host, name: &str, first: &str) -> Result<(PathBuf, PathBuf), Failure> {
    let (script, fifo) = (host.work().join(name), host.work().join(format!("{name}.fifo")));
    let text = format!("#!/bin/bash\n{first}\necho > {}\nexec sleep 1000\n", fifo.display());
    fs::write(&script, text)?;
    run_program(Command::new("chmod").arg("+x").arg(&script), LIMIT)?.ok()?;
    run_program(Command::new("mkfifo").arg(&fifo), LIMIT)?.ok()?;
    Ok((script, fifo))
}

/// Opens when the script has come so far.
fn await_script(fifo: &Path) -> Result<(), Failure> {
    run_program(Command::new("cat").arg(fifo), LIMIT)?.ok().map(drop)
}

/// Kills what still runs a script for the device.
fn end_scripts() -> Result<(), Failure> {
    run_program(Command::new("pkill").args(["-KILL", "-f", "^sleep 1000"]), LIMIT).map(drop)
}

fn is(host: &Host, guest: &Guest) -> Result<Value, Failure> {
    Ok(device(host, guest, "xvdc")?["attachment"]["is"].clone())
}

/// Uses the disk, detaches it, and looks that nothing is left.
fn use_and_detach(host: &mut Host, guest: &Guest, when: &str) -> Result<(), Failure> {
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    guest.ask("fill xvdc 3 0 16")?;
    guest.ask("verify xvdc 3 0 16")?;
    check_agree(host, guest, &format!("{when}, finished by repair"))?;
    host.domkeep(&["device", "detach", guest.name(), "disk", "xvdc"])?.ok()?;
    guest.wait_for_devices("the disk to go", |devices| !devices.contains("xvdc"))?;
    check_agree(host, guest, &format!("{when}, detached"))?;
    let (script, domid) = ("51744", guest.domid());
    let tree = host.domkeep(&["xenstore", "ls", "-f", &format!("/libxl/{domid}")])?.ok()?.stdout;
    host.check(
        &format!("{when}, nothing is left"),
        !tree.contains(script) && !tree.contains("domkeep"),
    )
}

fn repair(host: &mut Host, guest: &Guest, more: &[&str]) -> Result<Value, Failure> {
    let mut arguments = vec!["device", "repair", guest.name(), "disk", "xvdc"];
    arguments.extend(more);
    let repaired = host.domkeep_json(&arguments)?;
    Ok(repaired[0]["mended"].clone())
}

/// Before anything was written.
fn waiting_for_lock(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("lock", 16)?;
    let uuid = host.domkeep_config(guest.domid())?["c_info"]["uuid"].clone();
    let uuid = uuid.as_str().unwrap_or_default().to_owned();
    let lock = format!("/var/lib/xen/userdata-l.{}.{uuid}.domain-userdata-lock", guest.domid());
    let holder =
        start(Command::new("flock").args([&lock, "sh", "-c", "echo held; exec sleep 1000"]))?;
    holder.wait_for_line(LIMIT)?;
    let mut attaching = attach(guest, &spec(&image, None))?;
    // That nothing happens cannot be watched.
    std::thread::sleep(Duration::from_secs(2));
    host.check("an attach waits while somebody holds libxl's lock", !attaching.has_ended()?)?;
    attaching.kill()?;
    holder.kill()?;
    end_scripts()?;
    host.check_equal(
        "killed while it waits for the lock, there is no device",
        &is(host, guest)?,
        &Value::Null,
    )?;
    check_agree(host, guest, "killed while it waits for the lock")
}

/// Both views are written, the script has not done anything.
fn before_script(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    for undo in [false, true] {
        let name = format!("before-{undo}");
        let image = host.raw_image(&name, 16)?;
        let (script, fifo) = hanging(host, &name, "")?;
        let attaching = attach(guest, &spec(&image, Some(&script)))?;
        await_script(&fifo)?;
        attaching.kill()?;
        host.check_equal(
            "killed in the script, it is half attached",
            &is(host, guest)?,
            &"half_attached".into(),
        )?;
        check_agree(host, guest, "killed in the script")?;
        let claim = device(host, guest, "xvdc")?["claim"]["holder"].clone();
        host.check_equal("and its claim is of a process that is gone", &claim, &"gone".into())?;
        end_scripts()?;
        // Now the script works.
        fs::write(&script, "#!/bin/bash\nexec /etc/xen/scripts/block \"$@\"\n")?;
        if undo {
            let mended = repair(host, guest, &["--undo"])?;
            host.check_equal("repair --undo detaches it", &mended, &"detached".into())?;
            check_agree(host, guest, "killed in the script, undone")?;
        } else {
            let mended = repair(host, guest, &[])?;
            host.check_equal("repair attaches it to the end", &mended, &"attached".into())?;
            use_and_detach(host, guest, "killed in the script")?;
        }
    }
    Ok(())
}

/// The script has done its work and is killed with the attach behind it: the ends meet by themselves.
fn after_script(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("after", 16)?;
    let work = "[ \"$1\" = add ] || exec /etc/xen/scripts/block \"$@\"\n/etc/xen/scripts/block \"$@\" || exit 1";
    let (script, fifo) = hanging(host, "after", work)?;
    let attaching = attach(guest, &spec(&image, Some(&script)))?;
    await_script(&fifo)?;
    attaching.kill()?;
    end_scripts()?;
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    let mended = repair(host, guest, &[])?;
    host.step(&format!("killed behind the script's work: {mended}"));
    host.check_equal(
        "killed behind the script's work, it is connected",
        &is(host, guest)?,
        &"connected".into(),
    )?;
    use_and_detach(host, guest, "killed behind the script's work")
}

/// The guest is paused, so that the attach waits for it.
fn waiting_for_guest(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("paused", 16)?;
    host.xl(&["pause", guest.name()])?;
    let attaching = attach(guest, &spec(&image, None))?;
    let domid = guest.domid();
    await_node(
        host,
        &format!("/local/domain/0/backend/vbd/{domid}/{XVDC}/hotplug-status"),
        "connected",
    )?;
    attaching.kill()?;
    host.check_equal(
        "killed while it waits for the guest, it waits for the frontend",
        &is(host, guest)?,
        &"waiting_for_frontend".into(),
    )?;
    host.xl(&["unpause", guest.name()])?;
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    let mended = repair(host, guest, &[])?;
    host.check_equal("and there is nothing to mend", &mended, &"nothing".into())?;
    use_and_detach(host, guest, "killed while it waits for the guest")
}

fn await_node(host: &Host, path: &str, value: &str) -> Result<(), Failure> {
    let mut client = host.xenstore()?;
    let path = path.parse::<xsclient::Path>()?;
    let watch = client.watch(path.clone(), None)?;
    let deadline = Instant::now() + LIMIT;
    while client.read_optional(&path)?.as_deref() != Some(value.as_bytes()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::because(format!("{path} did not become {value}")));
        }
        client.next_event(&watch, left)?;
    }
    Ok(())
}

/// Wherever it happens to be after so much time: as long as an attach takes, in steps.
fn at_any_moment(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("moment", 16)?;
    let whole =
        host.domkeep(&["device", "attach", guest.name(), "disk", &spec(&image, None)])?.ok()?.took;
    host.figure("an attach, s", whole.as_secs_f64());
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    host.domkeep(&["device", "detach", guest.name(), "disk", "xvdc"])?.ok()?;
    let mut seen = Vec::new();
    for moment in 1..=MOMENTS {
        let attaching = attach(guest, &spec(&image, None))?;
        std::thread::sleep(whole * moment / MOMENTS);
        attaching.kill()?;
        let found = device(host, guest, "xvdc")?;
        let (presence, is) = (found["presence"].clone(), found["attachment"]["is"].clone());
        seen.push(format!("{} {}", presence.as_str().unwrap_or("-"), is.as_str().unwrap_or("-")));
        let mended = repair(host, guest, &[])?;
        seen.push(format!("-> {}", mended.as_str().unwrap_or("?")));
        let after = device(host, guest, "xvdc")?;
        let settled = after.is_null()
            || after["presence"] == "both"
                && ["connected", "waiting_for_frontend"]
                    .contains(&after["attachment"]["is"].as_str().unwrap_or_default());
        host.check(
            &format!("killed after {moment}/{MOMENTS}, repair leaves it whole or gone"),
            settled,
        )?;
        if !after.is_null() {
            guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
            guest.ask("fill xvdc 5 0 4")?;
            guest.ask("verify xvdc 5 0 4")?;
            host.domkeep(&["device", "detach", guest.name(), "disk", "xvdc"])?.ok()?;
        }
    }
    host.step(&seen.join(", "));
    check_agree(host, guest, "after attaches that were killed at any moment")
}

fn while_detaching(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let image = host.raw_image("detaching", 16)?;
    host.domkeep(&["device", "attach", guest.name(), "disk", &spec(&image, None)])?.ok()?;
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    // It cannot let go.
    host.xl(&["pause", guest.name()])?;
    let detaching = start(Command::new("domkeep").args([
        "device",
        "detach",
        guest.name(),
        "disk",
        "xvdc",
        "--wait",
        "100",
    ]))?;
    let domid = guest.domid();
    await_node(host, &format!("/local/domain/0/backend/vbd/{domid}/{XVDC}/online"), "0")?;
    detaching.kill()?;
    host.check_equal(
        "a detach that is killed leaves it half detached",
        &is(host, guest)?,
        &"half_detached".into(),
    )?;
    host.xl(&["unpause", guest.name()])?;
    let mended = repair(host, guest, &[])?;
    host.check_equal("and repair finishes it", &mended, &"detached".into())?;
    guest.wait_for_devices("the disk to go", |devices| !devices.contains("xvdc"))?;
    check_agree(host, guest, "after a detach that was killed")
}
