//! Snapshots of real guests: taken while they tick, restored beside them and in their place, with xl's files too.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use libxl_config::{DomainConfig, Mode};
use serde_json::Value;
use snapshot::control::DomainControl;
use snapshot::image::stream::{XL_HEADER_LEN, XlHeader};
use uuid::Uuid;

use super::{Scenario, control};
use crate::dom0::{Failure, Guest, GuestConfig, Host, Ran, run as run_program};

pub(super) const PV: Scenario = Scenario {
    name: "snapshot-pv",
    about: "a running PV guest with disks is saved, restored beside itself, and reverted",
    limit: Duration::from_mins(15),
    run: |host| run(host, GuestConfig::pv("web")),
    ..Scenario::PLAIN
};

pub(super) const PVH: Scenario = Scenario {
    name: "snapshot-pvh",
    about: "a running PVH guest with disks is saved, restored beside itself, and reverted",
    limit: Duration::from_mins(15),
    run: |host| run(host, GuestConfig::pvh("web")),
    ..Scenario::PLAIN
};

pub(super) const XL: Scenario = Scenario {
    name: "snapshot-xl",
    about: "what xl has saved Domkeep restores, and the other way round",
    limit: Duration::from_mins(10),
    run: xl_files,
    ..Scenario::PLAIN
};

const MAC: &str = "00:16:3e:00:02:01";
const OTHER_MAC: &str = "00:16:3e:00:02:02";
/// What the guest writes below its own part of Xenstore, which stock tools lose.
const NODE: &str = "data/note";
const WRITTEN: &str = "kept over a restore";
/// Blocks of each disk that are written.
const BLOCKS: u64 = 64;
/// Ticks that may pass between looking at a console and the moment at which a guest is saved, where two cores have other work.
const TICKS_UNSEEN: u64 = 15;
/// For a call that succeeds.
const PATIENCE: Duration = Duration::from_mins(3);

fn run(host: &mut Host, config: GuestConfig) -> Result<(), Failure> {
    let raw = host.raw_image("raw", 16)?;
    let qcow2 = host.qcow2_image("cow", 16)?;
    let config = config
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
        .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display()))
        .nic(&format!("bridge=xenbr0,mac={MAC}"));
    let guest = host.create_ticking(&config)?;
    fill(&guest, 1, 2)?;
    guest.ask(&format!("node-write {NODE} {WRITTEN}"))?;

    let saved = save(host, &guest)?;
    verify(&guest, 1, 2)?;
    fill(&guest, 3, 4)?;
    host.check("the saved guest ticks on, and reads and writes its disks", true)?;
    the_overlay_is_known(host, &guest)?;

    let copy = beside(host, &saved)?;
    verify(&guest, 3, 4)?;
    host.check("the original has what it has written since", true)?;
    same_uuid(host)?;
    corrupted(host)?;
    copy.destroy()?;
    guest.ticks_on()?;
    revert(host, guest, &saved)
}

fn fill(guest: &Guest, raw: u64, qcow2: u64) -> Result<(), Failure> {
    guest.ask(&format!("fill xvda {raw} 0 {BLOCKS}"))?;
    guest.ask(&format!("fill xvdb {qcow2} 0 {BLOCKS}")).map(drop)
}

fn verify(guest: &Guest, raw: u64, qcow2: u64) -> Result<(), Failure> {
    guest.ask(&format!("verify xvda {raw} 0 {BLOCKS}"))?;
    guest.ask(&format!("verify xvdb {qcow2} 0 {BLOCKS}")).map(drop)
}

/// Between which ticks a save was.
pub(super) struct Saved {
    pub(super) before: u64,
    pub(super) after: u64,
}

fn save(host: &mut Host, guest: &Guest) -> Result<Saved, Failure> {
    let before = guest.ticks_on()?;
    let manifest = host.domkeep_json(&[
        "snapshot",
        "save",
        guest.name(),
        "--memory",
        "/lab/work/web.memory",
        "--xenstore-state",
        "/lab/work/web.xenstore",
        "--disk",
        "xvda=copy:/lab/work/raw.copy",
        "--disk",
        "xvdb=overlay:/lab/work/cow-1.qcow2",
        "--journal",
        "/lab/work/web.journal",
        "--manifest",
        "/lab/work/web.snapshot",
    ])?;
    let after = guest.ticks_on()?;
    host.check_equal("all is of one moment", &manifest["consistency"], &Value::from("complete"))?;
    host.check_equal("the guest runs", &manifest["state_after"], &Value::from("running"))?;
    for (figure, name) in [
        ("held_us", "the guest stood still, seconds"),
        ("memory_us", "its memory was written, seconds"),
        ("disks_us", "its disks were frozen, seconds"),
        ("total_us", "the whole save, seconds"),
    ] {
        let micros = manifest["timings"][figure].as_f64().unwrap_or_default();
        host.figure(name, micros / 1e6);
    }
    Ok(Saved { before, after })
}

