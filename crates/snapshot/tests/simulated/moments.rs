//! A snapshot that is of one moment is told from one that is not; a restored guest goes on from its moment.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use snapshot::control::{BuildFailure, DomainControl, DomainState, ShutdownReason, SuspendFailure};
use snapshot::simulated::check::{self, CheckError};
use snapshot::simulated::{Call, DiskImage, DomainSpec, Effect, GuestSpec, Population};

use crate::hosts::{PAGES, SEED, TestHost, configuration, soon, start, uuid_of};

fn copy(host: &TestHost, from: &str, to: &str) {
    fs::copy(host.path(from), host.path(to)).unwrap();
}

#[test]
fn memory_and_disks_saved_while_suspended_are_of_one_moment_and_go_on_from_it() {
    let host = start();
    let domain = host.running("web");
    let stream = host.suspended_to(&domain, "memory");
    let config = host.copied("web", "copy");
    host.control().resume(&domain, soon()).unwrap();

    let memory = check::stream(&mut &stream).unwrap();
    assert_eq!((memory.spec.seed, memory.spec.pages, memory.disks), (SEED, PAGES, 2));
    let disks = [host.disk_tick(0, "copy-a"), host.disk_tick(1, "copy-b")];
    check::consistent(&memory, &disks).unwrap();

    let mut stream = host.open("memory");
    stream.rewind().unwrap();
    let copy = host.build(&config, &stream).identity;
    let inspection = host.inspect(&copy);
    assert_eq!((inspection.tick, inspection.wrong), (memory.tick, None));
    host.control().unpause(&copy, soon()).unwrap();
    // Round all slots of the disks and all of the working set, so that the guest has looked at all it had.
    host.operator().await_tick(&copy, memory.tick + 1100, soon()).unwrap();
    assert_eq!(host.inspect(&copy).wrong, None);
    assert_eq!(host.inspect(&domain).wrong, None, "the original has not noticed");
    host.control().suspend_only(&copy, soon().into()).unwrap();
    let tick = host.inspect(&copy).tick;
    assert_eq!((host.disk_tick(0, "copy-a"), host.disk_tick(1, "copy-b")), (tick, tick));
}

#[test]
fn a_disk_copied_after_the_resume_is_found_out_by_the_checker_and_by_the_restored_guest() {
    let host = start();
    let domain = host.running("web");
    let stream = host.suspended_to(&domain, "memory");
    let memory = check::stream(&mut &stream).unwrap();
    copy(&host, "web-a", "right-a");
    host.control().resume(&domain, soon()).unwrap();
    host.operator().await_tick(&domain, memory.tick + 3, soon()).unwrap();
    host.control().pause(&domain, soon()).unwrap();
    let config = host.copied("web", "copy");

    let (right, late) = (host.disk_tick(0, "right-a"), host.disk_tick(1, "copy-b"));
    match check::consistent(&memory, &[right, late]) {
        Err(CheckError::DiskOfAnotherMoment { disk: 1, found, tick }) => {
            assert!(found > tick && tick == memory.tick);
        }
        other => panic!("{other:?}"),
    }

    let copy = host.build(&config, &host.open("memory")).identity;
    host.control().unpause(&copy, soon()).unwrap();
    let crashed = host.operator().await_tick(&copy, memory.tick + 2, soon());
    assert!(crashed.is_err());
    let inspection = host.inspect(&copy);
    assert_eq!(inspection.view.state, DomainState::ShutDown(ShutdownReason::Crash));
    assert!(inspection.wrong.unwrap().starts_with("disk xvda: slot"));
}

