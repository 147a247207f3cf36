//! libxl behind `DomainControl`: the checks of the trait on real domains, and what libxl is not believed.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use libxl_config::retrieve::HypervisorView;
use libxl_config::{DomainConfig, Mode};
use libxl_control::{LibraryAt, Libxl, LibxlOptions, Xenctrl};
use rustix::pipe::{PipeFlags, pipe_with};
use snapshot::control::conformance::{CHECKS, World};
use snapshot::control::{
    CancelToken, Cause, DomainControl, DomainIdentity, DomainState, SuspendFailure, Until,
};
use uuid::Uuid;
use xsclient::{DomId, Nodes, Path};

use super::Scenario;
use crate::dom0::{Failure, Guest, GuestConfig, Host};

pub(super) const PV: Scenario = Scenario {
    name: "control-pv",
    about: "what DomainControl promises, by libxl with PV guests",
    limit: Duration::from_mins(20),
    run: |host| conformance(host, GuestConfig::pv),
    ..Scenario::PLAIN
};

pub(super) const PVH: Scenario = Scenario {
    name: "control-pvh",
    about: "what DomainControl promises, by libxl with PVH guests",
    limit: Duration::from_mins(20),
    run: |host| conformance(host, GuestConfig::pvh),
    ..Scenario::PLAIN
};

pub(super) const TRAPS: Scenario = Scenario {
    name: "control-traps",
    about: "what libxl gets wrong is not passed on: deaf guests, live suspend, children, pauses, helpers",
    limit: Duration::from_mins(12),
    run: traps,
    ..Scenario::PLAIN
};

/// For a call that succeeds, where two cores have other work too.
const PATIENCE: Duration = Duration::from_mins(2);
/// What a guest has printed is on its way through its console's ring for some time after it stands still.
const CONSOLE_LAG: Duration = Duration::from_millis(400);
/// A guest whose kernel does not hear a request to suspend.
const DEAF: &str = "initcall_blacklist=xen_setup_shutdown_event";

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

pub(super) fn libxl() -> Result<Libxl, Failure> {
    Ok(Libxl::open(LibxlOptions::default())?)
}

fn text(failure: Failure) -> Cause {
    match failure {
        Failure::Failed(reason) | Failure::Skipped(reason) => reason.into(),
    }
}

fn conformance(host: &mut Host, kind: fn(&str) -> GuestConfig) -> Result<(), Failure> {
    let began = Instant::now();
    let mut world =
        Xen { host, libxl: libxl()?, kind, known: Vec::new(), copies: Vec::new(), made: 0 };
    for (name, check) in CHECKS {
        check(&mut world).map_err(|problem| Failure::because(format!("{name}: {problem}")))?;
        world.host.check(name, true)?;
        world.end_check()?;
    }
    host.figure("seconds for all checks", began.elapsed().as_secs_f64());
    Ok(())
}

/// The lab's host, for the checks.
struct Xen<'h> {
    host: &'h mut Host,
    libxl: Libxl,
    kind: fn(&str) -> GuestConfig,
    known: Vec<Known>,
    copies: Vec<Copy>,
    made: u32,
}

struct Known {
    domain: DomainIdentity,
    guest: Guest,
    /// How far it was when it was saved, if it is a copy: its console is a new one.
    base: u64,
    is_in_use: bool,
}

struct Copy {
    uuid: Uuid,
    name: String,
    base: u64,
}

