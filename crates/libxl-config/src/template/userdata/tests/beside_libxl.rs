//! Beside processes that follow libxl's lock protocol, written here without any of the code under test.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use super::{key, later, names, names_in, open, text};
use crate::template::{
    Holder, LoadError, LockError, SwapError, TemplateStore, WritePermit, create,
    processes::{Player, await_parent, role, tell},
};

/// The test that the players are.
const PLAYER: &str = "template::userdata::tests::beside_libxl::a_process_beside";

/// Increments of each process in the counting test.
const COUNT: usize = 60;

#[test]
fn a_process_beside() {
    let Some((role, directory)) = role() else { return };
    match role.as_str() {
        "libxl: hold, write, release" => {
            let lock = LikeLibxl::lock(&directory);
            tell("held");
            await_parent();
            lock.write("written by libxl");
            drop(lock);
        }
        "libxl: lock once" => {
            tell("locking");
            drop(LikeLibxl::lock(&directory));
            tell("locked");
        }
        "libxl: die holding" => {
            let lock = LikeLibxl::lock(&directory);
            tell("held");
            await_parent();
            std::mem::forget(lock);
        }
        "libxl: count" => {
            for _ in 0..COUNT {
                let lock = LikeLibxl::lock(&directory);
                let number: usize = lock.read().parse().expect("a whole number");
                lock.write(&(number + 1).to_string());
            }
        }
        "ours: count by swapping" => (0..COUNT).for_each(|_| count_by_swapping(&directory)),
        "ours: count under the lock" => (0..COUNT).for_each(|_| count_under_the_lock(&directory)),
        "ours: read" => loop {
            let template = open(&directory).load(&key(), later()).unwrap().unwrap();
            let number: usize =
                String::from_utf8(template.octets).unwrap().parse().expect("a whole number");
            if number >= 6 * COUNT {
                break;
            }
        },
        other => panic!("no such role: {other}"),
    }
}

/// The lock as libxl takes it, with what libxl does under it.
struct LikeLibxl<'d> {
    directory: &'d Path,
    _file: File,
}

impl<'d> LikeLibxl<'d> {
    fn lock(directory: &'d Path) -> Self {
        let path = directory.join(names::lock(&key()));
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o666)
                .open(&path)
                .unwrap();
            flock(&file, FlockOperation::LockExclusive).unwrap();
            let opened = file.metadata().unwrap();
            match fs::metadata(&path) {
                Ok(named) if (named.dev(), named.ino()) == (opened.dev(), opened.ino()) => {
                    return LikeLibxl { directory, _file: file };
                }
                Ok(_) => {}
                Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
            }
        }
    }

    fn read(&self) -> String {
        let content = fs::read(self.directory.join(names::data(&key()))).unwrap();
        String::from_utf8(content.strip_suffix(b"\0").expect("libxl stores a NUL").to_vec())
            .unwrap()
    }

    fn write(&self, text: &str) {
        let next = self.directory.join(names::next(&key()));
        fs::write(&next, format!("{text}\0")).unwrap();
        fs::rename(next, self.directory.join(names::data(&key()))).unwrap();
    }
}

impl Drop for LikeLibxl<'_> {
    fn drop(&mut self) {
        fs::remove_file(self.directory.join(names::lock(&key()))).unwrap();
    }
}

