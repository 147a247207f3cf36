//! The conformance checks, and a comparison with a model, run on each store.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use uuid::Uuid;

use super::{
    DomId, MemoryStore, Revision, SledStore, SwapError, TemplateKey, TemplateStore, TemplateText,
    UserdataDir, WritePermit, conformance,
};

/// Keeps a store's directory for as long as the store: tests leave nothing behind.
struct InDirectory<S> {
    store: S,
    _directory: tempfile::TempDir,
}

fn later() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn memory() -> Box<dyn TemplateStore> {
    Box::new(MemoryStore::new())
}

fn sled() -> Box<dyn TemplateStore> {
    let directory = tempfile::tempdir().unwrap();
    let store = SledStore::open_or_create(directory.path(), later()).unwrap();
    Box::new(InDirectory { store, _directory: directory })
}

fn userdata() -> Box<dyn TemplateStore> {
    let directory = tempfile::tempdir().unwrap();
    let store = UserdataDir::open(directory.path()).unwrap();
    Box::new(InDirectory { store, _directory: directory })
}

/// Every check for one store, as a test each.
macro_rules! suite {
    ($store:ident: $($check:ident)*) => {
        mod $store {
            $(#[test]
            fn $check() {
                super::conformance::$check(super::$store().as_ref());
            })*

            #[test]
            fn does_what_a_map_does() {
                super::check_against_model(super::$store);
            }
        }
    };
    ($($store:ident)*) => {
        $(suite! { $store:
            creating_never_replaces
            a_swap_happens_only_on_the_expected_template
            octets_come_back_exactly
            keys_are_listed_in_order
            a_held_template_is_nobody_elses
            waiting_ends_with_the_release
            no_update_is_lost
            one_of_many_creators_wins
            readers_see_whole_templates
            readers_do_not_see_the_middle_of_a_change
            many_are_created_in_order
        })*
    };
}

suite! { memory sled userdata }

#[test]
fn the_checks_for_other_crates_are_the_ones_run_here() {
    conformance::check(&memory);
}

/// A step of a caller; keys and texts are few, so that steps meet.
#[derive(Clone, Debug)]
enum Step {
    Load(u16),
    Keys,
    KeysOf(u16),
    Swap { key: u16, expected: Option<u8>, new: Option<u8> },
    CreateMany(Vec<(u16, u8)>),
}

fn step() -> impl Strategy<Value = Step> {
    let (key, content) = (0_u16..4, 0_u8..3);
    prop_oneof![
        1 => key.clone().prop_map(Step::Load),
        1 => Just(Step::Keys),
        1 => key.clone().prop_map(Step::KeysOf),
        6 => (key.clone(), prop::option::of(content.clone()), prop::option::of(content.clone()))
            .prop_map(|(key, expected, new)| Step::Swap { key, expected, new }),
        1 => prop::collection::vec((key, content), 0..4).prop_map(Step::CreateMany),
    ]
}

fn key(number: u16) -> TemplateKey {
    TemplateKey::new(DomId::new(number / 2), Uuid::from_u128(number.into()))
}

/// A text for each content, of quite different lengths.
fn text(content: u8) -> TemplateText {
    TemplateText::new(vec![b'a' + content; 1 + 5000 * usize::from(content)]).unwrap()
}

fn check_against_model(new_store: fn() -> Box<dyn TemplateStore>) {
    proptest!(ProptestConfig::with_cases(32), |(steps in prop::collection::vec(step(), 1..25))| {
        let store = new_store();
        let mut model = BTreeMap::<TemplateKey, TemplateText>::new();
        for step in steps {
            take_step(store.as_ref(), &mut model, step);
        }
        for (key, text) in &model {
            prop_assert_eq!(&store.load(key, later()).unwrap().unwrap().octets, text.octets());
        }
    });
}

fn take_step(
    store: &dyn TemplateStore,
    model: &mut BTreeMap<TemplateKey, TemplateText>,
    step: Step,
) {
    match step {
        Step::Load(number) => {
            let found = store.load(&key(number), later()).unwrap().map(|template| template.octets);
            assert_eq!(found.as_deref(), model.get(&key(number)).map(TemplateText::octets));
        }
        Step::Keys => assert!(store.keys(later()).unwrap().iter().eq(model.keys())),
        Step::KeysOf(number) => {
            let domid = key(number).domid;
            let expected = model.keys().filter(|key| key.domid == domid);
            assert!(store.keys_of(domid, later()).unwrap().iter().eq(expected));
        }
        Step::Swap { key: number, expected, new } => {
            let there = model.get(&key(number)).map(TemplateText::revision);
            let expected: Option<Revision> = expected.map(|content| text(content).revision());
            let new = new.map(text);
            let swapped = store.compare_and_swap(
                &WritePermit::new(),
                &key(number),
                expected.as_ref(),
                new.as_ref(),
                later(),
            );
            if there != expected {
                let Err(SwapError::Conflict { found, .. }) = swapped else { panic!("{swapped:?}") };
                assert_eq!(found, there);
                return;
            }
            assert_eq!(swapped.unwrap(), new.as_ref().map(TemplateText::revision));
            match new {
                Some(new) => drop(model.insert(key(number), new)),
                None => drop(model.remove(&key(number))),
            }
        }
        Step::CreateMany(many) => {
            let many = many
                .into_iter()
                .map(|(number, content)| (key(number), text(content)))
                .collect::<Vec<_>>();
            let created = store.create_many(&WritePermit::new(), &many, later());
            let mut expected = Ok(());
            for (place, (key, text)) in many.iter().enumerate() {
                if model.contains_key(key) {
                    expected = Err(place);
                    break;
                }
                model.insert(*key, text.clone());
            }
            assert_eq!(created.map_err(|error| error.created), expected);
        }
    }
}

impl<S: TemplateStore> TemplateStore for InDirectory<S> {
    fn load(
        &self,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Option<super::Template>, super::LoadError> {
        self.store.load(key, deadline)
    }

    fn keys(&self, deadline: Instant) -> Result<Vec<TemplateKey>, super::ListError> {
        self.store.keys(deadline)
    }

    fn keys_of(
        &self,
        domid: DomId,
        deadline: Instant,
    ) -> Result<Vec<TemplateKey>, super::ListError> {
        self.store.keys_of(domid, deadline)
    }

    fn lock<'s>(
        &'s self,
        permit: &WritePermit,
        key: &TemplateKey,
        deadline: Instant,
    ) -> Result<Box<dyn super::HeldTemplate + 's>, super::LockError> {
        self.store.lock(permit, key, deadline)
    }

    fn create_many(
        &self,
        permit: &WritePermit,
        templates: &[(TemplateKey, TemplateText)],
        deadline: Instant,
    ) -> Result<(), super::CreateManyError> {
        self.store.create_many(permit, templates, deadline)
    }
}
