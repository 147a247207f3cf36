//! Tests of the embedded store that need to write, or to look behind it.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{OpenStoreError, SledStore};
use crate::template::{
    DomId, Holder, TemplateKey, TemplateStore, TemplateText, WritePermit, create, create_many,
    forget,
    processes::{Player, await_parent, role, tell},
};

const PLAYER: &str = "template::sled::tests::another_process";

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(number: u16) -> TemplateKey {
    TemplateKey::new(DomId::new(number), Uuid::from_u128(number.into()))
}

fn text(octets: impl Into<Vec<u8>>) -> TemplateText {
    TemplateText::new(octets).unwrap()
}

fn open_or_create(directory: &Path) -> SledStore {
    SledStore::open_or_create(directory, later()).unwrap()
}

#[test]
fn another_process() {
    let Some((_, directory)) = role() else { return };
    let store = open_or_create(&directory);
    tell("owned");
    await_parent();
    create(&store, &key(1), &text("by the first"), later()).unwrap();
}

#[test]
fn a_second_process_waits_and_is_told_who_owns_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = Player::start(PLAYER, "own", directory.path(), &[]);
    assert_eq!(first.hear().as_deref(), Some("owned"));
    for open in [SledStore::open, SledStore::open_or_create] {
        let soon = Instant::now() + Duration::from_millis(30);
        let Err(OpenStoreError::InUse { path, holder }) = open(directory.path(), soon) else {
            panic!("two owners")
        };
        assert!(Instant::now() >= soon);
        assert_eq!(path, directory.path());
        assert!(
            matches!(&holder, Holder::Process { pid, program: Some(_) } if *pid == first.pid()),
            "{holder:?}"
        );
    }
    std::thread::scope(|scope| {
        let second = scope.spawn(|| SledStore::open(directory.path(), later()).unwrap());
        std::thread::sleep(Duration::from_millis(50));
        first.go_on();
        let template = second.join().unwrap().load(&key(1), later()).unwrap().unwrap();
        assert_eq!(template.octets, b"by the first");
    });
    assert!(first.end().success());
}

#[test]
fn a_second_owner_in_this_process_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_or_create(directory.path());
    let second = SledStore::open(directory.path(), Instant::now());
    assert!(
        matches!(second, Err(OpenStoreError::InUse { holder: Holder::ThisProcess, .. })),
        "{second:?}"
    );
    drop(store);
    SledStore::open(directory.path(), later()).unwrap();
}

#[test]
fn opening_what_is_no_store_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    for path in [directory.path().to_owned(), directory.path().join("missing")] {
        let opened = SledStore::open(&path, later());
        assert!(
            matches!(&opened, Err(OpenStoreError::Missing { path: named }) if *named == path),
            "{opened:?}"
        );
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
}

#[test]
fn templates_outlive_the_store_and_the_directory_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("a/b");
    let many = (0..500).map(|n| (key(n), text(vec![b'x'; 3000]))).collect::<Vec<_>>();
    create_many(&open_or_create(&directory), &many, later()).unwrap();
    let store = SledStore::open(&directory, later()).unwrap();
    assert_eq!(store.keys(later()).unwrap().len(), 500);
    assert!(forget(&store, &key(3), later()).unwrap());
    drop(store);
    let store = SledStore::open(&directory, later()).unwrap();
    assert!(store.load(&key(3), later()).unwrap().is_none());
    assert_eq!(store.load(&key(4), later()).unwrap().unwrap().octets, vec![b'x'; 3000]);
    assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn the_database_keeps_everything_in_the_file_that_is_synced() {
    let directory = tempfile::tempdir().unwrap();
    let store = open_or_create(directory.path());
    let many = (0..300).map(|n| (key(n), text(vec![b'x'; 20_000]))).collect::<Vec<_>>();
    create_many(&store, &many, later()).unwrap();
    for round in 0..3_u8 {
        for len in [super::super::MAX_TEMPLATE_LEN, 1, 300_000] {
            let mut held = store.lock(&WritePermit::new(), &key(7), later()).unwrap();
            held.store(&text(vec![b'a' + round; len]), later()).unwrap();
        }
    }
    let blobs = directory.path().join("sled/blobs").read_dir().unwrap().count();
    assert_eq!(blobs, 0, "files that are neither synced nor removed in a safe order");
}

#[test]
fn a_damaged_database_is_an_error_and_neither_a_panic_nor_a_store_without_templates() {
    let directory = tempfile::tempdir().unwrap();
    let many = (0..40)
        .map(|n| (key(n), text(vec![b'a' + u8::try_from(n % 26).unwrap(); 3000])))
        .collect::<Vec<_>>();
    let store = open_or_create(directory.path());
    for (key, text) in &many {
        create(&store, key, text, later()).unwrap();
    }
    drop(store);
    let file = directory.path().join("sled/db");
    let pristine = fs::read(&file).unwrap();
    let opened = |seed: usize, damage: &dyn Fn(&mut Vec<u8>)| {
        let mut octets = pristine.clone();
        damage(&mut octets);
        fs::write(&file, octets).unwrap();
        // What the database found in the last round is none of this one's business.
        for entry in directory.path().join("sled").read_dir().unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_str().unwrap().starts_with("snap") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        match SledStore::open(directory.path(), later()) {
            Ok(store) => {
                let loaded =
                    many.iter().map(|(key, _)| store.load(key, later())).collect::<Vec<_>>();
                for (loaded, (key, text)) in loaded.iter().zip(&many) {
                    match loaded {
                        Ok(Some(template)) => {
                            assert_eq!(template.octets, text.octets(), "octets that nobody stored");
                        }
                        Ok(None) => panic!("seed {seed}: {key} is gone and nobody said so"),
                        Err(_) => {}
                    }
                }
                false
            }
            Err(
                OpenStoreError::ChangesLost { known: 40, found: 0..40, .. }
                | OpenStoreError::Database { .. },
            ) => true,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    };
    assert!(!opened(0, &|_| {}), "undamaged");
    let used = pristine.iter().rposition(|&octet| octet != 0).unwrap();
    let mut refused = 0;
    for seed in 0..30 {
        refused += usize::from(opened(seed, &|octets| match seed % 3 {
            0 => octets.truncate(seed * 2713 % used),
            1 => (0..4).for_each(|n| octets[(seed + n) * 7919 % used] ^= 0x55),
            _ => octets[seed * 3571 % used..].iter_mut().take(600).for_each(|octet| *octet = 0),
        }));
    }
    assert!(refused > 15, "damage went unnoticed: {refused} of 30 refused");
}

#[test]
fn a_loss_can_be_accepted() {
    let directory = tempfile::tempdir().unwrap();
    create(&open_or_create(directory.path()), &key(1), &text("{}"), later()).unwrap();
    fs::remove_dir_all(directory.path().join("sled")).unwrap();
    let Err(OpenStoreError::ChangesLost { count_file, .. }) =
        SledStore::open_or_create(directory.path(), later())
    else {
        panic!("a new database in place of a lost one")
    };
    fs::remove_file(count_file).unwrap();
    assert_eq!(open_or_create(directory.path()).keys(later()).unwrap(), []);
}