impl Xen<'_> {
    /// A guest takes long to start: one that runs after a check is another check's.
    fn end_check(&mut self) -> Result<(), Failure> {
        let mut kept = Vec::new();
        for mut known in self.known.drain(..) {
            match self.libxl.state(&known.domain, soon())? {
                DomainState::Running => {
                    known.is_in_use = false;
                    kept.push(known);
                }
                DomainState::Gone => known.guest.forget(),
                _ => {
                    self.libxl.destroy(&known.domain, soon())?;
                    known.guest.forget();
                }
            }
        }
        self.known = kept;
        Ok(())
    }

    fn known(&mut self, domain: &DomainIdentity) -> Result<&Known, Failure> {
        if !self.known.iter().any(|known| known.domain == *domain) {
            let copy = self.copies.iter().find(|copy| copy.uuid == domain.uuid);
            let copy = copy.ok_or_else(|| Failure::because(format!("{domain} is unknown")))?;
            let guest = Guest::adopt(&copy.name)?;
            let known = Known { domain: *domain, guest, base: copy.base, is_in_use: true };
            self.known.push(known);
        }
        let known = self.known.iter().find(|known| known.domain == *domain);
        known.ok_or_else(|| Failure::because(format!("{domain} is unknown")))
    }

    fn create(&mut self) -> Result<DomainIdentity, Failure> {
        if let Some(known) = self.known.iter_mut().find(|known| !known.is_in_use) {
            known.is_in_use = true;
            return Ok(known.domain);
        }
        self.made += 1;
        let config = (self.kind)(&format!("guest-{}", self.made));
        let guest = self.host.create_ticking(&config)?;
        let domain = identity(&self.libxl, &guest)?;
        self.known.push(Known { domain, guest, base: 0, is_in_use: true });
        Ok(domain)
    }

    fn ticks(&mut self, domain: &DomainIdentity) -> Result<u64, Failure> {
        if self.libxl.state(domain, soon())? != DomainState::Running {
            thread::sleep(CONSOLE_LAG);
        }
        let known = self.known(domain)?;
        Ok(known.base.max(known.guest.console().last_tick()?))
    }
}

fn identity(libxl: &Libxl, guest: &Guest) -> Result<DomainIdentity, Failure> {
    let view = libxl.find(guest.domid(), soon())?;
    let view = view.ok_or_else(|| Failure::because(format!("libxl finds no {}", guest.name())))?;
    Ok(view.identity)
}

/// What a copy without devices is built from.
fn copy_config(host: &Host, domid: DomId, name: &str, uuid: Uuid) -> Result<DomainConfig, Failure> {
    let config = host.xl_config(domid)?.to_string();
    let mut config = DomainConfig::read(config.as_bytes(), Mode::Lenient)?.config;
    config.c_info.name = Some(name.to_owned());
    config.c_info.uuid = uuid;
    Ok(config)
}

impl World for Xen<'_> {
    fn control(&self) -> &dyn DomainControl {
        &self.libxl
    }

    fn running(&mut self) -> Result<DomainIdentity, Cause> {
        self.create().map_err(text)
    }

    fn copy_of(&mut self, domain: &DomainIdentity) -> Result<DomainConfig, Cause> {
        self.made += 1;
        let name = format!("copy-{}", self.made);
        let uuid = Uuid::from_u128(0xc0_0000 + u128::from(self.made));
        let base = self.ticks(domain).map_err(text)?;
        let config = copy_config(self.host, domain.domid, &name, uuid).map_err(text)?;
        self.copies.push(Copy { uuid, name, base });
        Ok(config)
    }

    fn progress(&mut self, domain: &DomainIdentity) -> Result<u64, Cause> {
        self.ticks(domain).map_err(text)
    }

    fn await_progress(&mut self, domain: &DomainIdentity, beyond: u64) -> Result<(), Cause> {
        let known = self.known(domain).map_err(text)?;
        known.guest.wait_for_tick(beyond + 1).map_err(text)?;
        if known.base > 0 {
            // A guest that started anew would come there too.
            let printed = known.guest.console().text().map_err(text)?;
            let first = printed.lines().find_map(|line| line.trim().strip_prefix("tick "));
            if first.and_then(|tick| tick.parse::<u64>().ok()).is_none_or(|tick| tick <= known.base)
            {
                return Err(format!(
                    "the copy began with tick {first:?}, not after {}",
                    known.base
                )
                .into());
            }
        }
        Ok(())
    }

    fn unused_domid(&mut self) -> DomId {
        DomId::new(30_000)
    }

    fn directory(&self) -> PathBuf {
        self.host.work()
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }
}

fn traps(host: &mut Host) -> Result<(), Failure> {
    let began = Instant::now();
    let libxl = libxl()?;
    host.figure("seconds to load libxl", began.elapsed().as_secs_f64());
    control_domain(host, &libxl)?;
    let guest = host.create_ticking(&GuestConfig::pv("web"))?;
    children(host, &libxl, &guest)?;
    pauses(host, &libxl, &guest)?;
    hypervisor_view(host, &libxl, &guest)?;
    helper(host, &libxl, &guest)?;
    live(host, &libxl, &guest, false)?;
    guest.destroy()?;
    let pvh = host.create_ticking(&GuestConfig::pvh("pvh"))?;
    live(host, &libxl, &pvh, true)?;
    pvh.destroy()?;
    deaf(host, &libxl)
}

