//! What may lie in the directory under a template's names.

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
    time::Instant,
};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::{key, later, names, names_in, open, text};
use crate::template::{
    CreateError, HeldTemplate, LoadError, LockError, MAX_TEMPLATE_LEN, TemplateStore, UserdataDir,
    WriteError, WritePermit, create, forget, steps,
};

/// Puts something where a file should be.
type Put<'p> = &'p dyn Fn(&Path);

#[test]
fn what_is_stored_is_what_libxl_would_have_stored() {
    let directory = tempfile::tempdir().unwrap();
    create(&open(directory.path()), &key(), &text("{}"), later()).unwrap();
    let file = directory.path().join(names::data(&key()));
    assert_eq!(fs::read(&file).unwrap(), b"{}\0");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(
        names_in(directory.path()),
        [names::data(&key())],
        "no lock and no temporary file stays"
    );
}

#[test]
fn a_text_without_the_nul_is_read_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(names::data(&key()));
    for (content, octets) in [("{}", "{}"), ("{}\0", "{}"), ("{}\n\0", "{}\n"), ("{}\0\0", "{}\0")]
    {
        fs::write(&file, content).unwrap();
        let template = open(directory.path()).load(&key(), later()).unwrap().unwrap();
        assert_eq!(template.octets, octets.as_bytes());
    }
}

#[test]
fn a_file_emptied_by_a_crash_is_named_and_can_be_got_rid_of() {
    let directory = tempfile::tempdir().unwrap();
    let (store, file) = (open(directory.path()), directory.path().join(names::data(&key())));
    for content in [&b""[..], b"\0", &[0; 4096]] {
        fs::write(&file, content).unwrap();
        let Err(LoadError::EmptyTemplate { key: named, at }) = store.load(&key(), later()) else {
            panic!()
        };
        assert_eq!((named, at), (key(), file.display().to_string()));
        assert_eq!(store.keys(later()).unwrap(), [key()]);
        let refused = create(&store, &key(), &text("{}"), later());
        assert!(matches!(refused, Err(CreateError::Load(LoadError::EmptyTemplate { .. }))));
        assert!(forget(&store, &key(), later()).unwrap());
        create(&store, &key(), &text("{}"), later()).unwrap();
    }
}

#[test]
fn a_file_too_long_is_refused_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let (store, path) = (open(directory.path()), directory.path().join(names::data(&key())));
    let file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .unwrap();
    file.write_all_at(&[b'x'; 3], MAX_TEMPLATE_LEN as u64 - 3).unwrap();
    file.write_all_at(b"\0", MAX_TEMPLATE_LEN as u64).unwrap();
    assert_eq!(store.load(&key(), later()).unwrap().unwrap().octets.len(), MAX_TEMPLATE_LEN);
    file.write_all_at(b"x\0", MAX_TEMPLATE_LEN as u64).unwrap();
    assert!(matches!(store.load(&key(), later()), Err(LoadError::TooLarge { .. })));
    file.set_len(1 << 40).unwrap();
    assert!(matches!(store.load(&key(), later()), Err(LoadError::TooLarge { .. })));
}

#[test]
fn what_is_not_a_regular_file_neither_hangs_nor_misleads() {
    let directory = tempfile::tempdir().unwrap();
    let (store, permit) = (open(directory.path()), WritePermit::new());
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "{}\0").unwrap();
    let put: [(&str, Put<'_>); 4] = [
        ("link", &|path| symlink(&elsewhere, path).unwrap()),
        ("dangling link", &|path| symlink("nowhere", path).unwrap()),
        ("fifo", &|path| mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap()),
        ("directory", &|path| fs::create_dir(path).unwrap()),
    ];
    for (what, put) in put {
        let data = directory.path().join(names::data(&key()));
        put(&data);
        assert!(
            matches!(store.load(&key(), later()), Err(LoadError::NotAFile { .. })),
            "{what} as data"
        );
        let _ = fs::remove_file(&data).or_else(|_| fs::remove_dir(&data));

        let lock = directory.path().join(names::lock(&key()));
        put(&lock);
        assert!(
            matches!(store.load(&key(), later()), Err(LoadError::NotAFile { .. })),
            "{what} as lock"
        );
        let locked = store.lock(&permit, &key(), later()).map(drop);
        assert!(matches!(locked, Err(LockError::NotAFile { .. })), "{what} as lock");
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
    }
    assert_eq!(fs::read(&elsewhere).unwrap(), b"{}\0");
    assert_eq!(
        names_in(directory.path()),
        ["elsewhere"],
        "a link is not followed to create its target"
    );
}

