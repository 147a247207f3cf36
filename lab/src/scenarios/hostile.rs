//! A guest that does all it can to harm Xenstore, beside one that does not.

use std::time::{Duration, Instant};

use serde_json::Value;
use xsclient::{MessageType, Nodes};

use super::Scenario;
use super::retrieve::check_like_xl;
use super::xenstored::block;
use crate::dom0::{Failure, Guest, GuestConfig, Host};
use crate::xenstored::Xenstored;

pub(super) const HOSTILE: Scenario = Scenario {
    name: "hostile",
    about: "a guest floods, hoards, sends what is no request and spoils its ring: the daemon and the other guest go on",
    limit: Duration::from_mins(30),
    run,
    xenstored: Xenstored::Ours,
    spoils_rings: true,
};

/// For what a guest prints behind its last command.
const SPOILED_LIMIT: Duration = Duration::from_mins(1);
/// What a paused guest is told while it cannot read.
const UNREAD: u32 = 2000;
/// How a guest spoils its ring.
const SPOILINGS: &[&str] = &[
    "requests-made",
    "requests-taken",
    "responses-taken",
    "length",
    "half-header",
    "half-payload",
    NOISE,
];
const NOISE: &str = "noise";

fn run(host: &mut Host) -> Result<(), Failure> {
    let pid = host.xenstored_pid()?;
    let disk = host.raw_image("good", 32)?;
    let config = GuestConfig::pv("good")
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", disk.display()));
    let good = host.create_ticking(&config)?;
    let own = host.domkeep_config(good.domid())?;
    let scene = Scene { pid, good, own };
    scene.others_go_on(host, "before anything")?;
    from_userspace(host, &scene)?;
    for (number, how) in SPOILINGS.iter().enumerate() {
        // Both kinds of guests get at their ring.
        let kind = if number % 2 == 0 { GuestConfig::pv } else { GuestConfig::pvh };
        spoil(host, &scene, &kind(&format!("spoiler{number}")), how)?;
    }
    scene.good.destroy()
}

/// What must not suffer.
struct Scene {
    pid: i32,
    good: Guest,
    own: Value,
}

impl Scene {
    /// The daemon lives, the other guest works, and `domkeep list -l` tells the truth about it.
    fn others_go_on(&self, host: &mut Host, when: &str) -> Result<(), Failure> {
        host.check_equal(&format!("{when}: the daemon lives"), &host.xenstored_pid()?, &self.pid)?;
        let before = Instant::now();
        self.good.ask(&format!("node-write data/seen {when}"))?;
        let read = self.good.ask("node-read data/seen")?;
        host.figure(&format!("{when}: two answers, s"), before.elapsed().as_secs_f64());
        host.check_equal(
            &format!("{when}: the other guest writes and reads"),
            &read.as_str(),
            &when,
        )?;
        let before = Instant::now();
        let own = host.domkeep_config(self.good.domid())?;
        host.figure(&format!("{when}: domkeep list -l, s"), before.elapsed().as_secs_f64());
        host.check_same(
            &format!("{when}: `domkeep list -l` has the other guest"),
            &own,
            &self.own,
        )?;
        self.good.ask("fill xvda 2 0 16")?;
        self.good.ask("verify xvda 2 0 16")?;
        self.good.ticks_on().map(drop)
    }

    /// Devices still come and go, by way of the daemon and dom0's kernel.
    fn a_disk_comes_and_goes(&self, host: &mut Host, when: &str) -> Result<(), Failure> {
        let before = Instant::now();
        block(host, &self.good)?;
        host.figure(&format!("{when}: a disk came and went, s"), before.elapsed().as_secs_f64());
        host.check(&format!("{when}: the other guest has used a new disk"), true)
    }
}

/// All that reaches the daemon without a module.
fn from_userspace(host: &mut Host, scene: &Scene) -> Result<(), Failure> {
    let bad = host.create_ticking(&GuestConfig::pv("hostile"))?;
    odd_requests(host, &bad)?;
    odd_nodes(host, &bad)?;
    scene.others_go_on(host, "beside nodes with format strings and NULs")?;
    check_like_xl(host, &scene.good, "beside such nodes")?;

    bad.ask("flood-start 4 1000")?;
    scene.others_go_on(host, "in a flood of writes")?;
    scene.a_disk_comes_and_goes(host, "in a flood of writes")?;
    let told = bad.ask("flood-stop")?;
    host.step(&format!("the flood: {told} (done, refused)"));
    let done: u64 = told.split(' ').next().unwrap_or_default().parse()?;
    host.check("it was a flood", done > 100)?;

    for what in ["watches", "transactions"] {
        let told = bad.ask(&format!("{what} 100000"))?;
        host.step(&format!("{what}: {told}"));
        host.check(&format!("not all of its {what} are had"), told.contains(", then "))?;
    }
    bad.ask("flood-start 4 1000")?;
    scene.others_go_on(host, "in a flood that its own watches multiply")?;
    bad.ask("flood-stop")?;
    unread(host, scene, &bad)?;
    leaves(host, scene, bad)
}