fn control_domain(host: &mut Host, libxl: &Libxl) -> Result<(), Failure> {
    let zero = DomainIdentity::new(DomId::DOM0, Uuid::nil());
    let refused = [
        libxl.destroy(&zero, soon()).is_err(),
        libxl.pause(&zero, soon()).is_err(),
        libxl.suspend_only(&zero, soon().into()).is_err(),
    ];
    host.check_equal("domain 0 is refused", &refused, &[true; 3])?;
    let name = host.xenstore()?.read_text(&"/local/domain/0/name".parse()?)?;
    host.check_equal("and is as it was", &name.as_str(), &"Domain-0")
}

fn children(host: &mut Host, libxl: &Libxl, guest: &Guest) -> Result<(), Failure> {
    let domain = identity(libxl, guest)?;
    let mut child = Command::new("sleep").arg("1").spawn()?;
    let file = scratch(host)?;
    let began = Instant::now();
    libxl.suspend_to(&domain, file.as_fd(), false, soon().into())?;
    host.figure("seconds to suspend a PV guest to a file", began.elapsed().as_secs_f64());
    host.check("a child of ours is still ours after libxl's own", child.wait()?.success())?;
    let began = Instant::now();
    libxl.resume(&domain, soon())?;
    host.figure("seconds to resume it", began.elapsed().as_secs_f64());
    guest.ticks_on().map(drop)
}

fn scratch(host: &Host) -> Result<fs::File, Failure> {
    let path = host.work().join("stream");
    let file = fs::File::options().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

fn pauses(host: &mut Host, libxl: &Libxl, guest: &Guest) -> Result<(), Failure> {
    let domain = identity(libxl, guest)?;
    host.xl(&["pause", guest.name()])?;
    host.xl(&["pause", guest.name()])?;
    host.xl(&["unpause", guest.name()])?;
    let state = libxl.state(&domain, soon())?;
    host.step(&format!("paused twice and unpaused once by xl it is {state}"));
    libxl.unpause(&domain, soon())?;
    guest.ticks_on()?;
    host.check("one unpause undoes all pauses", true)
}

fn hypervisor_view(host: &mut Host, libxl: &Libxl, guest: &Guest) -> Result<(), Failure> {
    host.xl(&["sched-credit2", "-d", guest.name(), "-w", "300"])?;
    let xenctrl = Xenctrl::open(&LibraryAt::Host)?;
    let known = xenctrl.domain(guest.domid()).map_err(|error| {
        Failure::because(format!("the hypervisor was asked for {}: {error}", guest.name()))
    })?;
    let known = known.ok_or_else(|| Failure::because("the hypervisor knows of no such domain"))?;
    host.check_equal("the scheduler's weight is the live one", &known.sched_params.weight, &300)?;
    host.check_equal("the uuid is the handle", &known.uuid, &identity(libxl, guest)?.uuid)?;
    let theirs = host.xl_config(guest.domid())?;
    let ours =
        serde_json::from_str(&known.sched_params.to_value().to_text(libxl_config::Layout::Yajl))?;
    host.check_same("scheduler parameters are xl's", &ours, &theirs["b_info"]["sched_params"])?;
    let config = host.domkeep_config(guest.domid())?;
    host.check_same("and in `domkeep list -l`", &config, &theirs)
}

/// The helper is known by its command line, and is waited for.
fn helper(host: &mut Host, libxl: &Libxl, guest: &Guest) -> Result<(), Failure> {
    let domain = identity(libxl, guest)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let cancel = CancelToken::new()?;
    let (other, token) = (libxl.clone(), cancel.clone());
    let saver = thread::spawn(move || {
        let until = Until { deadline: soon(), cancel: Some(&token) };
        other.suspend_to(&domain, writer.as_fd(), false, until)
    });
    let limit = soon();
    while libxl.state(&domain, soon())? != DomainState::Suspended {
        if Instant::now() > limit {
            return Err(Failure::because("the guest does not suspend"));
        }
        thread::sleep(Duration::from_millis(20));
    }
    for line in helpers()? {
        host.step(&format!("a helper runs: {line}"));
    }
    let settled = libxl.settled(&domain, Instant::now() + Duration::from_secs(2));
    host.check(
        &format!("a suspended domain that is streamed has not settled: {settled:?}"),
        settled.is_err(),
    )?;
    let resumed = libxl.resume(&domain, Instant::now() + Duration::from_secs(2));
    host.check(&format!("and is not resumed: {resumed:?}"), resumed.is_err())?;
    cancel.cancel();
    let began = Instant::now();
    let failed = saver.join().map_err(|_| Failure::because("the saver panicked"))?;
    host.figure("seconds until a cancelled suspend ended", began.elapsed().as_secs_f64());
    drop(reader);
    let is_cancelled = matches!(&failed, Err(error)
        if matches!(error.reason, SuspendFailure::Cancelled) && error.state == Some(DomainState::Suspended));
    host.check(&format!("cancelled, it is left suspended: {failed:?}"), is_cancelled)?;
    libxl.resume(&domain, soon())?;
    guest.ticks_on()?;
    host.check("and goes on when it is resumed", true)
}

fn helpers() -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let line = fs::read(entry?.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains("libxl-save-helper") {
            found.push(line);
        }
    }
    Ok(found)
}

