//! What every template store must do, as checks that a store's own tests run.
//!
//! For the tests of a store in another crate: enable the feature `conformance` in its dev-dependencies and call
//! [`check`]. Every check panics with what it found.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    CreateError, DomId, LoadError, LockError, MAX_TEMPLATE_LEN, Revision, SwapError, TemplateKey,
    TemplateStore, TemplateText, WritePermit, create, create_many, forget,
};

/// Makes a store with no templates.
pub type NewStore<'f> = &'f dyn Fn() -> Box<dyn TemplateStore>;

/// Runs every check, each on a new store.
pub fn check(new_store: NewStore<'_>) {
    for (name, check) in CHECKS {
        tracing::info!(name, "checking a template store");
        check(new_store().as_ref());
    }
}

/// One check, on a store with no templates.
type Check = fn(&dyn TemplateStore);

const CHECKS: &[(&str, Check)] = &[
    ("creating never replaces", creating_never_replaces),
    ("a swap happens only on the expected template", a_swap_happens_only_on_the_expected_template),
    ("octets come back exactly", octets_come_back_exactly),
    ("keys are listed in order", keys_are_listed_in_order),
    ("a held template is nobody else's", a_held_template_is_nobody_elses),
    ("waiting ends with the release", waiting_ends_with_the_release),
    ("no update is lost", no_update_is_lost),
    ("one of many creators wins", one_of_many_creators_wins),
    ("readers see whole templates", readers_see_whole_templates),
    ("readers do not see the middle of a change", readers_do_not_see_the_middle_of_a_change),
    ("many are created in order", many_are_created_in_order),
];

/// Far enough that only a hang reaches it.
fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn key(domid: u16, uuid: u128) -> TemplateKey {
    TemplateKey::new(DomId::new(domid), Uuid::from_u128(uuid))
}

fn text(octets: impl Into<Vec<u8>>) -> TemplateText {
    TemplateText::new(octets).expect("a storable template")
}

fn octets(store: &dyn TemplateStore, key: &TemplateKey) -> Option<Vec<u8>> {
    let template = store.load(key, later()).expect("a readable template")?;
    assert_eq!(
        template.revision,
        Revision::of(&template.octets),
        "a revision is the digest of the octets"
    );
    Some(template.octets)
}

/// Creating refuses where there is a template; forgetting says whether there was one.
pub fn creating_never_replaces(store: &dyn TemplateStore) {
    let key = key(7, 7);
    assert_eq!(octets(store, &key), None);
    let revision = create(store, &key, &text("{}"), later()).expect("created");
    assert_eq!(revision, Revision::of(b"{}"));
    let again = create(store, &key, &text("{ }"), later());
    let exists = |error: &CreateError| matches!(error, CreateError::Exists { found, .. } if *found == revision);
    assert!(again.as_ref().is_err_and(exists), "{again:?}");
    assert_eq!(octets(store, &key), Some(b"{}".to_vec()));
    assert!(forget(store, &key, later()).expect("forgotten"));
    assert!(!forget(store, &key, later()).expect("nothing to forget"));
    assert_eq!(octets(store, &key), None);
    create(store, &key, &text("{ }"), later()).expect("created again");
}

/// Compare-and-swap over all combinations of what is there, what is expected, and what is new.
pub fn a_swap_happens_only_on_the_expected_template(store: &dyn TemplateStore) {
    let permit = WritePermit::new();
    let states = [None, Some(text("1")), Some(text("2"))];
    for (number, there) in (0..).zip(&states) {
        for expected in &states {
            for new in &states {
                let key = key(number, 1);
                forget(store, &key, later()).expect("forgotten");
                if let Some(there) = there {
                    create(store, &key, there, later()).expect("created");
                }
                let expected_revision = expected.as_ref().map(TemplateText::revision);
                let swapped = store.compare_and_swap(
                    &permit,
                    &key,
                    expected_revision.as_ref(),
                    new.as_ref(),
                    later(),
                );
                let after = if there == expected {
                    assert_eq!(swapped.expect("swapped"), new.as_ref().map(TemplateText::revision));
                    new
                } else {
                    let found = there.as_ref().map(TemplateText::revision);
                    let error = swapped.expect_err("another template than the expected one stays");
                    let told = |error: &SwapError| match error {
                        SwapError::Conflict { expected: e, found: f, .. } => {
                            (*e, *f) == (expected_revision, found)
                        }
                        _ => false,
                    };
                    assert!(told(&error), "{error:?}");
                    there
                };
                assert_eq!(octets(store, &key), after.as_ref().map(|text| text.octets().to_vec()));
            }
        }
    }
}

