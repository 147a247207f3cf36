//! Guests: what they are made of, and what one that runs is asked.

use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use xsclient::{Client, DomId, Endpoint, Nodes, Options, Path};

use super::console::{Console, last_tick};
use super::{Failure, Ran, run};
use crate::guest::{COMMAND, REPLY};

/// Where the guests' kernel and first file system are.
const FILES: &str = "/lab/guest";
/// For a tick, when the guest runs: it starts in some five seconds on an idle machine.
pub(super) const TICK_LIMIT: Duration = Duration::from_mins(3);
/// For an answer of the guest.
const ANSWER_LIMIT: Duration = Duration::from_mins(2);
/// For one run of xl. Creating takes two to four seconds on an idle machine.
pub(super) const XL_LIMIT: Duration = Duration::from_mins(3);
/// Between two looks at what cannot be watched.
const LOOK: Duration = Duration::from_millis(200);

/// What a guest is made of.
#[derive(Clone, Debug)]
pub struct GuestConfig {
    name: String,
    kind: &'static str,
    memory: u32,
    disks: Vec<String>,
    nics: Vec<String>,
    p9s: Vec<String>,
    lines: Vec<String>,
}

/// A guest that was created. It is destroyed when this is dropped.
#[derive(Debug)]
pub struct Guest {
    name: String,
    domid: DomId,
    console: Console,
    /// Whether dropping this destroys it.
    ours: bool,
}

