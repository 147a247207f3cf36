//! A domain outlives whoever saves it, and no host outlives its test.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use snapshot::control::{
    DomainControl, DomainIdentity, DomainState, GuardianNeeds, QueryError, ResumeFailure,
};
use snapshot::simulated::SimulatedDomain;

use crate::hosts::{DIRECTORY, directory_of_program, program, soon, start};

/// What the programs below find in their directory.
const NEEDS: &str = "needs.json";
const PIPE: &str = "pipe";

fn needs() -> Option<(SimulatedDomain, DomainIdentity, std::path::PathBuf)> {
    let directory = directory_of_program()?;
    let text = std::fs::read_to_string(directory.join(NEEDS)).unwrap();
    let needs = GuardianNeeds::from_json(&text).unwrap();
    Some((SimulatedDomain::from_guardian(&needs).unwrap(), needs.domain, directory))
}

#[test]
#[ignore = "a saver that streams to a pipe, which other tests start and kill"]
fn saver_program() {
    let Some((control, domain, directory)) = needs() else { return };
    let pipe = File::options().write(true).open(directory.join(PIPE)).unwrap();
    let saved = control.suspend_to(&domain, pipe.as_fd(), false, soon().into());
    panic!("it is to be killed before: {saved:?}");
}

#[test]
#[ignore = "a guardian that resumes a domain, which other tests start"]
fn guardian_program() {
    let Some((control, domain, _)) = needs() else { return };
    assert_eq!(control.settled(&domain, soon()).unwrap(), DomainState::Suspended);
    control.resume(&domain, soon()).unwrap();
}

#[test]
#[ignore = "a test that starts a host and is killed, which another test starts"]
fn killed_test_program() {
    if directory_of_program().is_none() {
        return;
    }
    let host = start();
    host.running("web");
    // Not to standard output, where the test's own lines are.
    eprintln!("{}", host.process.pid());
    // Until it is killed.
    io::stdin().read_exact(&mut [0]).unwrap();
}

fn fifo(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_killed_saver_leaves_the_domain_suspended_and_another_process_resumes_it() {
    let host = start();
    let domain = host.running("web");
    let control = host.control();
    let needs = control.guardian(&domain).unwrap();
    std::fs::write(host.path(NEEDS), needs.to_json()).unwrap();
    fifo(&host.path(PIPE));

    let mut saver = program("crashes::saver_program", host.directory.path()).spawn().unwrap();
    let mut pipe = File::open(host.path(PIPE)).unwrap();
    pipe.read_exact(&mut [0; 100_000]).unwrap();
    saver.kill().unwrap();
    saver.wait().unwrap();

    // What writes the stream has outlived the saver, and waits for a reader: so does a resume.
    assert_eq!(control.state(&domain, soon()).unwrap(), DomainState::Suspended);
    let inspection = host.inspect(&domain);
    assert!(inspection.streaming && inspection.wrong.is_none());
    let early = control.resume(&domain, Instant::now() + Duration::from_millis(100)).unwrap_err();
    assert!(matches!(early.reason, ResumeFailure::StillStreaming), "{early}");
    assert_eq!(early.state, Some(DomainState::Suspended));

    let unsettled = control.settled(&domain, Instant::now() + Duration::from_millis(100));
    assert!(matches!(unsettled, Err(QueryError::DeadlinePassed { .. })), "{unsettled:?}");

    // The guardian is there before that has ended.
    let mut guardian = program("crashes::guardian_program", host.directory.path()).spawn().unwrap();
    drop(pipe);
    assert!(guardian.wait().unwrap().success());
    assert_eq!(control.state(&domain, soon()).unwrap(), DomainState::Running);
    host.operator().await_tick(&domain, inspection.tick + 100, soon()).unwrap();
    assert_eq!(host.inspect(&domain).wrong, None);

    // And it can be saved again.
    let stream = host.suspended_to(&domain, "memory");
    snapshot::simulated::check::stream(&mut &stream).unwrap();
}

#[test]
fn a_host_ends_with_the_test_that_started_it_however_that_ends() {
    let directory = tempfile::tempdir().unwrap();
    let mut test = program("crashes::killed_test_program", directory.path())
        .arg("--nocapture")
        .env("TMPDIR", directory.path())
        .env(DIRECTORY, directory.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(test.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    let host: OwnedFd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    test.kill().unwrap();
    test.wait().unwrap();
    let mut fds = [PollFd::new(&host, PollFlags::IN)];
    let ended = poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })).unwrap();
    assert_eq!(ended, 1, "the host still runs");
}

#[test]
fn a_host_that_is_not_there_is_reported_and_nothing_is_claimed_about_the_domain() {
    let host = start();
    let domain = host.running("web");
    let control = host.control();
    host.operator().end(soon()).unwrap();
    assert!(host.process.stop().unwrap().success());
    let failed = control.resume(&domain, soon()).unwrap_err();
    assert_eq!(failed.state, None);
    assert!(matches!(failed.reason, ResumeFailure::Hypervisor { .. }), "{failed}");
    assert!(control.find(domain.domid, soon()).is_err());
}

#[test]
fn a_program_that_serves_nobody_is_no_host() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("host");
    let started = snapshot::simulated::HostProcess::start(Command::new("true"), &socket, soon());
    assert!(started.is_err());
}
