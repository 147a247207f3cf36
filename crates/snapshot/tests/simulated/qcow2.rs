//! Disks that a real QEMU writes for a simulated guest: frozen at one moment under its writes, and closed with their host.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libxl_config::DomainConfig;
use libxl_config::model::DiskFormat;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use snapshot::control::{BuildFailure, DomainControl, DomainIdentity, DomainState, ShutdownReason};
use snapshot::disk::qmp::QmpClient;
use snapshot::disk::{DiskSnapshot, LiveOverlay, LiveOverlays, snapshot};
use snapshot::simulated::{DomainSpec, GuestSpec, check};

use crate::hosts::{PAGES, SEED, TestHost, configuration, disk, soon, start, uuid_of};

/// Whether QEMU's programs are there; otherwise says that the test is skipped.
fn available(test: &str) -> bool {
    for program in ["qemu-img", "qemu-storage-daemon", "setpriv"] {
        let started = Command::new(program).arg("--version").stdout(Stdio::null()).status();
        if !started.is_ok_and(|status| status.success()) {
            println!("skipped: {test}: {program} cannot be started");
            return false;
        }
    }
    true
}

fn qemu_img(arguments: &[&str]) {
    let output = Command::new("qemu-img").args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn image(host: &TestHost, name: &str, octets: &str) -> PathBuf {
    let path = host.path(name);
    qemu_img(&["create", "-q", "-f", "qcow2", path.to_str().unwrap(), octets]);
    path
}

/// A domain with two qcow2 disks that has done a few ticks and runs on.
fn running(host: &TestHost, name: &str) -> DomainIdentity {
    let spec = DomainSpec::new(name, uuid_of(name), GuestSpec::new(SEED, PAGES))
        .with_qcow2_disk("xvda", image(host, &format!("{name}-a"), "8M"))
        .with_qcow2_disk("xvdb", image(host, &format!("{name}-b"), "8M"));
    let domain = host.operator().create(spec, soon()).unwrap().identity;
    host.control().unpause(&domain, soon()).unwrap();
    host.operator().await_tick(&domain, 5, soon()).unwrap();
    domain
}

/// Moves both disks to the overlays of that number, all that is written from now on.
fn pivot(host: &TestHost, domain: &DomainIdentity, name: &str, number: u32) -> Vec<DiskSnapshot> {
    let qmp = host.inspect(domain).qmp.unwrap();
    let overlays = [("xvda", "a"), ("xvdb", "b")].map(|(vdev, letter)| {
        let node = match number {
            1 => format!("{vdev}-qcow2"),
            _ => format!("{vdev}-{}", number - 1),
        };
        let overlay = host.path(&format!("{name}-{letter}-{number}"));
        LiveOverlay::new(vdev, node, overlay, format!("{vdev}-{number}"))
    });
    snapshot(&mut LiveOverlays::new(qmp, overlays.to_vec()), soon()).unwrap()
}

fn tick_of(host: &TestHost, number: usize, image: &Path) -> u64 {
    check::qcow2_disk(SEED, number, image, host.directory.path(), soon()).unwrap()
}

fn frozen_ticks(host: &TestHost, disks: &[DiskSnapshot]) -> Vec<u64> {
    let ticks = disks.iter().enumerate();
    ticks.map(|(number, disk)| tick_of(host, number, &disk.frozen.path)).collect()
}

/// A copy of a domain with these images.
fn copy_config(name: &str, images: &[PathBuf]) -> DomainConfig {
    let mut config = configuration(name, uuid_of(name), PAGES);
    for (vdev, image) in ["xvda", "xvdb"].iter().zip(images) {
        let mut disk = disk(vdev, image);
        disk.format = DiskFormat::Qcow2;
        config.disks.push(disk);
    }
    config
}

#[test]
fn disks_pivoted_under_a_guests_writes_are_of_one_moment_and_memory_and_disks_of_a_suspend_too() {
    const TEST: &str = "disks_pivoted_under_a_guests_writes_are_of_one_moment_and_memory_and_disks_of_a_suspend_too";
    if !available(TEST) {
        return;
    }
    let host = start();
    let domain = running(&host, "web");
    let mut last = 0;
    for number in 1..=4 {
        let before = host.inspect(&domain).tick;
        let ticks = frozen_ticks(&host, &pivot(&host, &domain, "web", number));
        check::crash_consistent(&ticks).unwrap();
        assert!(ticks[0] >= before && before > last, "{ticks:?} were frozen after {before}");
        // All of the disk has been written once more, so that the guest has looked at all it had.
        last = ticks[0];
        host.operator().await_tick(&domain, last + 1100, soon()).unwrap();
    }
    assert_eq!(host.inspect(&domain).wrong, None);

    let memory = check::stream(&mut &host.suspended_to(&domain, "memory")).unwrap();
    let frozen = pivot(&host, &domain, "web", 5);
    host.control().resume(&domain, soon()).unwrap();
    host.operator().await_tick(&domain, memory.tick + 20, soon()).unwrap();
    check::consistent(&memory, &frozen_ticks(&host, &frozen)).unwrap();

    // A restore from new overlays over what was frozen goes on from there, while the original runs on.
    let images = [0, 1].map(|number| {
        let (base, overlay) = (&frozen[number].frozen.path, host.path(&format!("copy-{number}")));
        let (base, to) = (base.to_str().unwrap(), overlay.to_str().unwrap());
        qemu_img(&["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, to]);
        overlay
    });
    let built = host.build(&copy_config("copy", &images), &host.open("memory"));
    assert_eq!(built.state, DomainState::Paused);
    let copy = built.identity;
    host.control().unpause(&copy, soon()).unwrap();
    host.operator().await_tick(&copy, memory.tick + 1100, soon()).unwrap();
    assert_eq!(host.inspect(&copy).wrong, None);
    assert_eq!(host.inspect(&domain).wrong, None);

    // Closed with the domain, the images hold all that was written.
    host.control().suspend_only(&copy, soon().into()).unwrap();
    let tick = host.inspect(&copy).tick;
    host.control().destroy(&copy, soon()).unwrap();
    let ticks = [tick_of(&host, 0, &images[0]), tick_of(&host, 1, &images[1])];
    assert_eq!(ticks, [tick, tick]);
    check::consistent(&memory, &frozen_ticks(&host, &frozen)).unwrap();
}

#[test]
fn a_disk_frozen_before_the_other_is_found_out() {
    const TEST: &str = "a_disk_frozen_before_the_other_is_found_out";
    if !available(TEST) {
        return;
    }
    let host = start();
    let domain = running(&host, "web");
    let qmp = host.inspect(&domain).qmp.unwrap();
    let mut ticks = Vec::new();
    for (number, vdev) in ["xvda", "xvdb"].into_iter().enumerate() {
        let overlay = host.path(&format!("{vdev}-1"));
        let overlay = LiveOverlay::new(vdev, format!("{vdev}-qcow2"), overlay, format!("{vdev}-1"));
        let done = snapshot(&mut LiveOverlays::new(&qmp, vec![overlay]), soon()).unwrap();
        ticks.push(tick_of(&host, number, &done[0].frozen.path));
        let now = host.inspect(&domain).tick;
        host.operator().await_tick(&domain, now + 3, soon()).unwrap();
    }
    assert!(check::crash_consistent(&ticks).is_err(), "{ticks:?}");
}

#[test]
fn the_process_that_has_the_disks_open_ends_with_its_domain() {
    const TEST: &str = "the_process_that_has_the_disks_open_ends_with_its_domain";
    if !available(TEST) {
        return;
    }
    let host = start();
    let (web, mail) = (running(&host, "web"), running(&host, "mail"));
    let inspection = host.inspect(&web);
    let (qmp, daemon) = (inspection.qmp.unwrap(), daemon(&host, &web));
    assert_eq!(qmp, host.path(&format!("qmp-libxl-{}", web.domid)));
    assert_eq!(
        QmpClient::connect(&qmp, soon()).unwrap().listener(),
        host.inspect(&web).storage_daemon,
        "a saver looks at what this process has open"
    );
    host.control().destroy(&web, soon()).unwrap();
    await_end(&daemon);
    assert!(!qmp.exists());
    let now = host.inspect(&mail).tick;
    host.operator().await_tick(&mail, now + 5, soon()).unwrap();
}

#[test]
fn the_process_that_has_the_disks_open_is_killed_with_a_killed_host() {
    const TEST: &str = "the_process_that_has_the_disks_open_is_killed_with_a_killed_host";
    if !available(TEST) {
        return;
    }
    let host = start();
    let domain = running(&host, "web");
    let daemon = daemon(&host, &domain);
    let pid = Pid::from_raw(i32::try_from(host.process.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    await_end(&daemon);
}

#[test]
fn images_of_a_host_that_ends_hold_all_that_was_written() {
    const TEST: &str = "images_of_a_host_that_ends_hold_all_that_was_written";
    if !available(TEST) {
        return;
    }
    let host = start();
    let domain = running(&host, "web");
    host.control().pause(&domain, soon()).unwrap();
    let (tick, daemon) = (host.inspect(&domain).tick, daemon(&host, &domain));
    let TestHost { process, directory } = host;
    assert!(process.stop().unwrap().success());
    await_end(&daemon);
    let image = directory.path().join("web-a");
    let found = check::qcow2_disk(SEED, 0, &image, directory.path(), soon()).unwrap();
    // It may have been paused in the midst of the next one.
    assert!((tick..=tick + 1).contains(&found), "{found} on the disk, {tick} in memory");
}

#[test]
fn an_image_that_cannot_be_opened_or_is_too_small_makes_no_domain_and_is_named() {
    const TEST: &str =
        "an_image_that_cannot_be_opened_or_is_too_small_makes_no_domain_and_is_named";
    if !available(TEST) {
        return;
    }
    let host = start();
    std::fs::write(host.path("rubbish"), [1; 4096]).unwrap();
    let small = image(&host, "small", "256K");
    for (path, expected) in [
        (host.path("missing"), "No such file"),
        (host.path("rubbish"), "not in qcow2 format"),
        (small, "the guest writes 524288"),
    ] {
        let spec = DomainSpec::new("web", uuid_of("web"), GuestSpec::new(SEED, PAGES))
            .with_qcow2_disk("xvda", &path);
        let error = host.operator().create(spec, soon()).unwrap_err();
        let text = std::error::Error::source(&error).unwrap().to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert_eq!(host.control().list(soon()).unwrap(), []);

    let domain = running(&host, "mail");
    let stream = host.suspended_to(&domain, "memory");
    let missing = [host.path("missing"), host.path("missing")];
    let config = copy_config("copy", &missing);
    let failed = host.control().build_from(&config, stream.as_fd(), soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::Hypervisor { .. }), "{failed}");
    assert_eq!(host.control().list(soon()).unwrap().len(), 1);
    assert!(!host.directory.path().join("templates").read_dir().unwrap().any(|entry| {
        entry.unwrap().file_name().to_string_lossy().contains(&uuid_of("copy").to_string())
    }));
}

#[test]
fn a_disk_that_is_read_only_in_the_configuration_is_not_written() {
    const TEST: &str = "a_disk_that_is_read_only_in_the_configuration_is_not_written";
    if !available(TEST) {
        return;
    }
    let host = start();
    let domain = running(&host, "web");
    let stream = host.suspended_to(&domain, "memory");
    let frozen: Vec<_> =
        pivot(&host, &domain, "web", 1).into_iter().map(|disk| disk.frozen).collect();
    let mut config = copy_config("copy", &[frozen[0].path.clone(), frozen[1].path.clone()]);
    config.disks[0].readwrite = 0;
    config.disks[1].readwrite = 0;
    let copy = host.build(&config, &stream).identity;
    host.control().unpause(&copy, soon()).unwrap();
    assert!(host.operator().await_tick(&copy, host.inspect(&copy).tick + 1, soon()).is_err());
    let inspection = host.inspect(&copy);
    assert_eq!(inspection.view.state, DomainState::ShutDown(ShutdownReason::Crash));
    assert!(inspection.wrong.unwrap().starts_with("disk xvda: "));
    host.control().destroy(&copy, soon()).unwrap();
    for image in frozen {
        let again = snapshot::disk::image::ImageRef::read(
            &image.path,
            snapshot::disk::image::ImageFormat::Qcow2,
        );
        assert_eq!(again.unwrap().changes_since(&image), []);
    }
}

fn daemon(host: &TestHost, domain: &DomainIdentity) -> OwnedFd {
    let pid = host.inspect(domain).storage_daemon.unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

fn await_end(process: &OwnedFd) {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let ended = loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 60, tv_nsec: 0 })) {
            Err(errno) if io::Error::from(errno).kind() == io::ErrorKind::Interrupted => {}
            ended => break ended.unwrap(),
        }
    };
    assert_eq!(ended, 1, "it still runs");
}
