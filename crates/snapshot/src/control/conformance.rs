//! What every [`DomainControl`] must do, checked against real domains.
//!
//! For the tests of implementations: describe a [`World`] and call [`check`]. It creates no domain by itself, but builds, suspends
//! and destroys those that it is given, so that it belongs on a host made for tests.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libxl_config::DomainConfig;
use rustix::pipe::{PipeFlags, pipe_with};
use uuid::Uuid;
use xsclient::DomId;

use super::{
    BuildFailure, CancelToken, Cause, DomainControl, DomainIdentity, DomainState, Failed,
    GuardianNeeds, Refusal, RenameFailure, SETTLE_LIMIT, SuspendFailure, Until,
};

/// The host that the checks run on.
pub trait World {
    /// What is checked.
    fn control(&self) -> &dyn DomainControl;

    /// A new domain that runs, under a name of the world's choice, whose memory does not fit a pipe.
    fn running(&mut self) -> Result<DomainIdentity, Cause>;

    /// What a copy of a domain is built from, under a free name and another uuid, with disks of its own that hold what those of
    /// the domain hold now.
    fn copy_of(&mut self, domain: &DomainIdentity) -> Result<DomainConfig, Cause>;

    /// How far the guest has come: grows while it runs, and stands while it does not.
    fn progress(&mut self, domain: &DomainIdentity) -> Result<u64, Cause>;

    /// Waits until it has come further than that.
    fn await_progress(&mut self, domain: &DomainIdentity, beyond: u64) -> Result<(), Cause>;

    /// A number that no domain has.
    fn unused_domid(&mut self) -> DomId;

    /// Where files can be made, with room for two streams.
    fn directory(&self) -> PathBuf;

    /// How long a call that succeeds may take.
    fn patience(&self) -> Duration;
}

/// Which check an implementation does not pass, and why.
#[derive(Debug, thiserror::Error)]
#[error("{check}: {problem}")]
pub struct Deviation {
    /// The check.
    pub check: &'static str,
    /// What happened.
    pub problem: String,
}

type Check = fn(&mut dyn World) -> Result<(), String>;

/// All checks, by name, in the order in which they run.
pub const CHECKS: &[(&str, Check)] = &[
    ("what does not exist is refused", what_does_not_exist_is_refused),
    ("the control domain is refused", the_control_domain_is_refused),
    ("another domain under the same number is refused", another_domain_is_refused),
    ("a suspended domain stands still until it is resumed, again and again", suspend_and_resume),
    ("a call in the wrong state is refused and changes nothing", wrong_states_are_refused),
    ("pausing is not suspending, and one survives the other", pausing),
    ("a stream that cannot be written leaves the domain suspended", broken_stream),
    ("a cancelled or late suspend ends in time, and the domain can go on", stopped_suspend),
    ("a built domain is paused, goes on where it was, and leaves the original alone", building),
    ("a failed build leaves no domain", failed_builds),
    ("a name is unique", renaming),
    ("a destroyed domain is gone", destroying),
    ("all domains are listed, and no others", listing),
    ("a guardian's needs survive JSON", guardian),
];

/// Runs all checks.
///
/// # Errors
///
/// The first that is not passed.
pub fn check(world: &mut dyn World) -> Result<(), Deviation> {
    CHECKS
        .iter()
        .try_for_each(|(check, run)| run(world).map_err(|problem| Deviation { check, problem }))
}

macro_rules! ensure {
    ($holds:expr, $($problem:tt)+) => {
        if !$holds {
            return Err(format!($($problem)+));
        }
    };
}

fn text(error: impl fmt::Display) -> String {
    error.to_string()
}

fn soon(world: &dyn World) -> Instant {
    Instant::now() + world.patience()
}

fn expect_state(
    world: &dyn World,
    domain: &DomainIdentity,
    expected: DomainState,
) -> Result<(), String> {
    let state = world.control().state(domain, soon(world)).map_err(text)?;
    ensure!(state == expected, "the domain is {state}, not {expected}");
    Ok(())
}