fn count_by_swapping(directory: &Path) {
    let store = open(directory);
    loop {
        let template = store.load(&key(), later()).unwrap().unwrap();
        let number: usize =
            String::from_utf8(template.octets).unwrap().parse().expect("a whole number");
        let new = text((number + 1).to_string());
        match store.compare_and_swap(
            &WritePermit::new(),
            &key(),
            Some(&template.revision),
            Some(&new),
            later(),
        ) {
            Ok(_) => return,
            Err(SwapError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn count_under_the_lock(directory: &Path) {
    let store = open(directory);
    let mut held = store.lock(&WritePermit::new(), &key(), later()).unwrap();
    let template = held.load(later()).unwrap().unwrap();
    let number: usize =
        String::from_utf8(template.octets).unwrap().parse().expect("a whole number");
    held.store(&text((number + 1).to_string()), later()).unwrap();
}

#[test]
fn reader_and_writer_wait_for_libxl_and_then_see_what_it_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("old"), later()).unwrap();
    let mut libxl = Player::start(PLAYER, "libxl: hold, write, release", directory.path(), &[]);
    assert_eq!(libxl.hear().as_deref(), Some("held"));

    let soon = Instant::now() + Duration::from_millis(30);
    let Err(LoadError::Locked { holder, at, .. }) = store.load(&key(), soon) else {
        panic!("read under the lock")
    };
    assert!(Instant::now() >= soon, "it waited until the deadline");
    assert!(at.ends_with("domain-userdata-lock"), "{at}");
    assert!(
        matches!(&holder, Holder::Process { pid, program: Some(_) } if *pid == libxl.pid()),
        "{holder:?}"
    );
    let locked = store.lock(&WritePermit::new(), &key(), Instant::now()).map(drop);
    assert!(matches!(locked, Err(LockError::Locked { .. })));

    std::thread::scope(|scope| {
        let reader = scope.spawn(|| store.load(&key(), later()).unwrap().unwrap().octets);
        let writer = scope.spawn(|| {
            let mut held = store.lock(&WritePermit::new(), &key(), later()).unwrap();
            let before = held.load(later()).unwrap().unwrap().octets;
            held.store(&text("written by us"), later()).unwrap();
            before
        });
        std::thread::sleep(Duration::from_millis(100));
        libxl.go_on();
        assert_eq!(writer.join().unwrap(), b"written by libxl");
        let read = reader.join().unwrap();
        assert!(read == b"written by libxl" || read == b"written by us", "{read:?}");
    });
    assert!(libxl.end().success());
    assert_eq!(names_in(directory.path()), [names::data(&key())]);
}

#[test]
fn libxl_waits_for_us() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    let mut held = store.lock(&WritePermit::new(), &key(), later()).unwrap();
    let mut libxl = Player::start(PLAYER, "libxl: lock once", directory.path(), &[]);
    assert_eq!(libxl.hear().as_deref(), Some("locking"));
    std::thread::sleep(Duration::from_millis(50)); // into flock
    held.store(&text("{}"), later()).unwrap();
    assert_eq!(names_in(directory.path()), [names::data(&key()), names::lock(&key())]);
    let lock_file = directory.path().join(names::lock(&key()));
    let ours = fs::metadata(&lock_file).unwrap().ino();
    // Still ours: libxl would have unlinked it.
    assert!(held.load(later()).unwrap().is_some());
    assert_eq!(fs::metadata(&lock_file).unwrap().ino(), ours);
    drop(held);
    assert_eq!(libxl.hear().as_deref(), Some("locked"));
    assert!(libxl.end().success());
    assert_eq!(names_in(directory.path()), [names::data(&key())]);
}

#[test]
fn libxl_waits_for_a_reader_that_found_a_stale_lock() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    File::create(directory.path().join(names::lock(&key()))).unwrap();
    let reading = super::super::lock::acquire_read(&store.directory, &key(), later()).unwrap();
    assert!(reading.is_some());
    let second =
        super::super::lock::acquire_read(&store.directory, &key(), Instant::now()).unwrap();
    assert!(second.is_some(), "readers do not wait for each other");
    let mut libxl = Player::start(PLAYER, "libxl: lock once", directory.path(), &[]);
    assert_eq!(libxl.hear().as_deref(), Some("locking"));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(names_in(directory.path()), [names::lock(&key())]);
    drop((reading, second));
    assert_eq!(libxl.hear().as_deref(), Some("locked"));
    assert!(libxl.end().success());
    assert_eq!(names_in(directory.path()), Vec::<String>::new());
}

#[test]
fn a_process_that_dies_holding_the_lock_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("old"), later()).unwrap();
    let mut libxl = Player::start(PLAYER, "libxl: die holding", directory.path(), &[]);
    assert_eq!(libxl.hear().as_deref(), Some("held"));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| store.load(&key(), later()).unwrap().unwrap().octets);
        std::thread::sleep(Duration::from_millis(50));
        libxl.kill();
        assert_eq!(reader.join().unwrap(), b"old");
    });
    libxl.end();
    assert_eq!(names_in(directory.path()), [names::data(&key()), names::lock(&key())]);
    // With time to wait: a process that another test forks has our descriptors, and so our locks, until it executes.
    assert!(store.load(&key(), later()).unwrap().is_some());
    drop(store.lock(&WritePermit::new(), &key(), later()).unwrap());
    assert_eq!(names_in(directory.path()), [names::data(&key())]);
}

#[test]
fn processes_of_every_sort_lose_no_increment() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("0"), later()).unwrap();
    let counters = ["libxl: count", "ours: count by swapping", "ours: count under the lock"];
    let players = counters
        .iter()
        .chain(&counters)
        .chain(&["ours: read", "ours: read"])
        .map(|role| Player::start(PLAYER, role, directory.path(), &[]))
        .collect::<Vec<_>>();
    for player in players {
        assert!(player.end().success());
    }
    let template = store.load(&key(), later()).unwrap().unwrap();
    assert_eq!(String::from_utf8(template.octets).unwrap(), (6 * COUNT).to_string());
    assert_eq!(names_in(directory.path()), [names::data(&key())]);
}