/// What is no request gets an error and harms nobody.
fn odd_requests(host: &mut Host, bad: &Guest) -> Result<(), Failure> {
    const READ: u32 = MessageType::READ.0;
    const WRITE: u32 = MessageType::WRITE.0;
    const ERROR: u32 = MessageType::ERROR.0;
    // Which error may differ between daemons.
    let refused = format!("{ERROR} E");
    for (what, kind, payload) in [
        ("an operation that there is not", 200, &b"\0"[..]),
        ("the largest number of an operation", u32::MAX, b"\0"),
        ("a reply", ERROR, b"EINVAL\0"),
        ("a read of nothing", READ, b""),
        ("a path that does not end", READ, b"data"),
        ("a path with a format string", READ, b"data/%n%n%s\0"),
        ("a path that is no text", READ, b"data/\xff\xfe\0"),
        ("a path above its home", WRITE, b"/local/domain/0/name\0%n"),
        ("a write without a value's path", WRITE, b""),
    ] {
        let words: String = payload.iter().map(|octet| format!("{octet:02x}")).collect();
        let answer = bad.ask(format!("request {kind} {words}").trim_end())?;
        host.check(&format!("{what} gets an error: {answer}"), answer.starts_with(&refused))?;
    }
    Ok(())
}

/// Nodes that a guest may write, with values that a careless reader trips over; some where tools look for devices.
fn odd_nodes(host: &mut Host, bad: &Guest) -> Result<(), Failure> {
    const WRITE: u32 = MessageType::WRITE.0;
    const DONE: &str = "11 OK\\x00";
    let values = [b"%n%n%s%s%999999d".to_vec(), b"a\0b\0\0".to_vec(), b"\xff\xfe\x80".to_vec()];
    // The first three are the guest's own; whether the others are may change with the toolstack.
    for (directory, own) in [
        ("data", true),
        ("data/odd-0", true),
        ("data/odd-1", true),
        ("device", false),
        ("control", false),
    ] {
        for (number, value) in values.iter().enumerate() {
            let path = format!("{directory}/odd-{number}");
            let payload = [path.as_bytes(), b"\0", value].concat();
            let words: String = payload.iter().map(|octet| format!("{octet:02x}")).collect();
            let answer = bad.ask(&format!("request {WRITE} {words}"))?;
            let what = format!("{path} = {}: {answer}", value.escape_ascii());
            host.check(&what, answer == DONE || !own)?;
            if answer == DONE {
                let node = format!("/local/domain/{}/{path}", bad.domid()).parse()?;
                let read = host.xenstore()?.read(&node)?;
                host.check_equal(&format!("dom0 reads {path} as it was written"), &read, value)?;
            }
        }
    }
    Ok(())
}

/// A guest that does not read is told a lot; what waits for it is bounded.
fn unread(host: &mut Host, scene: &Scene, bad: &Guest) -> Result<(), Failure> {
    let before = host.xenstored_resident()?;
    host.xl(&["pause", bad.name()])?;
    let node = format!("/local/domain/{}/data/unread", bad.domid()).parse()?;
    let mut client = host.xenstore()?;
    for number in 0..UNREAD {
        client.write(&node, number.to_string().as_bytes())?;
    }
    let grown = host.xenstored_resident()?.saturating_sub(before);
    host.figure("what a guest that does not read costs, KiB", f64::from(u32::try_from(grown)?));
    scene.others_go_on(host, "beside a guest that does not read")?;
    host.xl(&["unpause", bad.name()])?;
    bad.ticks_on().map(drop)
}

/// A guest that spoils its ring in one way.
fn spoil(host: &mut Host, scene: &Scene, config: &GuestConfig, how: &str) -> Result<(), Failure> {
    let bad = host.create_ticking(config)?;
    let before = bad.ask("ring-load")?;
    host.step(&format!("indices, features, state and error: {before}"));
    bad.tell(&format!("ring-spoil {how}"))?;
    // The answer through Xenstore may never come.
    let after = bad.wait_for_line(&format!("lab-guest: ring-spoil {how}: "), SPOILED_LIMIT)?;
    host.step(&format!("after {how}: {after}"));
    scene.others_go_on(host, &format!("beside a ring with {how}"))?;
    if how == NOISE {
        scene.a_disk_comes_and_goes(host, "beside noise in a ring")?;
    }
    host.check("its kernel ticks on", bad.ticks_on().is_ok())?;
    leaves(host, scene, bad)
}

/// It is destroyed as any other.
fn leaves(host: &mut Host, scene: &Scene, bad: Guest) -> Result<(), Failure> {
    let (name, domid) = (bad.name().to_owned(), bad.domid());
    bad.destroy()?;
    let left = host.xenstore()?.read_optional(&format!("/local/domain/{domid}").parse()?)?;
    host.check_equal(&format!("{name} is destroyed without a trace"), &left, &None)?;
    let listed = host.xl(&["list"])?.stdout;
    host.check(&format!("xl does not list {name}"), !listed.contains(&name))?;
    host.check_equal("the daemon lives", &host.xenstored_pid()?, &scene.pid)
}