/// It has not come further while it was asked for its state.
fn expect_standing(world: &mut dyn World, domain: &DomainIdentity) -> Result<(), String> {
    let before = world.progress(domain).map_err(text)?;
    world.control().state(domain, soon(world)).map_err(text)?;
    let after = world.progress(domain).map_err(text)?;
    ensure!(before == after, "the guest went on from {before} to {after}");
    Ok(())
}

fn expect_going_on(world: &mut dyn World, domain: &DomainIdentity) -> Result<(), String> {
    let before = world.progress(domain).map_err(text)?;
    world.await_progress(domain, before).map_err(text)
}

/// The refusals of all calls on a domain.
fn refusals(
    world: &dyn World,
    domain: &DomainIdentity,
) -> Result<Vec<(&'static str, String)>, String> {
    let control = world.control();
    let mut sink = scratch(world)?;
    let shown = |result: Result<(), String>| result.err().unwrap_or_else(|| "success".into());
    let refused = vec![
        (
            "suspend_to",
            shown(
                control.suspend_to(domain, sink.as_fd(), false, soon(world).into()).map_err(reason),
            ),
        ),
        ("suspend_only", shown(control.suspend_only(domain, soon(world).into()).map_err(reason))),
        ("resume", shown(control.resume(domain, soon(world)).map_err(reason))),
        ("pause", shown(control.pause(domain, soon(world)).map_err(reason))),
        ("unpause", shown(control.unpause(domain, soon(world)).map_err(reason))),
        ("rename", shown(control.rename(domain, "other", soon(world)).map_err(reason))),
        ("destroy", shown(control.destroy(domain, soon(world)).map_err(reason))),
    ];
    ensure!(sink.stream_position().map_err(text)? == 0, "a refused suspend has written something");
    Ok(refused)
}

fn reason<R: fmt::Display>(failed: Failed<R>) -> String {
    let Failed { reason, .. } = failed;
    reason.to_string()
}

fn expect_refusals(
    world: &dyn World,
    domain: &DomainIdentity,
    expected: &Refusal,
) -> Result<(), String> {
    for (call, found) in refusals(world, domain)? {
        ensure!(found == expected.to_string(), "{call}: {found}, not: {expected}");
    }
    Ok(())
}

fn scratch(world: &dyn World) -> Result<File, String> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = world.directory().join(format!("stream-{}-{number}", std::process::id()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path).map_err(text)?;
    std::fs::remove_file(&path).map_err(text)?;
    Ok(file)
}

/// A domain that is suspended, and its stream from the start.
fn suspended(world: &mut dyn World) -> Result<(DomainIdentity, File), String> {
    let domain = world.running().map_err(text)?;
    let mut file = scratch(world)?;
    let until = soon(world).into();
    world.control().suspend_to(&domain, file.as_fd(), false, until).map_err(text)?;
    file.rewind().map_err(text)?;
    Ok((domain, file))
}

fn what_does_not_exist_is_refused(world: &mut dyn World) -> Result<(), String> {
    let domain = DomainIdentity::new(world.unused_domid(), Uuid::from_u128(1));
    let found = world.control().find(domain.domid, soon(world)).map_err(text)?;
    ensure!(found.is_none(), "{found:?} is there");
    expect_state(world, &domain, DomainState::Gone)?;
    expect_refusals(world, &domain, &Refusal::NoSuchDomain)
}

fn the_control_domain_is_refused(world: &mut dyn World) -> Result<(), String> {
    for domid in [DomId::DOM0, DomId::SELF, DomId::INVALID] {
        expect_refusals(world, &DomainIdentity::new(domid, Uuid::nil()), &Refusal::ControlDomain)?;
    }
    Ok(())
}

fn another_domain_is_refused(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    let other = DomainIdentity::new(domain.domid, Uuid::from_u128(domain.uuid.as_u128() ^ 1));
    expect_state(world, &other, DomainState::Gone)?;
    let settled = world.control().settled(&other, soon(world)).map_err(text)?;
    ensure!(settled == DomainState::Gone, "it has settled as {settled}");
    expect_refusals(world, &other, &Refusal::AnotherDomain { found: domain.uuid })?;
    expect_state(world, &domain, DomainState::Running)?;
    expect_going_on(world, &domain)
}

