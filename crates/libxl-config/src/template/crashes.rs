//! Writers killed at every step, and at any moment: what is found afterwards is the old template or the new one, whole.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    DomId, SledStore, TemplateKey, TemplateStore, TemplateText, UserdataDir, WritePermit, create,
    create_many, forget,
    processes::{Player, await_parent, role, tell},
    steps::DIE_AFTER,
};

/// The test that the killed writers are.
const WRITER: &str = "template::crashes::a_writer_to_be_killed";

/// Steps of a replacement in each store, in their order; the last one follows the point where it is durable.
const USERDATA_STEPS: [&str; 5] = [
    "userdata: locked",
    "userdata: next written",
    "userdata: next synced",
    "userdata: renamed",
    "userdata: names synced",
];
const SLED_STEPS: [&str; 3] = ["sled: applied", "sled: flushed", "sled: synced"];

/// What the writer does, if not replacing one template for ever.
const TASK: &str = "DOMKEEP_TEST_TASK";

/// How often each store's writer is killed at some moment.
const KILLS: u64 = 25;

/// Template number `n` of a writer: long and short in turn, and recognisable in every octet.
fn numbered(n: u64) -> TemplateText {
    let len = [10, 60_000, 4096, 700][usize::try_from(n % 4).unwrap()];
    let unit = format!("{n:08} ");
    TemplateText::new(unit.repeat(1 + len / unit.len())).unwrap()
}

