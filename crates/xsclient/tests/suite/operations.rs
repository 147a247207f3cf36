//! What each operation sends and gives, against a small store.

use crate::support::*;
use xsclient::*;

#[test]
fn nodes_are_written_read_listed_and_removed() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a/b", "old")]));
    assert_eq!(client.read(&path("/a/b")).unwrap(), b"old");
    client.write(&path("/a/c"), b"\xff\x00new").unwrap();
    assert_eq!(client.read(&path("/a/c")).unwrap(), b"\xff\x00new");
    client.mkdir(&path("/a/d")).unwrap();
    let names: Vec<_> = client.directory(&path("/a")).unwrap();
    assert_eq!(names.iter().map(Name::as_str).collect::<Vec<_>>(), ["b", "c", "d"]);
    client.rm(&path("/a/c")).unwrap();
    assert_eq!(client.read_optional(&path("/a/c")).unwrap(), None);
    assert_eq!(client.read_optional(&path("/a/b")).unwrap().as_deref(), Some(&b"old"[..]));
    let node = PathOrSpecial::Node(path("/a"));
    client.set_perms(&node, &"n0,r7".parse().unwrap()).unwrap();
    assert_eq!(client.get_perms(&node).unwrap().to_string(), "n0,r7");
}

#[test]
fn operations_on_domains_and_the_server_give_their_types() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    let seven = DomId::new(7);
    assert_eq!(client.domain_path(seven).unwrap().as_str(), "/local/domain/7");
    assert!(client.is_domain_introduced(seven).unwrap());
    assert!(!client.is_domain_introduced(DomId::new(70)).unwrap());
    client.introduce(seven, 1, 2).unwrap();
    client.set_target(seven, DomId::new(8)).unwrap();
    client.resume(seven).unwrap();
    client.release(seven).unwrap();
    assert_eq!(client.control(&["print", "hello"]).unwrap(), b"print hello");
    assert!(client.features(None).unwrap().contains(Features::WATCH_DEPTH));
    client.set_features(seven, Features(4)).unwrap();
    let names = client.quota_names().unwrap();
    assert_eq!(names[0].as_str(), "nodes");
    assert_eq!(client.quota(Some(seven), &names[0]).unwrap(), 1000);
    client.set_quota(None, &names[0], 5).unwrap();
    let unknown = Request::Unknown { ty: MessageType(99), payload: vec![1, 2] };
    let error = client.request(&unknown).unwrap_err();
    assert_eq!(error.to_string(), "operation 99: refused with ENOSYS");
}

#[test]
fn errors_say_which_operation_on_which_path() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a", "\u{fffd}")]));
    let error = client.read(&path("/missing")).unwrap_err();
    assert_eq!(error.to_string(), "READ of /missing: refused with ENOENT");
    assert!(error.is_not_found());
    client.write(&path("/a"), b"ab\xff").unwrap();
    let error = client.read_text(&path("/a")).unwrap_err();
    assert_eq!(error.to_string(), "READ of /a: the value is not text");
    assert!(std::error::Error::source(&error).is_some());
    let error = client.write(&path("/a"), &[0; 5000]).unwrap_err();
    assert!(matches!(error.failure(), Failure::TooLong(_)), "{error}");
    assert!(client.read(&path("/a")).is_ok(), "nothing of it was sent");
}

#[test]
fn a_batch_is_one_round_trip_and_each_request_has_its_own_result() {
    let (mut client, _server) = client_of_store(Store::with(&[("/a/b", "1"), ("/a/c", "2")]));
    let mut batch = Batch::new();
    let b = batch.read(path("/a/b"));
    let missing = batch.read(path("/missing"));
    let list = batch.directory(path("/a"));
    let written = batch.write(path("/a/d"), "3");
    let d = batch.read(path("/a/d"));
    let long = batch.write(path("/a/e"), vec![0; 5000]);
    let before = client.statistics();
    let mut replies = client.run(batch).unwrap();
    let done = client.statistics().since(&before);
    assert_eq!((done.round_trips, done.requests), (1, 5));
    assert_eq!(replies.take(b).unwrap(), b"1");
    assert_eq!(replies.take_optional(missing).unwrap(), None);
    assert_eq!(replies.take(list).unwrap().len(), 2);
    replies.take(written).unwrap();
    assert_eq!(replies.take(d).unwrap(), b"3");
    let error = replies.take(long).unwrap_err();
    assert!(matches!(error.failure(), Failure::TooLong(_)), "{error}");
    let again = replies.take(d).unwrap_err();
    assert!(matches!(again.failure(), Failure::NoSuchSlot), "{again}");
    let foreign = Batch::new().read(path("/a/b"));
    assert!(matches!(replies.take(foreign).unwrap_err().failure(), Failure::NoSuchSlot));
}

#[test]
fn an_empty_batch_sends_nothing() {
    let (mut client, _server) = client_of_store(Store::with(&[]));
    client.run(Batch::new()).unwrap();
    assert_eq!(client.statistics(), Statistics::default());
}