#[test]
fn what_a_killed_writer_left_is_replaced_and_not_written_through() {
    let directory = tempfile::tempdir().unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::write(&elsewhere, "untouched").unwrap();
    let next = directory.path().join(names::next(&key()));
    let store = open(directory.path());
    symlink(&elsewhere, &next).unwrap();
    create(&store, &key(), &text("{}"), later()).unwrap();
    fs::write(&next, "half a templ").unwrap();
    assert_eq!(store.keys(later()).unwrap(), [key()], "it is not listed");
    forget(&store, &key(), later()).unwrap();
    assert_eq!(fs::read(&elsewhere).unwrap(), b"untouched");
    assert_eq!(names_in(directory.path()), ["elsewhere"]);
}

#[test]
fn a_writer_whose_lock_was_taken_away_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (store, permit) = (open(directory.path()), WritePermit::new());
    let lock = directory.path().join(names::lock(&key()));
    let mut held = store.lock(&permit, &key(), later()).unwrap();
    fs::remove_file(&lock).unwrap();
    assert!(matches!(held.store(&text("{}"), later()), Err(WriteError::LockLost { .. })));
    assert!(matches!(held.remove(later()), Err(WriteError::LockLost { .. })));
    assert_eq!(names_in(directory.path()), Vec::<String>::new());

    let other = store.lock(&permit, &key(), later()).unwrap();
    assert!(matches!(held.store(&text("{}"), later()), Err(WriteError::LockLost { .. })));
    drop(held);
    assert!(lock.exists(), "the lock of the other holder stays");
    drop(other);
    assert!(!lock.exists());
}

#[test]
fn foreign_files_are_not_templates() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("{}"), later()).unwrap();
    for foreign in ["xl", "libvirt-xml", "libxl-json.orig"] {
        let name = names::data(&key()).replace("libxl-json", foreign);
        fs::File::create(directory.path().join(name)).unwrap().write_all(b"?").unwrap();
    }
    assert_eq!(store.keys(later()).unwrap(), [key()]);
    assert_eq!(names_in(directory.path()).len(), 4);
}

#[test]
fn a_reader_finds_a_dead_holders_lock_free_and_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("{}"), later()).unwrap();
    let lock = directory.path().join(names::lock(&key()));
    fs::File::create(&lock).unwrap();
    let (names_before, before) = (names_in(directory.path()), directory.path().metadata().unwrap());
    assert!(store.load(&key(), Instant::now()).unwrap().is_some());
    let after = directory.path().metadata().unwrap();
    assert_eq!(names_in(directory.path()), names_before);
    assert_eq!((after.mtime(), after.mtime_nsec()), (before.mtime(), before.mtime_nsec()));
    forget(&store, &key(), later()).unwrap();
    assert_eq!(
        names_in(directory.path()),
        Vec::<String>::new(),
        "a writer took the lock over and removed it"
    );
}

/// Locks, stores, and keeps the lock, from another thread's point of view in no time.
fn hold_and_store(directory: &Path, octets: &str) -> Box<dyn HeldTemplate> {
    let store: &'static UserdataDir = Box::leak(Box::new(open(directory)));
    let mut held = store.lock(&WritePermit::new(), &key(), later()).unwrap();
    held.store(&text(octets), later()).unwrap();
    held
}

#[test]
fn a_reader_that_found_no_lock_does_not_return_what_a_holder_stored_since() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path());
    create(&store, &key(), &text("old"), later()).unwrap();
    let path = directory.path().to_owned();
    steps::at("userdata: reader waited for the lock", move || {
        let mut held = hold_and_store(&path, "half");
        steps::at("userdata: reader read", move || {
            held.store(&text("whole"), later()).unwrap();
        });
    });
    assert_eq!(store.load(&key(), later()).unwrap().unwrap().octets, b"whole");

    let path = directory.path().to_owned();
    steps::at("userdata: reader waited for the lock", move || {
        std::mem::forget(hold_and_store(&path, "half"));
    });
    assert!(matches!(store.load(&key(), Instant::now()), Err(LoadError::Locked { .. })));
}