#[test]
fn a_disk_copied_before_the_suspend_is_found_out() {
    let host = start();
    let domain = host.running("web");
    host.control().pause(&domain, soon()).unwrap();
    copy(&host, "web-a", "early-a");
    host.control().unpause(&domain, soon()).unwrap();
    let now = host.inspect(&domain).tick;
    host.operator().await_tick(&domain, now + 3, soon()).unwrap();
    let memory = check::stream(&mut &host.suspended_to(&domain, "memory")).unwrap();
    let disks = [host.disk_tick(0, "early-a"), host.disk_tick(1, "web-b")];
    match check::consistent(&memory, &disks) {
        Err(CheckError::DiskOfAnotherMoment { disk: 0, found, tick }) => assert!(found < tick),
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_streamed_while_the_guest_runs_is_found_out() {
    let host = start();
    let domain = host.running("web");
    host.operator().fail(Call::SuspendTo, Effect::FalseSuccess, soon()).unwrap();
    // Through a pipe that is read only after the guest has gone on.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let control = host.control();
    let call = std::thread::spawn(move || {
        control.suspend_to(&domain, writer.as_fd(), false, soon().into())
    });
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
    let tick = host.inspect(&domain).tick;
    host.operator().await_tick(&domain, tick + 200, soon()).unwrap();
    let mut stream = first.to_vec();
    reader.read_to_end(&mut stream).unwrap();
    let failed = call.join().unwrap().unwrap_err();
    assert!(matches!(failed.reason, SuspendFailure::NotSuspended), "{failed}");
    assert_eq!(failed.state, Some(DomainState::Running));
    let torn = check::stream(&mut &stream[..]).unwrap_err();
    let found = matches!(
        torn,
        CheckError::TornPage { .. } | CheckError::TornVcpu { .. } | CheckError::WithinTick { .. }
    );
    assert!(found, "{torn}");
}

#[test]
fn disks_frozen_one_after_the_other_are_told_from_those_frozen_together() {
    let host = start();
    let domain = host.running("web");
    for _ in 0..20 {
        host.control().pause(&domain, soon()).unwrap();
        let ticks = [host.disk_tick(0, "web-a"), host.disk_tick(1, "web-b")];
        check::crash_consistent(&ticks).unwrap();
        host.control().unpause(&domain, soon()).unwrap();
    }
    host.control().pause(&domain, soon()).unwrap();
    let first = host.disk_tick(0, "web-a");
    host.control().unpause(&domain, soon()).unwrap();
    host.operator().await_tick(&domain, first + 3, soon()).unwrap();
    host.control().pause(&domain, soon()).unwrap();
    let second = host.disk_tick(1, "web-b");
    assert!(matches!(
        check::crash_consistent(&[first, second]),
        Err(CheckError::DisksOutOfOrder { disk: 1, .. })
    ));
}

#[test]
fn a_changed_bit_is_found_in_memory_stream_and_disk_and_a_hypervisor_does_not_notice() {
    let host = start();
    let domain = host.running("web");
    let stream = host.suspended_to(&domain, "memory");
    let config = host.copied("web", "copy");
    // In the midst of the pages' data; 4 KiB pages are nearly all of the stream.
    let file = File::options().read(true).write(true).open(host.path("memory")).unwrap();
    let middle = (file.metadata().unwrap().len() / 2..).find(|at| {
        let mut octet = [0];
        file.read_exact_at(&mut octet, *at).unwrap();
        octet != [0]
    });
    file.write_all_at(&[0], middle.unwrap()).unwrap();
    assert!(matches!(check::stream(&mut &stream), Err(CheckError::TornPage { .. })));
    let built = host.build(&config, &host.open("memory")).identity;
    assert!(host.inspect(&built).wrong.unwrap().contains("is not what it was at tick"));

    assert_eq!(host.inspect(&domain).wrong, None);
    host.operator().spoil(&domain, PAGES - 1, soon()).unwrap();
    assert!(host.inspect(&domain).wrong.unwrap().starts_with(&format!("page {}", PAGES - 1)));

    let tick = host.disk_tick(0, "copy-a");
    let image = File::options().write(true).open(host.path("copy-a")).unwrap();
    image.write_all_at(&[1], tick % 1024 * 512 + 300).unwrap();
    assert!(matches!(
        check::raw_disk(SEED, 0, &image_for_reading(&host)),
        Err(CheckError::TornDisk { disk: 0, slot, .. }) if slot == tick % 1024
    ));
}

fn image_for_reading(host: &TestHost) -> File {
    host.open("copy-a")
}

#[test]
fn a_switched_disk_gets_all_from_then_on_and_the_frozen_one_nothing() {
    let host = start();
    let domain = host.running("web");
    host.control().pause(&domain, soon()).unwrap();
    copy(&host, "web-a", "active-a");
    let frozen = host.disk_tick(0, "web-a");
    let image = DiskImage::Raw { path: host.path("active-a") };
    host.operator().switch_disk(&domain, "xvda", image.clone(), soon()).unwrap();
    host.control().unpause(&domain, soon()).unwrap();
    host.operator().await_tick(&domain, frozen + 5, soon()).unwrap();
    host.control().suspend_only(&domain, soon().into()).unwrap();
    let inspection = host.inspect(&domain);
    assert_eq!(inspection.wrong, None);
    assert_eq!(inspection.disks[0].image, image);
    assert_eq!(host.disk_tick(0, "active-a"), inspection.tick);
    assert_eq!(host.disk_tick(0, "web-a"), frozen);
}

#[test]
fn the_same_seed_gives_the_same_stream_and_another_seed_another() {
    let host = start();
    let streamed = |name: &str, seed| {
        let guest = GuestSpec { tick_us: 10_000_000, ..GuestSpec::new(seed, PAGES) };
        let domain = host.create(name, guest);
        host.control().unpause(&domain, soon()).unwrap();
        host.operator().await_tick(&domain, 1, soon()).unwrap();
        let mut stream = Vec::new();
        host.suspended_to(&domain, &format!("{name}-memory")).read_to_end(&mut stream).unwrap();
        assert_eq!(check::stream(&mut &stream[..]).unwrap().tick, 1);
        stream
    };
    let first = streamed("first", 5);
    assert!(first == streamed("second", 5));
    assert!(first != streamed("third", 6));
}

#[test]
fn every_octet_at_which_a_stream_may_end_is_refused() {
    let host = start();
    let guest = GuestSpec::new(SEED, 64);
    let spec = DomainSpec::new("small", uuid_of("small"), guest);
    let domain = host.operator().create(spec, soon()).unwrap().identity;
    host.control().unpause(&domain, soon()).unwrap();
    let mut stream = Vec::new();
    host.suspended_to(&domain, "memory").read_to_end(&mut stream).unwrap();
    check::stream(&mut &stream[..]).unwrap();
    for end in
        (0..stream.len()).filter(|end| *end < 1200 || end % 511 == 0 || end + 200 > stream.len())
    {
        let error = check::stream(&mut &stream[..end]).unwrap_err();
        assert!(matches!(error, CheckError::Stream(_)), "{end}: {error}");
    }
    // Lengths, counts and types that lie: neither a panic nor what they claim.
    for at in 0..600 {
        let mut lying = stream.clone();
        lying[at] = !lying[at];
        let _ = check::stream(&mut &lying[..]);
        lying[at] = 0x7f;
        let _ = check::stream(&mut &lying[..]);
    }
    let mut file = File::create_new(host.path("short")).unwrap();
    file.write_all(&stream[..stream.len() - 1]).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let short = File::open(host.path("short")).unwrap();
    let config = configuration("copy", uuid_of("copy"), 64);
    let failed = host.control().build_from(&config, short.as_fd(), soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::InvalidStream { .. }), "{failed}");
    assert_eq!(failed.left, None);
    let config = configuration("copy", uuid_of("copy"), 128);
    let whole = host.open("memory");
    let failed = host.control().build_from(&config, whole.as_fd(), soon().into()).unwrap_err();
    assert!(matches!(failed.reason, BuildFailure::InvalidStream { .. }), "{failed}");
}

#[test]
fn sixteen_gib_cost_what_is_in_them() {
    let host = start();
    let population = Population { text: 1, random: 1, duplicate: 1 };
    let guest = GuestSpec { population, ..GuestSpec::new(SEED, 4 << 20) };
    let domain = host.create("large", guest);
    host.control().unpause(&domain, soon()).unwrap();
    let inspection = host.operator().await_tick(&domain, 10, soon()).unwrap();
    assert_eq!(inspection.guest.octets(), 16 << 30);
    // Three pages of 1024, the table of frames, and what the file system adds.
    assert!(inspection.memory_stored < 256 << 20, "{} octets", inspection.memory_stored);
    let resident = fs::read_to_string(format!("/proc/{}/statm", host.process.pid())).unwrap();
    let pages: u64 = resident.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(pages < 64 << 20 >> 12, "{pages} pages are resident");
}