/// Any octets but NUL, in lengths around likely block sizes, each replacing the one before.
pub fn octets_come_back_exactly(store: &dyn TemplateStore) {
    let (permit, key) = (WritePermit::new(), key(0, 0));
    let mut expected = None;
    for len in [1, 4095, 4096, 4097, 70_000, 8192, 12_288, MAX_TEMPLATE_LEN, 65_536, 2] {
        let octets_of_len = (1..=u8::MAX).cycle().take(len).collect::<Vec<_>>();
        let stored = text(octets_of_len.clone());
        expected = store
            .compare_and_swap(&permit, &key, expected.as_ref(), Some(&stored), later())
            .expect("swapped");
        assert!(octets(store, &key) == Some(octets_of_len), "{len} octets did not come back");
    }
}

/// Several templates may have one domain id.
pub fn keys_are_listed_in_order(store: &dyn TemplateStore) {
    assert_eq!(store.keys(later()).expect("listed"), []);
    let mut keys =
        [key(256, 1), key(1, u128::MAX), key(1, 0), key(0xffff, 5), key(0, 0), key(2, 9)];
    for key in &keys {
        create(store, key, &text(vec![b'x'; 9000]), later()).expect("created");
    }
    keys.sort_unstable();
    assert_eq!(store.keys(later()).expect("listed"), keys);
    let of = |domid: u16| store.keys_of(DomId::new(domid), later()).expect("listed");
    assert_eq!(of(1), [key(1, 0), key(1, u128::MAX)]);
    assert_eq!(of(3), []);
    forget(store, &key(1, 0), later()).expect("forgotten");
    assert_eq!(of(1), [key(1, u128::MAX)]);
}

/// While a template is held, others can neither read nor write it, whether it exists or not.
pub fn a_held_template_is_nobody_elses(store: &dyn TemplateStore) {
    let (store, permit, held_key, other) = (store, WritePermit::new(), key(1, 1), key(1, 2));
    for exists in [false, true] {
        let mut held = store.lock(&permit, &held_key, later()).expect("locked");
        assert_eq!(held.key(), &held_key);
        assert_eq!(held.load(later()).expect("read").is_some(), exists);
        let now = Instant::now();
        assert!(matches!(store.load(&held_key, now), Err(LoadError::Locked { .. })));
        assert!(matches!(store.lock(&permit, &held_key, now), Err(LockError::Locked { .. })));
        assert!(matches!(
            forget(store, &held_key, now),
            Err(super::ForgetError::Lock(LockError::Locked { .. }))
        ));
        assert_eq!(store.load(&other, now).expect("nobody holds another template"), None);
        held.store(&text("held"), later()).expect("stored");
        assert_eq!(
            held.load(later()).expect("read").map(|template| template.octets),
            Some(b"held".to_vec())
        );
        drop(held);
        assert_eq!(octets(store, &held_key), Some(b"held".to_vec()));
    }
    let mut held = store.lock(&permit, &held_key, later()).expect("locked");
    assert!(held.remove(later()).expect("removed"));
    assert!(!held.remove(later()).expect("nothing to remove"));
    drop(held);
    assert_eq!(octets(store, &held_key), None);
}

/// A reader and a writer that wait get on as soon as the holder is done, and see what it did.
pub fn waiting_ends_with_the_release(store: &dyn TemplateStore) {
    let (permit, key) = (WritePermit::new(), key(1, 1));
    let mut held = store.lock(&permit, &key, later()).expect("locked");
    thread::scope(|scope| {
        let reader = scope.spawn(|| octets(store, &key));
        let writer = scope.spawn(|| create(store, &key, &text("refused"), later()).map(drop));
        // Not a wait for an event: if the two have not got to their locks by then, the check is weaker, not wrong.
        thread::sleep(Duration::from_millis(50));
        held.store(&text("done"), later()).expect("stored");
        drop(held);
        assert_eq!(reader.join().expect("no panic"), Some(b"done".to_vec()));
        assert!(matches!(writer.join().expect("no panic"), Err(CreateError::Exists { .. })));
    });
}

/// Threads that each add to a number in the template by compare-and-swap reach the sum.
pub fn no_update_is_lost(store: &dyn TemplateStore) {
    const THREADS: usize = 4;
    const UPDATES: usize = 25;
    let key = key(3, 3);
    create(store, &key, &text("0"), later()).expect("created");
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| (0..UPDATES).for_each(|_| increment(store, &key)));
        }
    });
    assert_eq!(octets(store, &key), Some((THREADS * UPDATES).to_string().into_bytes()));
}

