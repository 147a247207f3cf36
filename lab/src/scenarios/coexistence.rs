//! xl and domkeep on one domain at once: they attach, detach and list, and one saves.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Scenario;
use super::devices::{check_agree, listed, names};
use crate::dom0::{Failure, Guest, GuestConfig, Host, Ran, run as run_program};

pub(super) const COEXISTENCE: Scenario = Scenario {
    name: "coexistence",
    about: "xl and domkeep attach, detach, list and save one guest at the same time for a minute",
    limit: Duration::from_mins(20),
    run,
    ..Scenario::PLAIN
};

const LIMIT: Duration = Duration::from_mins(3);
/// How long they are at it.
const FOR: Duration = Duration::from_mins(1);

fn run(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("shared"))?;
    sees_the_other(host, &guest)?;
    let counts = at_once(host, &guest)?;
    for (what, count) in counts {
        host.figure(what, f64::from(count));
        host.check(&format!("some of them were done: {what}"), count > 0)?;
    }
    settle(host, &guest)?;
    let guest = save(host, guest)?;
    guest.ticks_on()?;
    guest.destroy()
}

/// What one attaches, the other lists and detaches.
fn sees_the_other(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let (one, two) = (host.raw_image("one", 16)?, host.raw_image("two", 16)?);
    host.xl(&[
        "block-attach",
        guest.name(),
        &format!("format=raw,vdev=xvdc,access=rw,target={}", one.display()),
    ])?;
    host.domkeep(&[
        "device",
        "attach",
        guest.name(),
        "disk",
        &format!("vdev=xvdd,target={}", two.display()),
    ])?
    .ok()?;
    guest.wait_for_devices("both disks", |devices| {
        devices.contains("xvdc") && devices.contains("xvdd")
    })?;
    check_agree(host, guest, "with a disk of each")?;
    host.domkeep(&["device", "detach", guest.name(), "disk", "xvdc"])?.ok()?;
    host.xl(&["block-detach", guest.name(), "xvdd"])?;
    guest.wait_for_devices("none", |devices| {
        !devices.contains("xvdc") && !devices.contains("xvdd")
    })?;
    super::retrieve::check_like_xl(host, guest, "after each detached the other's")?;
    // xl does not write the template when it detaches.
    let stale = listed(host, guest)?;
    let stale: Vec<_> = stale.iter().filter(|device| device["class"] == "disk").collect();
    host.check_equal("the entry that xl left is reported as such", &stale.len(), &1)?;
    host.domkeep(&["device", "repair", guest.name()])?.ok()?;
    check_agree(host, guest, "after that entry was taken out")
}