fn live(host: &mut Host, libxl: &Libxl, guest: &Guest, works: bool) -> Result<(), Failure> {
    let domain = identity(libxl, guest)?;
    let file = scratch(host)?;
    let began = Instant::now();
    let suspended = libxl.suspend_to(&domain, file.as_fd(), true, soon().into());
    host.figure(
        &format!("seconds of a live suspend of {}", guest.name()),
        began.elapsed().as_secs_f64(),
    );
    if works {
        host.check(&format!("a PVH guest is suspended live: {suspended:?}"), suspended.is_ok())?;
        libxl.resume(&domain, soon())?;
    } else {
        let refused = matches!(&suspended, Err(error)
            if matches!(error.reason, SuspendFailure::LiveUnsupported)
                && error.state == Some(DomainState::Running));
        host.check(&format!("a PV guest cannot be, and runs: {suspended:?}"), refused)?;
    }
    guest.ticks_on().map(drop)
}

/// It never answers. libxl waits for a minute, and then says 0.
fn deaf(host: &mut Host, libxl: &Libxl) -> Result<(), Failure> {
    let config =
        GuestConfig::pv("deaf").text().replace("console=hvc0", &format!("console=hvc0 {DEAF}"));
    let file = host.work().join("deaf.cfg");
    fs::write(&file, config)?;
    host.xl(&["create", "-q", &file.to_string_lossy()])?;
    let guest = Guest::adopt("deaf")?;
    guest.wait_for_tick(3)?;
    let domain = identity(libxl, &guest)?;
    let request: Path = format!("/local/domain/{}/control/shutdown", guest.domid()).parse()?;
    let mut client = host.xenstore()?;
    let mut asked = || -> Result<String, Failure> {
        Ok(String::from_utf8_lossy(&client.read_optional(&request)?.unwrap_or_default())
            .into_owned())
    };

    let until = Until::deadline(Instant::now() + Duration::from_secs(20));
    let failed = libxl.suspend_only(&domain, until);
    let in_time = matches!(&failed, Err(error) if matches!(error.reason, SuspendFailure::DeadlinePassed)
        && error.state == Some(DomainState::Running));
    host.check(&format!("a guest that does not answer is left running: {failed:?}"), in_time)?;
    host.check_equal("and the request is taken back", &asked()?.as_str(), &"")?;

    let began = Instant::now();
    let failed = libxl.suspend_only(&domain, soon().into());
    host.figure("seconds until libxl gives a deaf guest up", began.elapsed().as_secs_f64());
    let is_told = matches!(&failed, Err(error) if error.state == Some(DomainState::Running)
        && matches!(error.reason, SuspendFailure::NotSuspended | SuspendFailure::NotAcknowledged));
    host.check(&format!("success without a suspended guest is none: {failed:?}"), is_told)?;
    host.check_equal("and no request is left", &asked()?.as_str(), &"")?;
    guest.ticks_on()?;
    host.check("the deaf guest ticks on", true)?;
    guest.destroy()
}