fn suspend_and_resume(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    for _ in 0..2 {
        let mut file = scratch(world)?;
        let flags = rustix::fs::fcntl_getfl(&file).map_err(text)?;
        file.write_all(b"mine").map_err(text)?;
        let until = soon(world).into();
        world.control().suspend_to(&domain, file.as_fd(), false, until).map_err(text)?;
        expect_state(world, &domain, DomainState::Suspended)?;
        let settled = world.control().settled(&domain, soon(world)).map_err(text)?;
        ensure!(settled == DomainState::Suspended, "it has settled as {settled}");
        expect_standing(world, &domain)?;
        ensure!(rustix::fs::fcntl_getfl(&file).map_err(text)? == flags, "the flags have changed");
        file.rewind().map_err(text)?;
        let mut start = [0; 12];
        file.read_exact(&mut start).map_err(text)?;
        ensure!(start == *b"mineLibxlFmt", "the stream starts with {start:?}");
        world.control().resume(&domain, soon(world)).map_err(text)?;
        expect_state(world, &domain, DomainState::Running)?;
        expect_going_on(world, &domain)?;

        let until = soon(world).into();
        world.control().suspend_only(&domain, until).map_err(text)?;
        expect_state(world, &domain, DomainState::Suspended)?;
        expect_standing(world, &domain)?;
        world.control().resume(&domain, soon(world)).map_err(text)?;
        expect_going_on(world, &domain)?;
    }
    Ok(())
}

fn wrong_states_are_refused(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    let wrong = |state| Refusal::WrongState { state }.to_string();
    let resumed = world.control().resume(&domain, soon(world)).map_err(reason);
    ensure!(resumed == Err(wrong(DomainState::Running)), "resume of a running one: {resumed:?}");
    world.control().pause(&domain, soon(world)).map_err(text)?;
    let suspended = world.control().suspend_only(&domain, soon(world).into()).map_err(reason);
    ensure!(suspended == Err(wrong(DomainState::Paused)), "suspend of a paused one: {suspended:?}");
    let resumed = world.control().resume(&domain, soon(world)).map_err(reason);
    ensure!(resumed == Err(wrong(DomainState::Paused)), "resume of a paused one: {resumed:?}");
    world.control().unpause(&domain, soon(world)).map_err(text)?;
    world.control().suspend_only(&domain, soon(world).into()).map_err(text)?;
    let again = world.control().suspend_only(&domain, soon(world).into()).map_err(reason);
    ensure!(again == Err(wrong(DomainState::Suspended)), "suspend of a suspended one: {again:?}");
    let unpaused = world.control().unpause(&domain, soon(world)).map_err(reason);
    ensure!(
        unpaused == Err(wrong(DomainState::Suspended)),
        "unpause of a suspended one: {unpaused:?}"
    );
    expect_state(world, &domain, DomainState::Suspended)?;
    world.control().resume(&domain, soon(world)).map_err(text)?;
    expect_going_on(world, &domain)
}

fn pausing(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    for _ in 0..2 {
        world.control().pause(&domain, soon(world)).map_err(text)?;
        expect_state(world, &domain, DomainState::Paused)?;
        expect_standing(world, &domain)?;
    }
    for _ in 0..2 {
        world.control().unpause(&domain, soon(world)).map_err(text)?;
        expect_state(world, &domain, DomainState::Running)?;
    }
    expect_going_on(world, &domain)?;
    world.control().suspend_only(&domain, soon(world).into()).map_err(text)?;
    world.control().pause(&domain, soon(world)).map_err(text)?;
    expect_state(world, &domain, DomainState::Suspended)?;
    let view = world.control().find(domain.domid, soon(world)).map_err(text)?;
    ensure!(view.as_ref().is_some_and(|view| view.paused), "it is not paused as well: {view:?}");
    world.control().resume(&domain, soon(world)).map_err(text)?;
    expect_state(world, &domain, DomainState::Paused)?;
    expect_standing(world, &domain)?;
    world.control().unpause(&domain, soon(world)).map_err(text)?;
    expect_going_on(world, &domain)
}