/// Disks of their own for each, so that all has to succeed; how often each was done.
fn at_once(host: &mut Host, guest: &Guest) -> Result<Vec<(&'static str, u32)>, Failure> {
    let images = [host.raw_image("theirs", 16)?, host.raw_image("ours", 16)?];
    let [theirs, ours] = images.map(|image| image.display().to_string());
    let by_xl = format!("format=raw,vdev=xvde,access=rw,target={theirs}");
    let by_domkeep = format!("vdev=xvdf,target={ours}");
    let name = guest.name();
    let end = Instant::now() + FOR;
    let stop = AtomicBool::new(false);
    let repeat = |commands: &[&[&str]]| -> Result<u32, Failure> {
        let mut count = 0;
        while Instant::now() < end && !stop.load(Ordering::Relaxed) {
            for command in commands {
                let ran = run_program(Command::new(command[0]).args(&command[1..]), LIMIT);
                if let Err(failure) = ran.and_then(Ran::ok) {
                    stop.store(true, Ordering::Relaxed);
                    return Err(failure);
                }
            }
            count += 1;
        }
        Ok(count)
    };
    host.step("xl and domkeep at once for a minute");
    // xl holds a template's lock while it waits for backends and scripts, which takes longer here than one waits by default.
    let patience = ["--timeout", "60", "--wait", "60", "--script-limit", "120"];
    let mac = "00:16:3e:00:03:01";
    let nic = &format!("mac={mac}");
    // A block script needs ten seconds of a processor here and has libxl's 40 s, and the host's one is shared by all five.
    let behind = ["nice", "-n", "10"];
    let work: [(&'static str, &[&[&str]]); 5] = [
        (
            "xl attached and detached",
            &[&["xl", "block-attach", name, &by_xl], &["xl", "block-detach", name, "xvde"]],
        ),
        (
            "domkeep attached and detached",
            &[
                &[&["domkeep", "device", "attach", name, "disk", &by_domkeep], &patience[..]]
                    .concat(),
                &[&["domkeep", "device", "detach", name, "disk", "xvdf"], &patience[..]].concat(),
            ],
        ),
        (
            "domkeep attached and detached a nic",
            &[
                &[&behind[..], &["domkeep", "device", "attach", name, "nic", nic], &patience]
                    .concat(),
                &[&behind[..], &["domkeep", "device", "detach", name, "nic", mac], &patience]
                    .concat(),
            ],
        ),
        ("xl listed", &[&[&behind[..], &["xl", "list", "-l"]].concat(), &["sleep", "1"]]),
        (
            "domkeep listed",
            &[
                &[&behind[..], &["domkeep", "--timeout", "60", "list", "-l"]].concat(),
                &["sleep", "1"],
            ],
        ),
    ];
    let counts: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> =
            work.iter().map(|(what, commands)| (*what, scope.spawn(|| repeat(commands)))).collect();
        running.into_iter().map(|(what, one)| (what, one.join())).collect()
    });
    let mut done = Vec::new();
    for (what, count) in counts {
        let count = count.map_err(|_| Failure::because(format!("{what}: a thread panicked")))?;
        done.push((what, count.map_err(|failure| failure.and(what))?));
    }
    Ok(done)
}

/// All is in order behind it.
fn settle(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    host.domkeep(&["device", "repair", guest.name()])?.ok()?;
    check_agree(host, guest, "after a minute of both")?;
    let left = names(&host.xl_config(guest.domid())?);
    host.check_equal("no device was left behind and none invented", &left, &Vec::<String>::new())?;
    let tree =
        host.domkeep(&["xenstore", "ls", "-f", &format!("/libxl/{}", guest.domid())])?.ok()?;
    host.check("no claim is left", !tree.stdout.contains("/domkeep"))?;
    guest.ticks_on().map(drop)
}

/// xl saves while domkeep lists and asks for locks.
fn save(host: &mut Host, guest: Guest) -> Result<Guest, Failure> {
    let image = host.raw_image("saved", 16)?;
    host.domkeep(&[
        "device",
        "attach",
        guest.name(),
        "disk",
        &format!("vdev=xvdc,target={}", image.display()),
    ])?
    .ok()?;
    guest.wait_for_devices("the disk", |devices| devices.contains("xvdc"))?;
    guest.ask("fill xvdc 9 0 16")?;
    let file = host.work().join("shared.save");
    let file = file.to_string_lossy().into_owned();
    let before = guest.ticks_on()?;
    let name = guest.name().to_owned();
    let saved = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looking = scope.spawn(|| -> Result<u32, Failure> {
            let mut looks = 0;
            while !saved.load(Ordering::Relaxed) {
                // The domain goes in between.
                run_program(Command::new("domkeep").args(["device", "list", &name]), LIMIT)?;
                looks += 1;
            }
            Ok(looks)
        });
        let outcome = host.xl(&["save", &name, &file]);
        saved.store(true, Ordering::Relaxed);
        let looks = looking.join().map_err(|_| Failure::because("a thread panicked"))?;
        outcome.and(looks)
    })?;
    host.figure("domkeep listed while xl saved", f64::from(looks));
    guest.forget();
    host.xl(&["restore", &file])?;
    let guest = Guest::adopt("shared")?;
    guest.wait_for_tick(before + 2)?;
    guest.ask("verify xvdc 9 0 16")?;
    host.check("the disk that domkeep attached is in what xl saved and restored", true)?;
    check_agree(host, &guest, "after saving and restoring")?;
    Ok(guest)
}
