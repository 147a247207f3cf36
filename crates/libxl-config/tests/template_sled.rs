//! The embedded store as a caller sees it.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use libxl_config::template::{
    CreateError, DomId, OpenStoreError, SledStore, TemplateKey, TemplateStore, TemplateText,
    create, create_many, forget,
};
use uuid::Uuid;

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(number: u16) -> TemplateKey {
    TemplateKey::new(DomId::new(number), Uuid::from_u128(number.into()))
}

fn text(octets: impl Into<Vec<u8>>) -> TemplateText {
    TemplateText::new(octets).expect("a storable text")
}

#[test]
fn a_toolstack_keeps_templates_across_restarts() {
    let directory = tempfile::tempdir().unwrap();
    let revision = {
        let store = SledStore::open_or_create(directory.path(), later()).unwrap();
        create_many(&store, &[(key(1), text("one")), (key(2), text("two"))], later()).unwrap();
        create(&store, &key(3), &text("three"), later()).unwrap()
    };
    let store = SledStore::open(directory.path(), later()).unwrap();
    assert_eq!(store.keys(later()).unwrap(), [key(1), key(2), key(3)]);
    assert_eq!(store.load(&key(3), later()).unwrap().unwrap().revision, revision);
    assert!(forget(&store, &key(3), later()).unwrap());
    let refused = create(&store, &key(1), &text("another"), later());
    assert!(matches!(refused, Err(CreateError::Exists { .. })), "{refused:?}");
}

#[test]
fn threads_that_write_different_templates_do_not_disturb_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open_or_create(directory.path(), later()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..20 {
                    let key = key(thread * 100 + n);
                    create(store, &key, &text(format!("{thread} {n}")), later()).unwrap();
                    assert!(forget(store, &key, later()).unwrap());
                    create(store, &key, &text(format!("{thread} {n}")), later()).unwrap();
                }
            });
        }
    });
    drop(store);
    let store = SledStore::open(directory.path(), later()).unwrap();
    assert_eq!(store.keys(later()).unwrap().len(), 160);
    assert_eq!(store.load(&key(719), later()).unwrap().unwrap().octets, b"7 19");
}

#[test]
fn errors_say_what_and_where_and_keep_the_cause() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = SledStore::open_or_create(file.join("store"), later()).unwrap_err();
    assert!(matches!(error, OpenStoreError::Directory { .. }), "{error:?}");
    assert!(error.to_string().contains("file/store"), "{error}");
    assert!(error.source().is_some());

    let _owner = SledStore::open_or_create(directory.path(), later()).unwrap();
    let error = SledStore::open(directory.path(), Instant::now()).unwrap_err();
    assert!(
        error.to_string().ends_with("this process owned this template store until the deadline"),
        "{error}"
    );
}