fn broken_stream(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(text)?;
    drop(reader);
    let until = soon(world).into();
    let failed = world.control().suspend_to(&domain, writer.as_fd(), false, until);
    let Err(failed) = failed else { return Err("nobody reads, and it succeeded".into()) };
    let broken =
        matches!(failed.reason, SuspendFailure::Stream { .. } | SuspendFailure::Hypervisor { .. });
    ensure!(broken, "{failed}");
    ensure!(failed.state == Some(DomainState::Suspended), "{failed}");
    world.control().resume(&domain, soon(world)).map_err(text)?;
    expect_going_on(world, &domain)
}

fn stopped_suspend(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    let cancel = CancelToken::new().map_err(text)?;
    let moments = [(soon(world), Some(&cancel)), (Instant::now() + Duration::from_secs(1), None)];
    for (deadline, cancel) in moments {
        // A pipe that is full holds up the stream until the call is stopped.
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(text)?;
        let until = Until { deadline, cancel };
        let failed = thread::scope(|scope| {
            let control = world.control();
            let call =
                scope.spawn(move || control.suspend_to(&domain, writer.as_fd(), false, until));
            if let Some(cancel) = cancel {
                let mut first = [0; 1];
                let _ = File::from(reader.try_clone()?).read(&mut first)?;
                cancel.cancel();
            }
            call.join().map_err(|_| io::Error::other("the call panicked"))
        });
        let failed = failed.map_err(text)?;
        let Err(failed) = failed else { return Err("nobody reads, and it succeeded".into()) };
        match (&failed.reason, cancel) {
            (SuspendFailure::Cancelled, Some(_)) | (SuspendFailure::DeadlinePassed, None) => {}
            _ => return Err(text(failed)),
        }
        ensure!(Instant::now() < deadline + SETTLE_LIMIT, "it took too long to stop");
        drop(reader);
        match failed.state {
            Some(DomainState::Suspended) => {
                world.control().resume(&domain, soon(world)).map_err(text)?;
            }
            Some(DomainState::Running) => {}
            _ => return Err(text(failed)),
        }
        expect_going_on(world, &domain)?;
    }
    Ok(())
}

fn building(world: &mut dyn World) -> Result<(), String> {
    let (domain, file) = suspended(world)?;
    let at = world.progress(&domain).map_err(text)?;
    let configuration = world.copy_of(&domain).map_err(text)?;
    world.control().resume(&domain, soon(world)).map_err(text)?;
    let until = soon(world).into();
    let built = world.control().build_from(&configuration, file.as_fd(), until).map_err(text)?;
    let copy = built.identity;
    ensure!(built.state == DomainState::Paused && built.paused, "it is not paused: {built:?}");
    ensure!(built.name == configuration.c_info.name, "it has another name: {built:?}");
    ensure!(copy.uuid == configuration.c_info.uuid, "it has another uuid: {built:?}");
    ensure!(copy.domid != domain.domid, "it took the domid of the original");
    expect_standing(world, &copy)?;
    let progress = world.progress(&copy).map_err(text)?;
    ensure!(progress == at, "it is at {progress}, and was saved at {at}");
    world.control().unpause(&copy, soon(world)).map_err(text)?;
    world.await_progress(&copy, at).map_err(text)?;
    expect_going_on(world, &domain)?;
    world.control().destroy(&copy, soon(world)).map_err(text)?;
    expect_state(world, &domain, DomainState::Running)
}

