//! `xenstore`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::host::{Answer, Host, domkeep, shipped};

#[test]
fn what_is_loaded_is_listed_and_saved_again_as_it_was() {
    let text = fs::read_to_string(shipped("demo/host/xenstore.txt")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nodes");
    fs::write(&file, &text).unwrap();
    let load = ["--load".as_ref(), file.as_os_str(), "--save".as_ref(), file.as_os_str()];
    let host = Host::empty(&load);
    assert_eq!(host.ask(&["xenstore", "ls", "-fp"]).expect(0).stdout(), text);
    host.ask(&["xenstore", "write", "/local/domain/1/name", "changed"]).expect(0);
    let socket = host.socket();
    let (status, rest, _directory) = host.stop();
    assert_eq!((status, rest.as_str()), (0, ""));
    assert!(!socket.exists());
    let changed =
        text.replace("/local/domain/1/name = \"web\"", "/local/domain/1/name = \"changed\"");
    assert_ne!(changed, text);
    assert_eq!(fs::read_to_string(&file).unwrap(), changed);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing temporary is left: {left:?}");
}

#[test]
fn a_list_can_be_a_tree_of_names() {
    let host = Host::demo();
    let tree = host.ask(&["xenstore", "ls", "/local/domain/1/memory"]).expect(0).stdout();
    assert_eq!(tree, "static-max = \"1048576\"\ntarget = \"1048576\"\nvideoram = \"0\"\n");
    let tree = host.ask(&["xenstore", "ls", "-p", "/local/domain/1/cpu"]).expect(0).stdout();
    assert!(
        tree.starts_with("0 = \"\"   (n0,r1)\n availability = \"online\"   (n0,r1)\n"),
        "{tree}"
    );
    let json = host.ask(&["xenstore", "ls", "/local/domain/1/memory", "--json"]).expect(0).json();
    assert_eq!(json[1]["path"], "/local/domain/1/memory/target");
    assert_eq!((&json[1]["value"], &json[1]["perms"]), (&"1048576".into(), &"n0,r1".into()));
    let missing = host.ask(&["xenstore", "ls", "/nosuch"]).expect(1);
    assert!(missing.stderr().contains("DIRECTORY of /nosuch"), "{}", missing.stderr());
}

#[test]
fn values_are_octets() {
    let host = Host::empty(&[]);
    let mut write = host.domkeep(&["xenstore", "write", "/a"]);
    Answer::of(write.arg(OsStr::from_bytes(b"\xff\x01"))).expect(0);
    assert_eq!(host.ask(&["xenstore", "read", "/a"]).expect(0).0.stdout, b"\xff\x01\n");
    assert_eq!(
        host.ask(&["xenstore", "read", "/a", "--json"]).expect(0).json()[0]["value_hex"],
        "ff01"
    );
    host.ask(&["xenstore", "write", "/a", "1", "/b", "2"]).expect(0);
    assert_eq!(host.ask(&["xenstore", "read", "/a", "/b"]).expect(0).stdout(), "1\n2\n");
    host.ask(&["xenstore", "rm", "/a"]).expect(0);
    let missing = host.ask(&["xenstore", "read", "/a"]).expect(1);
    assert!(missing.stderr().contains("READ of /a: refused with ENOENT"), "{}", missing.stderr());
}

#[test]
fn paths_and_values_that_make_no_sense_are_refused_before_anything_is_written() {
    let host = Host::empty(&[]);
    host.ask(&["xenstore", "write", "/a", "1", "/b"]).expect(2);
    host.ask(&["xenstore", "write", "/a", "1", "/b//c", "2"]).expect(2);
    host.ask(&["xenstore", "read", "/b//c"]).expect(2);
    let long = "x".repeat(8000);
    host.ask(&["xenstore", "write", "/a", "1", "/b", &long]).expect(1);
    host.ask(&["xenstore", "read", "/a"]).expect(1);
}

#[test]
fn a_watch_tells_of_changes_and_ends_by_count_or_by_time() {
    let host = Host::empty(&[]);
    let mut command = host.domkeep(&["xenstore", "watch", "/a", "-n", "2", "--timeout", "60"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "/a");
    host.ask(&["xenstore", "write", "/a/b/c", "1"]).expect(0);
    assert!(lines.next().unwrap().unwrap().starts_with("/a/"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let few =
        host.ask(&["xenstore", "watch", "/a", "-n", "2", "--timeout", "0.2", "--json"]).expect(1);
    assert_eq!(few.json()["first"], true);
    host.ask(&["xenstore", "watch", "@releaseDomain", "--timeout", "0.2"]).expect(0);
}

#[test]
fn a_server_is_not_started_on_what_it_cannot_load_or_where_another_one_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nodes");
    fs::write(&file, "/a = \"\"   (n0)\nnonsense\n").unwrap();
    let mut serve = domkeep();
    serve.args(["xenstore", "serve", "--socket"]).arg(directory.path().join("s")).arg("--load");
    let broken = Answer::of(serve.arg(&file)).expect(1);
    assert!(broken.stderr().contains("because: line 2\n"), "{}", broken.stderr());
    let host = Host::empty(&[]);
    let taken = Answer::of(domkeep().args(["xenstore", "serve", "--socket"]).arg(host.socket()));
    assert!(taken.expect(3).stderr().contains("in use by another server"));
    host.ask(&["xenstore", "ls"]).expect(0);
}