/// xl and Domkeep see that the disk is in the overlay now.
fn the_overlay_is_known(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let theirs = host.xl_config(guest.domid())?;
    let ours = host.domkeep_config(guest.domid())?;
    host.check_same("xl and domkeep list the same configuration after the pivot", &ours, &theirs)?;
    let disks = ours["disks"].as_array().cloned().unwrap_or_default();
    let image =
        disks.iter().find(|disk| disk["vdev"] == "xvdb").map(|disk| disk["pdev_path"].clone());
    host.check_equal("the disk is in its overlay", &image, &Some("/lab/work/cow-1.qcow2".into()))
}

/// Restores with new overlays over what was frozen; `what` tells these apart.
fn restore(host: &Host, what: &str, more: &[&str]) -> Result<Ran, Failure> {
    let raw = format!("xvda=overlay:/lab/work/raw-{what}.qcow2");
    let qcow2 = format!("xvdb=overlay:/lab/work/cow-{what}.qcow2");
    let journal = format!("/lab/work/{what}.journal");
    let mut arguments =
        vec!["snapshot", "restore", "/lab/work/web.snapshot", "--disk", &raw, "--disk", &qcow2];
    arguments.extend(["--journal", &journal]);
    arguments.extend(more);
    host.domkeep(&arguments)
}

fn beside(host: &mut Host, saved: &Saved) -> Result<Guest, Failure> {
    let mac = format!("0={OTHER_MAC}");
    let began = Instant::now();
    let more = ["--as-name", "web-2", "--uuid", "new", "--mac", &mac];
    let ran = restore(host, "beside", &more)?.ok()?;
    host.figure("a restore beside the original, seconds", began.elapsed().as_secs_f64());
    host.step(&ran.stdout);
    let copy = Guest::adopt_restored("web-2")?;
    goes_on(host, &copy, saved, "the copy")?;
    let devices = copy.ask("devices")?;
    host.step(&devices);
    let mac = copy_mac(host, &copy)?;
    host.check_equal("it has the other address", &mac, &Value::from(OTHER_MAC))?;
    let note = copy.ask(&format!("node-read {NODE}"))?;
    host.check_equal("what the guest wrote to Xenstore is there", &note.as_str(), &WRITTEN)?;
    verify(&copy, 1, 2)?;
    host.check("its disks are those of the moment of the save", true)?;
    copy.ask(&format!("fill xvda 5 0 {BLOCKS}"))?;
    copy.ask(&format!("fill xvdb 6 0 {BLOCKS}"))?;
    verify(&copy, 5, 6)?;
    host.check("and can be written", true)?;
    let theirs = host.xl_config(copy.domid())?;
    host.check_same("xl lists it as domkeep does", &host.domkeep_config(copy.domid())?, &theirs)?;
    Ok(copy)
}

fn copy_mac(host: &Host, copy: &Guest) -> Result<Value, Failure> {
    Ok(host.xl_config(copy.domid())?["nics"][0]["mac"].clone())
}

/// It ticks from where it was saved, and not from the start.
pub(super) fn goes_on(
    host: &mut Host,
    guest: &Guest,
    saved: &Saved,
    who: &str,
) -> Result<(), Failure> {
    guest.ticks_on()?;
    let text = guest.console().text()?;
    let first = text.lines().find_map(|line| line.trim().strip_prefix("tick "));
    let first: u64 = first.unwrap_or("0").parse()?;
    let Saved { before, after } = *saved;
    let is_next = first > before && first <= after.max(before + TICKS_UNSEEN);
    host.check(
        &format!("{who} ticks from where it was: saved between ticks {before} and {after}, goes on with {first}"),
        is_next,
    )
}

fn domains(host: &Host) -> Result<usize, Failure> {
    Ok(host.xl(&["list"])?.stdout.lines().count())
}

fn same_uuid(host: &mut Host) -> Result<(), Failure> {
    let before = domains(host)?;
    let ran = restore(host, "same-uuid", &["--as-name", "web-3"])?.status_is(1)?;
    let told = format!("{}{}", ran.stdout, ran.stderr);
    host.check(
        &format!("a second domain with the same uuid is refused: {told}"),
        told.contains("uuid"),
    )?;
    host.check_equal("and none is there", &domains(host)?, &before)
}