impl GuestConfig {
    /// A PV guest with 160 MiB, the least with which it starts.
    pub fn pv(name: &str) -> GuestConfig {
        GuestConfig {
            name: name.to_owned(),
            kind: "pv",
            memory: 160,
            disks: Vec::new(),
            nics: Vec::new(),
            p9s: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// A PVH guest with 160 MiB.
    pub fn pvh(name: &str) -> GuestConfig {
        GuestConfig { kind: "pvh", ..GuestConfig::pv(name) }
    }

    /// With so many MiB.
    #[must_use]
    pub fn memory(mut self, mebibytes: u32) -> GuestConfig {
        self.memory = mebibytes;
        self
    }

    /// With a disk, as in xl.cfg: `format=raw,vdev=xvda,access=rw,target=/lab/disks/a.raw`.
    #[must_use]
    pub fn disk(mut self, disk: &str) -> GuestConfig {
        self.disks.push(disk.to_owned());
        self
    }

    /// With a network interface, as in xl.cfg: `bridge=xenbr0,mac=00:16:3e:00:00:01`.
    #[must_use]
    pub fn nic(mut self, nic: &str) -> GuestConfig {
        self.nics.push(nic.to_owned());
        self
    }

    /// With a 9p share, as in xl.cfg: `tag=share,security_model=none,path=/lab/work`.
    #[must_use]
    pub fn p9(mut self, share: &str) -> GuestConfig {
        self.p9s.push(share.to_owned());
        self
    }

    /// With another line of xl.cfg.
    #[must_use]
    pub fn line(mut self, line: &str) -> GuestConfig {
        self.lines.push(line.to_owned());
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// As xl reads it.
    pub fn text(&self) -> String {
        let mut text = format!(
            "name = \"{}\"\ntype = \"{}\"\nmemory = {}\nmaxmem = {}\nvcpus = 1\n\
             kernel = \"{FILES}/vmlinuz\"\nramdisk = \"{FILES}/initrd\"\n\
             extra = \"console=hvc0 quiet rdinit=/init panic=0 clocksource=xen\"\non_crash = \"preserve\"\n\
             on_reboot = \"destroy\"\n",
            self.name, self.kind, self.memory, self.memory
        );
        for (key, values) in [("disk", &self.disks), ("vif", &self.nics), ("p9", &self.p9s)] {
            if !values.is_empty() {
                let values: Vec<_> = values.iter().map(|value| format!("'{value}'")).collect();
                // A string cannot fail to be written to.
                let _ = writeln!(text, "{key} = [ {} ]", values.join(", "));
            }
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

impl Guest {
    pub(super) fn create(config: &GuestConfig) -> Result<Guest, Failure> {
        Self::create_with(config, "-q")
    }

    pub(super) fn create_paused(config: &GuestConfig) -> Result<Guest, Failure> {
        Self::create_with(config, "-qp")
    }

    fn create_with(config: &GuestConfig, words: &str) -> Result<Guest, Failure> {
        let file = format!("/lab/work/{}.cfg", config.name);
        std::fs::write(&file, config.text())?;
        let console = Console::of_new(&config.name);
        xl(&["create", words, &file])?;
        let domid = domid_of(&config.name)?;
        Ok(Guest { name: config.name.clone(), domid, console, ours: true })
    }

    /// A domain that something else made, such as a restore. What an earlier guest of that name printed counts as its own.
    pub fn adopt(name: &str) -> Result<Guest, Failure> {
        let domid = domid_of(name)?;
        Ok(Guest { name: name.to_owned(), domid, console: Console::of(name), ours: true })
    }

    /// A domain that Domkeep has restored: it was built under a temporary name, by which its console is called.
    pub fn adopt_restored(name: &str) -> Result<Guest, Failure> {
        let domid = domid_of(name)?;
        let console = Console::of_temporary(&format!("{name}--restoring-"))?;
        Ok(Guest { name: name.to_owned(), domid, console, ours: true })
    }

    /// Its name when it was created or adopted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number.
    pub fn domid(&self) -> DomId {
        self.domid
    }

    /// Its console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Waits until the guest ticked that often since it was first started.
    pub fn wait_for_tick(&self, tick: u64) -> Result<u64, Failure> {
        let what = format!("tick {tick} of {}", self.name);
        let waited = self.console.wait(TICK_LIMIT, &what, |text| last_tick(text) >= tick);
        waited.map(|text| last_tick(&text)).map_err(|failure| failure.and(&self.state()))
    }

    /// Waits for two more ticks: the guest runs.
    pub fn ticks_on(&self) -> Result<u64, Failure> {
        self.wait_for_tick(self.console.last_tick()? + 2)
    }

    /// Waits until the guest takes commands.
    pub fn wait_until_it_obeys(&self) -> Result<(), Failure> {
        let what = format!("{} to take commands", self.name);
        self.console.wait(TICK_LIMIT, &what, |text| text.contains("waiting for commands"))?;
        Ok(())
    }

    /// Waits until the guest has printed a line that begins so, and gives the rest of that line.
    pub fn wait_for_line(&self, beginning: &str, limit: Duration) -> Result<String, Failure> {
        let whole = |text: &str| {
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.filter_map(|line| line.trim().strip_prefix(beginning)).next().map(str::to_owned)
        };
        let what = format!("`{beginning}` of {}", self.name);
        let text = self.console.wait(limit, &what, |text| whole(text).is_some())?;
        Ok(whole(&text).unwrap_or_default())
    }

    /// Has the guest do something and gives its answer. The commands are those of [`crate::guest`]. An answer that says
    /// `error` is a failure.
    pub fn ask(&self, words: &str) -> Result<String, Failure> {
        let answer = self.ask_either(words)?;
        answer.map_err(|error| {
            Failure::because(format!("{} was asked to `{words}`: {error}", self.name))
        })
    }

    /// Tells the guest to do something from which no answer comes.
    pub fn tell(&self, words: &str) -> Result<(), Failure> {
        let command: Path = format!("/local/domain/{}/{COMMAND}", self.domid).parse()?;
        client()?.write(&command, format!("{} {words}", number()?).as_bytes())?;
        Ok(())
    }

    /// As [`Guest::ask`], where an error is an answer too.
    pub fn ask_either(&self, words: &str) -> Result<Result<String, String>, Failure> {
        let mut client = client()?;
        let home = format!("/local/domain/{}", self.domid);
        let command: Path = format!("{home}/{COMMAND}").parse()?;
        let reply: Path = format!("{home}/{REPLY}").parse()?;
        let number = number()?;
        let watch = client.watch(reply.clone(), None)?;
        // Below `data`, which belongs to the guest: so does what is made there.
        client.write(&command, format!("{number} {words}").as_bytes())?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let state = self.state();
                return Err(Failure::because(format!(
                    "{} did not answer `{words}` within {ANSWER_LIMIT:?} ({state})",
                    self.name
                )));
            }
            client.next_event(&watch, left)?;
            let text = client.read_optional(&reply)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text).into_owned();
            let Some(answer) = text.strip_prefix(&number).and_then(|rest| rest.strip_prefix(' '))
            else {
                continue;
            };
            return Ok(match answer.split_once(' ').unwrap_or((answer, "")) {
                ("ok", text) => Ok(text.to_owned()),
                (_, text) => Err(text.to_owned()),
            });
        }
    }

    /// Asks until the guest's devices are as `wanted` says, and gives the list: lines of `disk NAME SECTORS` and
    /// `net NAME MAC`. What the guest's kernel makes of an attach comes later than the attach.
    pub fn wait_for_devices(
        &self,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let deadline = Instant::now() + ANSWER_LIMIT;
        loop {
            let devices = self.ask("devices")?;
            if wanted(&devices) {
                return Ok(devices);
            }
            if Instant::now() >= deadline {
                return Err(Failure::because(format!(
                    "{}: {what} did not come about within {ANSWER_LIMIT:?}: {devices:?}",
                    self.name
                )));
            }
            // The guest's sysfs cannot be watched.
            std::thread::sleep(LOOK);
        }
    }

    /// Destroys the guest.
    pub fn destroy(mut self) -> Result<(), Failure> {
        self.ours = false;
        xl(&["destroy", &self.domid.to_string()]).map(drop)
    }

    /// Lets go of a guest that is gone already, or that shall live on.
    pub fn forget(mut self) {
        self.ours = false;
    }

    /// What xl says about it, for a failure's text.
    fn state(&self) -> String {
        let mut command = Command::new("xl");
        let listed = run(command.args(["list", &self.domid.to_string()]), XL_LIMIT);
        listed.map_or_else(
            |failure| format!("{failure:?}"),
            |ran| ran.stdout.lines().last().unwrap_or("not listed").trim().to_owned(),
        )
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // It may be gone; what matters is that it is none of the next step's.
        let mut command = Command::new("xl");
        let _ = run(command.args(["destroy", &self.domid.to_string()]), XL_LIMIT);
    }
}

pub(super) fn xl(arguments: &[&str]) -> Result<Ran, Failure> {
    run(Command::new("xl").args(arguments), XL_LIMIT)?.ok()
}

pub(super) fn domid_of(name: &str) -> Result<DomId, Failure> {
    let ran = xl(&["domid", name])?;
    Ok(DomId::new(ran.stdout.trim().parse()?))
}

/// Of a command; none is used twice on a host, whatever was restored meanwhile.
fn number() -> Result<String, Failure> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos().to_string())
}

/// The stock daemon, as any program on the host reaches it.
pub(super) fn client() -> Result<Client, Failure> {
    Ok(Client::open(Endpoint::Search, Options::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_text_that_xl_reads() {
        let config = GuestConfig::pvh("web")
            .memory(256)
            .disk("format=raw,vdev=xvda,access=rw,target=/lab/disks/a.raw")
            .disk("format=qcow2,vdev=xvdb,access=rw,target=/lab/disks/b.qcow2")
            .nic("bridge=xenbr0")
            .line("cpu_weight = 300");
        let text = config.text();
        for line in [
            "name = \"web\"",
            "type = \"pvh\"",
            "memory = 256",
            "disk = [ 'format=raw,vdev=xvda,access=rw,target=/lab/disks/a.raw', \
             'format=qcow2,vdev=xvdb,access=rw,target=/lab/disks/b.qcow2' ]",
            "vif = [ 'bridge=xenbr0' ]",
            "cpu_weight = 300",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("p9"), "{text}");
    }
}