/// The number of a template, if it is one of those, whole.
fn number_of(octets: &[u8]) -> u64 {
    let n = std::str::from_utf8(&octets[..8]).unwrap().parse().unwrap();
    assert!(octets == numbered(n).octets(), "template {n} is not whole: {} octets", octets.len());
    n
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key() -> TemplateKey {
    TemplateKey::new(DomId::new(5), Uuid::from_u128(5))
}

#[derive(Clone, Copy)]
enum Store {
    Sled,
    Userdata,
}

impl Store {
    fn open(self, directory: &Path) -> Box<dyn TemplateStore> {
        match self {
            Store::Sled => {
                Box::new(SledStore::open_or_create(directory.join("store"), later()).unwrap())
            }
            Store::Userdata => Box::new(UserdataDir::open(directory).unwrap()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Store::Sled => "sled",
            Store::Userdata => "userdata",
        }
    }

    fn number(self, directory: &Path) -> Option<u64> {
        let template = self.open(directory).load(&key(), later()).unwrap()?;
        Some(number_of(&template.octets))
    }
}

#[test]
fn a_writer_to_be_killed() {
    let Some((store, directory)) = role() else { return };
    let store =
        if store == Store::Sled.name() { Store::Sled } else { Store::Userdata }.open(&directory);
    let first =
        store.load(&key(), later()).unwrap().map_or(0, |template| number_of(&template.octets));
    tell("ready");
    await_parent();
    match std::env::var(TASK).as_deref() {
        Ok("create many") => create_many(store.as_ref(), &many(), later()).unwrap(),
        Ok("forget") => assert!(forget(store.as_ref(), &key(), later()).unwrap()),
        _ => replace_for_ever(store.as_ref(), first),
    }
}

fn replace_for_ever(store: &dyn TemplateStore, first: u64) {
    for n in first + 1.. {
        let mut held = store.lock(&WritePermit::new(), &key(), later()).unwrap();
        held.store(&numbered(n), later()).unwrap();
        drop(held);
        tell(n);
    }
}

fn killed_at_every_step(store: Store, steps: &[&str]) {
    for (place, step) in steps.iter().enumerate() {
        let directory = tempfile::tempdir().unwrap();
        create(store.open(directory.path()).as_ref(), &key(), &numbered(1), later()).unwrap();
        let mut writer =
            Player::start(WRITER, store.name(), directory.path(), &[(DIE_AFTER, step)]);
        writer.go_on();
        while writer.hear().is_some() {}
        assert!(!writer.end().success(), "{step} was not reached");
        let found = store.number(directory.path()).expect("the old or the new one");
        assert!(found == 1 || found == 2, "{step}: {found}");
        if place == steps.len() - 1 {
            assert_eq!(found, 2, "lost after it was durable");
        }
        // And nothing is in the way of the next writer.
        let next = store.open(directory.path());
        next.lock(&WritePermit::new(), &key(), Instant::now())
            .unwrap()
            .store(&numbered(3), later())
            .unwrap();
        drop(next);
        assert_eq!(store.number(directory.path()), Some(3));
    }
}

#[test]
fn killed_at_every_step_of_a_replacement_in_libxls_directory() {
    killed_at_every_step(Store::Userdata, &USERDATA_STEPS);
}

#[test]
fn killed_at_every_step_of_a_replacement_in_sled() {
    killed_at_every_step(Store::Sled, &SLED_STEPS);
}

/// Templates that are created together.
fn many() -> Vec<(TemplateKey, TemplateText)> {
    (0..20)
        .map(|n| (TemplateKey::new(DomId::new(n), Uuid::from_u128(9)), numbered(n.into())))
        .collect()
}

#[test]
fn killed_at_every_step_of_creating_many() {
    for (store, step) in [
        (Store::Userdata, "userdata: batch written"),
        (Store::Userdata, "userdata: one of the batch renamed"),
        (Store::Userdata, "userdata: batch renamed"),
        (Store::Sled, "sled: applied"),
        (Store::Sled, "sled: flushed"),
        (Store::Sled, "sled: synced"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        drop(store.open(directory.path()));
        let environment = [(DIE_AFTER, step), (TASK, "create many")];
        let mut writer = Player::start(WRITER, store.name(), directory.path(), &environment);
        writer.go_on();
        assert!(!writer.end().success(), "{step} was not reached");
        let store = store.open(directory.path());
        let created = store.keys(Instant::now()).unwrap();
        for key in &created {
            let template = store.load(key, Instant::now()).unwrap().unwrap();
            assert_eq!(number_of(&template.octets), u64::from(key.domid.get()));
        }
        let rest = many().into_iter().filter(|(key, _)| !created.contains(key)).collect::<Vec<_>>();
        create_many(store.as_ref(), &rest, Instant::now()).unwrap();
        assert_eq!(store.keys(Instant::now()).unwrap().len(), 20);
    }
}

#[test]
fn killed_at_every_step_of_forgetting() {
    for (store, step) in [
        (Store::Userdata, "userdata: locked"),
        (Store::Userdata, "userdata: removed"),
        (Store::Sled, "sled: applied"),
        (Store::Sled, "sled: synced"),
    ] {
        let directory = tempfile::tempdir().unwrap();
        create(store.open(directory.path()).as_ref(), &key(), &numbered(1), later()).unwrap();
        let environment = [(DIE_AFTER, step), (TASK, "forget")];
        let mut writer = Player::start(WRITER, store.name(), directory.path(), &environment);
        writer.go_on();
        assert!(!writer.end().success(), "{step} was not reached");
        let found = store.number(directory.path());
        assert!(found.is_none() || found == Some(1), "{step}: {found:?}");
        assert!(step != "sled: synced" || found.is_none(), "it was durable");
        forget(store.open(directory.path()).as_ref(), &key(), Instant::now()).unwrap();
        assert_eq!(store.number(directory.path()), None);
    }
}

#[test]
fn killed_while_the_database_is_created() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Player::start(
        WRITER,
        Store::Sled.name(),
        directory.path(),
        &[(DIE_AFTER, "sled: created")],
    );
    assert!(!writer.end().success());
    assert!(
        SledStore::open(directory.path().join("store"), later()).is_err(),
        "it is no store yet"
    );
    assert_eq!(Store::Sled.number(directory.path()), None);
}

/// One writer after another on the same directory, each killed somewhere between its start and 40 ms of writing.
fn killed_at_any_moment(store: Store) {
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = 0;
    for kill in 0..KILLS {
        let mut writer = Player::start(WRITER, store.name(), directory.path(), &[]);
        assert_eq!(writer.hear().as_deref(), Some("ready"));
        writer.go_on();
        // Steps of a prime number of microseconds: spread over the writer's cycle, and the same in every run.
        std::thread::sleep(Duration::from_micros(kill * 7919 % 40_000));
        writer.kill();
        while let Some(told) = writer.hear() {
            acknowledged = told.parse().unwrap();
        }
        writer.end();
        let found = store.number(directory.path()).unwrap_or(0);
        assert!(
            found == acknowledged || found == acknowledged + 1,
            "kill {kill}: {found} found, {acknowledged} acknowledged"
        );
        acknowledged = found;
    }
    assert!(acknowledged > KILLS, "the writers hardly wrote: {acknowledged}");
}

#[test]
fn killed_at_any_moment_in_libxls_directory() {
    killed_at_any_moment(Store::Userdata);
}

#[test]
fn killed_at_any_moment_in_sled() {
    killed_at_any_moment(Store::Sled);
}
