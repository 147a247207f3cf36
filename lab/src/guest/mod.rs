//! The guest's only program: it ticks on its console once a second and obeys commands through its own Xenstore.
//!
//! The host writes `NUMBER WORDS...` to [`COMMAND`] below the guest's home; the guest answers `NUMBER ok TEXT` or
//! `NUMBER error TEXT` in [`REPLY`]. A number is used once.

mod devices;
mod disks;
mod flood;
mod ring;
mod wire;

use std::ffi::CStr;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::init_module;
use xsclient::{Client, Endpoint, Nodes, OperationError, Options, Path};

use disks::Disks;
use flood::Floods;

/// Where the host writes commands, relative to the guest's home.
pub const COMMAND: &str = "data/lab/command";
/// Where the guest answers.
pub const REPLY: &str = "data/lab/reply";
/// The module by which a hostile guest reaches its ring, if it has one.
pub const RING_MODULE: &str = "/lab_ring.ko";

/// Between two ticks.
const TICK: Duration = Duration::from_secs(1);
/// A suspended guest's requests wait; this is not for them, but for a server that is gone.
const XENSTORE_TIMEOUT: Duration = Duration::from_mins(2);
const XENBUS: &str = "/dev/xen/xenbus";
/// Without an event for so long, the guest looks whether it missed one.
const LOOK: Duration = Duration::from_secs(10);

type Answer = Result<String, Box<dyn std::error::Error>>;

/// Runs as the guest's first process, and never ends.
pub fn run() -> ! {
    if let Err(error) = prepare() {
        println!("lab-guest: cannot prepare: {error}");
    }
    let commands = thread::Builder::new().spawn(obey_for_ever);
    if let Err(error) = commands {
        println!("lab-guest: no thread for commands: {error}");
    }
    for tick in 1_u64.. {
        println!("tick {tick}");
        thread::sleep(TICK);
    }
    unreachable!("a guest does not live that long")
}

fn prepare() -> io::Result<()> {
    for (kind, at) in [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev")] {
        mount(kind, at, kind, MountFlags::empty(), None::<&CStr>)?;
    }
    for module in fs::read_to_string("/modules/order")?.lines() {
        if let Err(error) = init_module(&fs::read(format!("/modules/{module}"))?, c"") {
            println!("lab-guest: cannot load {module}: {error}");
        }
    }
    Ok(())
}

/// What goes on behind the commands.
#[derive(Default)]
struct Work {
    disks: Disks,
    floods: Floods,
}

fn obey_for_ever() {
    let mut work = Work::default();
    let mut last = String::new();
    loop {
        let lost = obey(&mut work, &mut last);
        println!("lab-guest: Xenstore is lost, connecting again: {lost}");
        thread::sleep(TICK);
    }
}

/// Obeys until the connection fails.
fn obey(work: &mut Work, last: &mut String) -> Box<dyn std::error::Error> {
    let options = Options::with_timeout(XENSTORE_TIMEOUT);
    let opened = Client::open(Endpoint::Xenbus(XENBUS.into()), options);
    let mut client = match opened {
        Ok(client) => client,
        Err(error) => return error.into(),
    };
    match obey_with(&mut client, work, last) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn obey_with(
    client: &mut Client,
    work: &mut Work,
    last: &mut String,
) -> Result<std::convert::Infallible, Box<dyn std::error::Error>> {
    let command: Path = COMMAND.parse()?;
    let reply: Path = REPLY.parse()?;
    let watch = client.watch(command.clone(), None)?;
    println!("lab-guest: waiting for commands");
    loop {
        client.next_event(&watch, LOOK)?;
        let Some(text) = client.read_optional(&command)? else { continue };
        let text = String::from_utf8_lossy(&text).into_owned();
        let (number, words) = text.split_once(' ').unwrap_or((&text, ""));
        if number == last {
            continue;
        }
        number.clone_into(last);
        let answer = match execute(client, work, words) {
            Ok(text) => format!("{number} ok {text}"),
            Err(error) => format!("{number} error {error}"),
        };
        println!("lab-guest: {words}: {answer}");
        client.write(&reply, answer.as_bytes())?;
    }
}

/// Every command. What is not said in a word is a path of Linux, a path of Xenstore relative to the guest's home, a number,
/// or the rest of the line.
fn execute(client: &mut Client, work: &mut Work, words: &str) -> Answer {
    let (command, rest) = words.split_once(' ').unwrap_or((words, ""));
    let list: Vec<_> = rest.split(' ').collect();
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match (command, list.as_slice()) {
        ("ping", _) => Ok(String::new()),
        ("devices", _) => devices::list(),
        ("fill", [device, seed, start, count]) => {
            disks::fill(device, number(seed)?, number(start)?, number(count)?)
        }
        ("verify", [device, seed, start, count]) => {
            disks::verify(device, number(seed)?, number(start)?, number(count)?)
        }
        ("stream-start", [device, slots]) => work.disks.start(device, number(slots)?),
        ("stream-last", [device]) => work.disks.last(device),
        ("stream-stop", [device]) => work.disks.stop(device),
        ("mount-9p", [tag]) => devices::mount_9p(tag),
        ("unmount", [at]) => devices::unmount(at),
        ("file-read", [file]) => Ok(fs::read_to_string(file)?),
        ("file-write", [file, ..]) => {
            fs::write(file, rest.strip_prefix(file).unwrap_or("").trim_start())?;
            Ok(String::new())
        }
        ("node-read", [path]) => Ok(client.read_text(&path.parse()?)?),
        ("node-write", [path, ..]) => {
            let value = rest.strip_prefix(path).unwrap_or("").trim_start();
            client.write(&path.parse()?, value.as_bytes())?;
            Ok(String::new())
        }
        ("node-list", [path]) => list_nodes(client, path),
        ("power-off", _) => {
            fs::write("/proc/sysrq-trigger", "o")?;
            Ok(String::new())
        }
        ("crash", _) => {
            // For the lab's own test that a crash is noticed.
            fs::write("/proc/sysrq-trigger", "c")?;
            Ok(String::new())
        }
        _ => misbehave(work, command, &list),
    }
}

/// The commands of a hostile guest.
fn misbehave(work: &mut Work, command: &str, list: &[&str]) -> Answer {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text}: {error}"));
    match (command, list) {
        ("flood-start", [threads, octets]) => work.floods.start(number(threads)?, number(octets)?),
        ("flood-stop", _) => Ok(work.floods.stop()),
        ("watches", [count]) => work.floods.watches(number(count)?),
        ("transactions", [count]) => work.floods.transactions(number(count)?),
        ("request", [kind]) => wire::ask(kind.parse()?, ""),
        ("request", [kind, payload]) => wire::ask(kind.parse()?, payload),
        ("ring-load", _) => ring::load(),
        ("ring-read", [offset, length]) => ring::read(number(offset)?, number(length)?),
        ("ring-write", [offset, octets]) => ring::write(number(offset)?, octets),
        ("ring-notify", _) => ring::notify(),
        ("ring-spoil", [how]) => ring::spoil(how),
        _ => Err(format!("no such command: {command} {}", list.join(" ")).into()),
    }
}

fn list_nodes(client: &mut Client, path: &str) -> Answer {
    let names: Result<Vec<_>, OperationError> = client.directory(&path.parse()?);
    Ok(names?.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
}