fn failed_builds(world: &mut dyn World) -> Result<(), String> {
    let (domain, mut file) = suspended(world)?;
    let configuration = world.copy_of(&domain).map_err(text)?;
    world.control().resume(&domain, soon(world)).map_err(text)?;
    let name =
        world.control().find(domain.domid, soon(world)).map_err(text)?.and_then(|view| view.name);
    let mut taken = configuration.clone();
    taken.c_info.name = name;
    let until = soon(world).into();
    match world.control().build_from(&taken, file.as_fd(), until) {
        Ok(built) => return Err(format!("its name is taken: {built:?}")),
        Err(error) => ensure!(error.left.is_none(), "{error}"),
    }
    let length = file.metadata().map_err(text)?.len();
    for keep in [length - 1, length / 2, 100, 0] {
        file.set_len(keep).map_err(text)?;
        file.rewind().map_err(text)?;
        let until = soon(world).into();
        match world.control().build_from(&configuration, file.as_fd(), until) {
            Ok(built) => return Err(format!("the stream ends after {keep} octets: {built:?}")),
            Err(error) => {
                ensure!(error.left.is_none(), "{error}");
                ensure!(!matches!(error.reason, BuildFailure::NameTaken { .. }), "{error}");
            }
        }
    }
    expect_state(world, &domain, DomainState::Running)?;
    expect_going_on(world, &domain)
}

fn renaming(world: &mut dyn World) -> Result<(), String> {
    let (first, second) = (world.running().map_err(text)?, world.running().map_err(text)?);
    let control = world.control();
    let name = |domain: &DomainIdentity| {
        let view = control.find(domain.domid, soon(world)).map_err(text)?;
        view.and_then(|view| view.name).ok_or("it has no name".to_owned())
    };
    let (old, other) = (name(&first)?, name(&second)?);
    match control.rename(&first, &other, soon(world)) {
        Err(Failed {
            reason: RenameFailure::NameTaken { .. } | RenameFailure::Hypervisor { .. },
            ..
        }) => {}
        result => return Err(format!("the name is taken: {result:?}")),
    }
    ensure!(name(&first)? == old, "a failed rename has changed the name");
    let new = format!("{old}-new");
    control.rename(&first, &new, soon(world)).map_err(text)?;
    ensure!(name(&first)? == new, "the name is {} still", name(&first)?);
    expect_state(world, &first, DomainState::Running)
}

fn destroying(world: &mut dyn World) -> Result<(), String> {
    let running = world.running().map_err(text)?;
    let (suspended, _) = suspended(world)?;
    for domain in [running, suspended] {
        world.control().destroy(&domain, soon(world)).map_err(text)?;
        expect_state(world, &domain, DomainState::Gone)?;
        expect_refusals(world, &domain, &Refusal::NoSuchDomain)?;
    }
    Ok(())
}

fn listing(world: &mut dyn World) -> Result<(), String> {
    let running = world.running().map_err(text)?;
    let (suspended, _) = suspended(world)?;
    let paused = world.running().map_err(text)?;
    let control = world.control();
    control.pause(&paused, soon(world)).map_err(text)?;
    let listed = control.list(soon(world)).map_err(text)?;
    let domids: Vec<_> = listed.iter().map(|view| view.identity.domid).collect();
    ensure!(domids.is_sorted_by(|a, b| a < b), "not ascending, or one is there twice: {domids:?}");
    ensure!(!domids.contains(&DomId::DOM0), "the control domain is among them");
    for domain in [running, suspended, paused] {
        let found = control.find(domain.domid, soon(world)).map_err(text)?;
        let view = listed.iter().find(|view| view.identity == domain);
        ensure!(view == found.as_ref() && view.is_some(), "{domain}: {view:?}, not {found:?}");
    }
    ensure!(!listed.iter().any(|view| view.state == DomainState::Gone), "one is gone: {listed:?}");
    control.destroy(&suspended, soon(world)).map_err(text)?;
    let listed = control.list(soon(world)).map_err(text)?;
    ensure!(!listed.iter().any(|view| view.identity == suspended), "a destroyed one is listed");
    Ok(())
}

fn guardian(world: &mut dyn World) -> Result<(), String> {
    let domain = world.running().map_err(text)?;
    if let Some(needs) = world.control().guardian(&domain) {
        ensure!(needs.domain == domain, "they are for another domain: {needs:?}");
        let read = GuardianNeeds::from_json(&needs.to_json()).map_err(text)?;
        ensure!(read == needs, "read back they are {read:?}");
    }
    Ok(())
}