/// Adds one to the number in a template, as hotplug changes one: load, compute, swap, again if it was changed meanwhile.
fn increment(store: &dyn TemplateStore, key: &TemplateKey) {
    let permit = WritePermit::new();
    loop {
        let template = store.load(key, later()).expect("readable").expect("there");
        let number: usize = String::from_utf8(template.octets)
            .expect("digits")
            .parse()
            .expect("a number, never part of one");
        let new = text((number + 1).to_string());
        match store.compare_and_swap(&permit, key, Some(&template.revision), Some(&new), later()) {
            Ok(revision) => return assert_eq!(revision, Some(new.revision())),
            Err(SwapError::Conflict { .. }) => {}
            Err(error) => assert!(matches!(error, SwapError::Conflict { .. }), "{error}"),
        }
    }
}

/// Of several threads that create one template, one does.
pub fn one_of_many_creators_wins(store: &dyn TemplateStore) {
    for round in 0..10 {
        let key = key(round, 1);
        let winners = thread::scope(|scope| {
            let creators = ["a", "b", "c", "d"].map(|name| {
                scope.spawn(move || {
                    create(store, &key, &text(name), later()).is_ok().then_some(name)
                })
            });
            creators
                .into_iter()
                .filter_map(|creator| creator.join().expect("no panic"))
                .collect::<Vec<_>>()
        });
        let [winner] = winners[..] else { return assert_eq!(winners.len(), 1, "{winners:?}") };
        assert_eq!(octets(store, &key), Some(winner.as_bytes().to_vec()));
    }
}

/// While a template is replaced, by longer and shorter ones, readers see each whole or not yet.
pub fn readers_see_whole_templates(store: &dyn TemplateStore) {
    let (key, done) = (key(4, 4), AtomicBool::new(false));
    let texts = [text(vec![b'a'; 10]), text(vec![b'b'; 40_000]), text(vec![b'c'; 4096])];
    create(store, &key, &texts[0], later()).expect("created");
    thread::scope(|scope| {
        let reading = || {
            while !done.load(Ordering::Relaxed) {
                let octets = octets(store, &key).expect("there");
                assert!(
                    texts.iter().any(|text| text.octets() == octets),
                    "{} octets of a mixture",
                    octets.len()
                );
            }
        };
        let readers = [scope.spawn(reading), scope.spawn(reading)];
        let mut revision = texts[0].revision();
        for text in texts.iter().cycle().skip(1).take(60) {
            let swapped = store.compare_and_swap(
                &WritePermit::new(),
                &key,
                Some(&revision),
                Some(text),
                later(),
            );
            assert!(swapped.is_ok(), "{swapped:?}");
            revision = text.revision();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("no mixture"));
    });
}

/// What a holder stored before it was done is nobody's business: a reader sees the template as it was when nobody held it.
pub fn readers_do_not_see_the_middle_of_a_change(store: &dyn TemplateStore) {
    let (key, done) = (key(6, 6), AtomicBool::new(false));
    create(store, &key, &text("whole"), later()).expect("created");
    thread::scope(|scope| {
        let reading = || {
            while !done.load(Ordering::Relaxed) {
                let octets = octets(store, &key).expect("there");
                assert_ne!(octets, b"half", "a reader came between two steps of a holder");
            }
        };
        let readers = [scope.spawn(reading), scope.spawn(reading)];
        for round in 0..60 {
            let mut held = store.lock(&WritePermit::new(), &key, later()).expect("locked");
            held.store(&text("half"), later()).expect("stored");
            held.store(&text(format!("whole {round}")), later()).expect("stored");
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("nothing in between"));
    });
}

/// Creating many is creating each in order, up to the first that cannot be created.
pub fn many_are_created_in_order(store: &dyn TemplateStore) {
    let many = |domid: u16, count: u16| {
        (0..count).map(|n| (key(domid, n.into()), text(format!("{domid} {n}")))).collect::<Vec<_>>()
    };
    let good = many(1, 1300);
    create_many(store, &good, later()).expect("created");
    assert_eq!(store.keys(later()).expect("listed").len(), 1300);
    for (key, text) in &good {
        assert_eq!(octets(store, key).as_deref(), Some(text.octets()));
    }
    create_many(store, &[], later()).expect("nothing to create");

    // One that exists, and one given twice.
    let mut existing = many(2, 600);
    existing[300] = good[3].clone();
    let mut twice = many(3, 600);
    twice[300].0 = twice[20].0;
    for (domid, batch) in [(2, existing), (3, twice)] {
        let error = create_many(store, &batch, later()).expect_err("one is refused");
        assert_eq!((error.created, error.key), (300, batch[300].0));
        assert!(matches!(error.source, CreateError::Exists { .. }), "{:?}", error.source);
        let domid = DomId::new(domid);
        assert_eq!(store.keys_of(domid, later()).expect("listed").len(), 300);
        assert_eq!(octets(store, &batch[299].0).as_deref(), Some(batch[299].1.octets()));
    }
}