/// Stock tools run such a guest.
fn corrupted(host: &mut Host) -> Result<(), Failure> {
    let before = domains(host)?;
    // A PVH guest has pages just below 4 GiB: most of its image is a hole.
    let mut copy = Command::new("cp");
    copy.args(["--sparse=always", "/lab/work/web.memory", "/lab/work/bad.memory"]);
    run_program(&mut copy, PATIENCE)?.ok()?;
    let file = File::options().read(true).write(true).open("/lab/work/bad.memory")?;
    let middle = file.metadata()?.len() / 2;
    let mut octets = [0; 64];
    file.read_exact_at(&mut octets, middle)?;
    file.write_all_at(&octets.map(|octet| !octet), middle)?;
    let more = ["--as-name", "web-4", "--uuid", "new", "--memory", "/lab/work/bad.memory"];
    let ran = restore(host, "bad", &more)?.status_is(1)?;
    host.check(&format!("a corrupted image is refused: {}", ran.stderr.trim()), true)?;
    host.check_equal("and nothing was built from it", &domains(host)?, &before)?;
    let left = fs::exists("/lab/work/raw-bad.qcow2")?;
    host.check_equal("no overlay is left", &left, &false)
}

fn revert(host: &mut Host, guest: Guest, saved: &Saved) -> Result<(), Failure> {
    let began = Instant::now();
    let domid = guest.domid();
    restore(host, "revert", &["--replace", &domid.to_string()])?.ok()?;
    host.figure("a revert in place, seconds", began.elapsed().as_secs_f64());
    guest.forget();
    let reverted = Guest::adopt_restored("web")?;
    host.check("it is another domain", reverted.domid() != domid)?;
    goes_on(host, &reverted, saved, "the reverted guest")?;
    verify(&reverted, 1, 2)?;
    host.check("its disks are as they were saved", true)?;
    let note = reverted.ask(&format!("node-read {NODE}"))?;
    host.check_equal("and its part of Xenstore", &note.as_str(), &WRITTEN)?;
    let mac = copy_mac(host, &reverted)?;
    host.check_equal("and its address", &mac, &Value::from(MAC))?;
    fill(&reverted, 7, 8)?;
    verify(&reverted, 7, 8)?;
    reverted.destroy()
}

fn xl_files(host: &mut Host) -> Result<(), Failure> {
    from_xl(host)?;
    to_xl(host)
}

/// Domkeep builds a domain from what `xl save` has written.
fn from_xl(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("old"))?;
    let before = guest.ticks_on()?;
    host.xl(&["save", "-c", "old", "/lab/work/old.xl"])?;
    let after = guest.ticks_on()?;
    let mut file = File::open("/lab/work/old.xl")?;
    let mut header = [0; XL_HEADER_LEN];
    file.read_exact(&mut header)?;
    let mut length = [0; 4];
    length.copy_from_slice(&header[44..48]);
    let mut optional = vec![0; usize::try_from(u32::from_le_bytes(length))?];
    file.read_exact(&mut optional)?;
    let text = XlHeader::new(&optional).configuration()?.unwrap_or_default();
    let mut config = DomainConfig::read_userdata(text, Mode::Lenient)?.config;
    config.c_info.name = Some("from-xl".to_owned());
    config.c_info.uuid = Uuid::from_u128(0xf1);
    let libxl = control::libxl()?;
    let deadline = Instant::now() + PATIENCE;
    // The descriptor stands at the beginning of libxl's own stream.
    let view = libxl.build_from(&config, file.as_fd(), deadline.into())?;
    libxl.unpause(&view.identity, deadline)?;
    let copy = Guest::adopt("from-xl")?;
    goes_on(host, &copy, &Saved { before, after }, "what xl saved and domkeep restored")?;
    copy.destroy()?;
    guest.destroy()
}

/// `xl restore` reads what Domkeep has saved as a stream, behind xl's own header.
fn to_xl(host: &mut Host) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pvh("new"))?;
    let before = guest.ticks_on()?;
    let saved = host.domkeep_json(&[
        "snapshot",
        "save",
        "new",
        "--memory",
        "/lab/work/new.stream,format=stream",
        "--side-digest",
        "/lab/work/new.digests",
        "--manifest",
        "/lab/work/new.snapshot",
        "--after",
        "destroy",
    ])?;
    let after = before + TICKS_UNSEEN;
    guest.forget();
    let mut config = saved["configuration"].to_string().into_bytes();
    config.push(0);
    let mut file = File::create_new("/lab/work/new.xl")?;
    file.write_all(&XlHeader::new(&XlHeader::optional_of(&config)).to_octets()?)?;
    let mut stream = File::open("/lab/work/new.stream")?;
    stream.seek(SeekFrom::Start(0))?;
    std::io::copy(&mut stream, &mut file)?;
    file.sync_all()?;
    // A new console: the old one has its ticks already.
    fs::rename("/lab/console/guest-new.log", "/lab/console/before-new.log")?;
    host.xl(&["restore", "/lab/work/new.xl"])?;
    let restored = Guest::adopt("new")?;
    goes_on(host, &restored, &Saved { before, after }, "what domkeep saved and xl restored")?;
    restored.destroy()
}
