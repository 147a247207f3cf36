//! States that cannot go on under another domain id.

use xenstore_migration::domain_state::{ConnectionState, DomIdValues, TranslateError, Translation};
use xenstore_proto::limits::ABSOLUTE_PATH_MAX;
use xenstore_proto::{DomId, PathError};

use crate::{path, state};

const FROM: DomId = DomId::new(3);
const TO: DomId = DomId::new(8);

fn refused(translation: &Translation, lines: &[&str]) -> TranslateError {
    translation.apply(&state(3, lines)).unwrap_err()
}

#[test]
fn a_right_of_another_domain_does_not_become_the_right_of_the_restored_one() {
    let translation = Translation::new(FROM, TO);
    let lines = ["/local/domain/3 - n0,r3,r8"];
    let TranslateError::Perms { path: at, source } = refused(&translation, &lines) else {
        panic!("not because of permissions")
    };
    assert_eq!(at, path("/local/domain/3"));
    assert_eq!(source.to_string(), "domain 8 and domain 3 would both become domain 8");
    // Once it is said what becomes of the other domain, there is nothing to refuse.
    let moved = translation.domid(TO, DomId::new(20)).apply(&state(3, &lines)).unwrap();
    assert_eq!(moved, state(8, &["/local/domain/8 - n0,r8,r20"]));
}

#[test]
fn the_target_of_the_connection_is_no_exception() {
    let mut old = state(3, &[]);
    old.connection = Some(ConnectionState { target: Some(TO), ..Default::default() });
    let error = Translation::new(FROM, TO).apply(&old).unwrap_err();
    assert_eq!(error, TranslateError::DomId { domid: TO, other: FROM, target: TO });
}

#[test]
fn two_paths_do_not_become_one() {
    let both = refused(
        &Translation::new(FROM, TO).tree(path("/vm/a"), path("/vm/b")),
        &["/vm/a - n0", "/vm/b - n0"],
    );
    let (target, other) = (path("/vm/b"), "/vm/a".to_owned());
    assert_eq!(both, TranslateError::Paths { path: target.clone(), other, target });

    // One of two trees that go to one place.
    let error = refused(
        &Translation::new(FROM, TO)
            .tree(path("/vm/a"), path("/vm/c"))
            .tree(path("/vm/b"), path("/vm/c")),
        &["/vm/a - n0", "/vm/b - n0"],
    );
    assert!(matches!(error, TranslateError::Paths { .. }));

    // A tree that goes into another, where that one has such a node.
    let into = Translation::new(FROM, TO)
        .tree(path("/vm/a"), path("/vm/x"))
        .tree(path("/vm/b"), path("/vm/x/y"));
    let error = refused(&into, &["/vm/a - n0", "/vm/a/y - n0", "/vm/b - n0"]);
    let other = "/vm/b".to_owned();
    assert_eq!(
        error,
        TranslateError::Paths { path: path("/vm/a/y"), other, target: path("/vm/x/y") }
    );
}

#[test]
fn a_path_that_becomes_too_long_is_refused() {
    let below = "x".repeat(ABSOLUTE_PATH_MAX - "/vm/a/".len());
    let line = format!("/vm/a/{below} - n0");
    let translation = Translation::new(FROM, TO).tree(path("/vm/a"), path("/vm/aa"));
    let TranslateError::Path { path: at, target, source } =
        refused(&translation, &["/vm/a - n0", &line])
    else {
        panic!("not because of its length")
    };
    assert_eq!((at.as_str(), target), (&line[..ABSOLUTE_PATH_MAX], format!("/vm/aa/{below}")));
    let max = ABSOLUTE_PATH_MAX;
    assert_eq!(source, PathError::TooLong { len: max + 1, max });
}

#[test]
fn a_node_is_not_torn_from_its_parent() {
    let translation = Translation::new(FROM, TO).tree(path("/vm/a/b"), path("/vm/c"));
    let error = refused(&translation, &["/vm/a - n0", "/vm/a/b - n0"]);
    assert_eq!(error, TranslateError::Torn { path: path("/vm/a/b"), target: path("/vm/c") });
}

#[test]
fn what_is_for_another_domain_or_makes_no_sense_is_refused() {
    let other = Translation::new(TO, FROM).apply(&state(3, &[]));
    assert_eq!(other, Err(TranslateError::OtherDomain { expected: TO, state: FROM }));
    let (from, to) = (path("data"), path("/vm/a"));
    let relative = Translation::new(FROM, TO).tree(from.clone(), to.clone());
    assert_eq!(refused(&relative, &[]), TranslateError::RelativeTree { from, to });
}

#[test]
fn a_value_that_would_name_the_wrong_domain_is_refused() {
    let rule = DomIdValues::at(["backend-id".parse().unwrap()]);
    let translation = Translation::new(FROM, TO).values(rule);
    let lines = ["/local/domain/3 - n0", "/local/domain/3/backend-id 8 n0"];
    let TranslateError::Value { path: at, .. } = refused(&translation, &lines) else {
        panic!("not because of a value")
    };
    assert_eq!(at, path("/local/domain/3/backend-id"));
}
