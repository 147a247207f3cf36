//! A save that is killed: its guest runs on, and what it has left is undone or completed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::Scenario;
use crate::dom0::{Failure, Guest, GuestConfig, Host, start};

pub(super) const KILL: Scenario = Scenario {
    name: "snapshot-kill",
    about: "a save is killed at each of its steps, and the guest runs on",
    limit: Duration::from_mins(20),
    run,
    ..Scenario::PLAIN
};

/// Until a moment of a save has come.
const MOMENT_LIMIT: Duration = Duration::from_mins(2);
/// Between two looks at a save's files.
const LOOK: Duration = Duration::from_millis(3);
/// Octets of memory that make the middle of its writing.
const MIDDLE: u64 = 16 << 20;

/// When a save is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// This record is in its journal.
    Record(&'static str),
    /// Half of the memory is written.
    Memory,
}

const MOMENTS: &[Moment] = &[
    Moment::Record("created"),
    Moment::Record("suspending"),
    Moment::Memory,
    Moment::Record("naming"),
    Moment::Record("pivoting"),
    Moment::Record("pivoted"),
];

fn run(host: &mut Host) -> Result<(), Failure> {
    let raw = host.raw_image("raw", 16)?;
    let qcow2 = host.qcow2_image("cow", 16)?;
    let config = GuestConfig::pv("web")
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
        .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display()));
    let guest = host.create_ticking(&config)?;
    guest.ask("fill xvda 1 0 64")?;
    guest.ask("fill xvdb 2 0 64")?;
    for (number, moment) in MOMENTS.iter().enumerate() {
        kill_at(host, &guest, *moment, number)?;
    }
    guest.destroy()
}

fn kill_at(host: &mut Host, guest: &Guest, moment: Moment, number: usize) -> Result<(), Failure> {
    let directory = host.work().join(format!("kill-{number}"));
    fs::create_dir(&directory)?;
    let at = |name: &str| directory.join(name).to_string_lossy().into_owned();
    let journal = at("journal");
    let mut command = Command::new("domkeep");
    command.args(["snapshot", "save", guest.name(), "--memory", &at("memory")]);
    command.args(["--xenstore-state", &at("xenstore"), "--journal", &journal]);
    command.args(["--manifest", &at("manifest"), "--disk", &format!("xvda=copy:{}", at("raw"))]);
    command.args(["--disk", &format!("xvdb=overlay:{}", at("cow.qcow2"))]);
    let mut saver = start(&mut command)?;
    let deadline = Instant::now() + MOMENT_LIMIT;
    while !has_come(moment, &directory)? {
        if saver.has_ended()? {
            let ran = saver.wait(MOMENT_LIMIT)?;
            return Err(Failure::because(format!(
                "the save ended before {moment:?}: {}{}",
                ran.stdout, ran.stderr
            )));
        }
        if Instant::now() > deadline {
            return Err(Failure::because(format!("{moment:?} does not come")));
        }
        thread::sleep(LOOK);
    }
    saver.kill()?;
    let killed = Instant::now();
    guest.ticks_on()?;
    let took = killed.elapsed().as_secs_f64();
    host.figure(&format!("killed at {moment:?}: seconds until two more ticks"), took);
    let recovered =
        host.domkeep_json(&["snapshot", "recover", &journal, "--manifest", &at("recovered")])?;
    host.check(
        &format!(
            "killed at {moment:?}, the guest runs on, and the save is {}",
            recovered["recovered"]
        ),
        ["nothing-done", "rolled-back", "saved"]
            .iter()
            .any(|word| recovered["recovered"] == *word || recovered.get("id").is_some()),
    )?;
    guest.ticks_on()?;
    guest.ask("verify xvda 1 0 64")?;
    guest.ask("verify xvdb 2 0 64")?;
    let mut left: Vec<_> = fs::read_dir(&directory)?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    left.sort_unstable();
    host.step(&format!("left: {left:?}"));
    let partial = left.iter().any(|name| name.contains("partial"));
    host.check("its disks are whole, and nothing partial is left", !partial)
}

fn has_come(moment: Moment, directory: &std::path::Path) -> Result<bool, Failure> {
    match moment {
        Moment::Record(name) => {
            let text = fs::read(directory.join("journal")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            Ok(text.contains(&format!("\"record\":\"{name}\"")))
        }
        Moment::Memory => {
            for entry in fs::read_dir(directory)? {
                let entry = entry?;
                let is_memory = entry.file_name().to_string_lossy().contains("memory");
                // The file may have its name since.
                let octets = entry.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                if is_memory && octets >= MIDDLE {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}
