//! Debian's `xenstore-*` tools.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use stock_xenstore::Client;

use crate::served::Served;

#[test]
fn what_is_written_is_read_and_listed() {
    let Some(served) = Served::with_stock_tools("what_is_written_is_read_and_listed") else {
        return;
    };
    served.run(Client::Write, &["/a/b", "value", "/a/c", "two words", "/a/d", ""]);
    assert_eq!(served.value("/a/c").as_deref(), Some("two words"));
    assert_eq!(served.run(Client::Read, &["/a/b", "/a/c"]), "value\ntwo words\n");
    assert_eq!(served.run(Client::Read, &["-p", "/a/b"]), "/a/b: value\n");
    assert_eq!(served.run(Client::List, &["/a"]), "b\nc\nd\n");
    assert_eq!(served.run(Client::Ls, &["/a"]), "b = \"value\"\nc = \"two words\"\nd = \"\"\n");
    assert_eq!(served.run(Client::Ls, &["-fp"]), served.xenstore.snapshot().to_text());
    assert!(served.refused(Client::Read, &["/a/none"]).contains("couldn't read path /a/none"));
    served.refused(Client::List, &["/none"]);
}

#[test]
fn a_directory_longer_than_a_message_is_listed_in_parts() {
    let Some(served) =
        Served::with_stock_tools("a_directory_longer_than_a_message_is_listed_in_parts")
    else {
        return;
    };
    let names: Vec<_> = (0..2000).map(|n| format!("name-of-a-child-{n}")).collect();
    served.xenstore.with(|server| {
        for name in &names {
            let path = format!("/big/{name}").parse().unwrap();
            server.apply(xenstore_proto::Request::Mkdir(path));
        }
    });
    assert_eq!(served.run(Client::List, &["/big"]), names.join("\n") + "\n");
}

#[test]
fn what_exists_is_told_from_what_does_not() {
    let Some(served) = Served::with_stock_tools("what_exists_is_told_from_what_does_not") else {
        return;
    };
    served.run(Client::Write, &["/a", "1"]);
    served.run(Client::Exists, &["/a"]);
    served.refused(Client::Exists, &["/b"]);
    served.refused(Client::Exists, &["/a", "/b"]);
}

#[test]
fn permissions_are_changed_of_one_node_and_of_a_tree() {
    let Some(served) =
        Served::with_stock_tools("permissions_are_changed_of_one_node_and_of_a_tree")
    else {
        return;
    };
    served.run(Client::Write, &["/a/b/c", "1", "/a/d", "2"]);
    served.run(Client::Chmod, &["/a/b", "n7", "r9"]);
    served.run(Client::Chmod, &["-r", "/a", "b3"]);
    let text = "/a = \"\"   (b3)\n/a/b = \"\"   (b3)\n/a/b/c = \"1\"   (b3)\n/a/d = \"2\"   (b3)\n";
    assert_eq!(served.run(Client::Ls, &["-fp"]), text);
    served.run(Client::Chmod, &["-u", "/a/b", "n7", "r9"]);
    let text =
        "/a = \"\"   (n7,r9)\n/a/b = \"\"   (n7,r9)\n/a/b/c = \"1\"   (b3)\n/a/d = \"2\"   (b3)\n";
    assert_eq!(served.run(Client::Ls, &["-fp"]), text);
    served.refused(Client::Chmod, &["/none", "n7"]);
}

#[test]
fn nodes_are_removed_and_what_is_empty_above_them() {
    let Some(served) = Served::with_stock_tools("nodes_are_removed_and_what_is_empty_above_them")
    else {
        return;
    };
    served.run(Client::Write, &["/a/b/c", "1", "/a/d/e/f", "2"]);
    served.run(Client::Rm, &["/a/b"]);
    assert_eq!(served.run(Client::List, &["/a"]), "d\n");
    served.run(Client::Rm, &["-t", "/a/d/e/f"]);
    assert_eq!(served.run(Client::List, &["/"]), "");
    served.refused(Client::Rm, &["/a/b/c"]);
}

#[test]
fn a_watch_prints_what_changes_until_it_has_seen_enough() {
    let Some(served) =
        Served::with_stock_tools("a_watch_prints_what_changes_until_it_has_seen_enough")
    else {
        return;
    };
    let mut command = served.command(Client::Watch);
    let mut watch = command.args(["-n", "4", "/a"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "/a", "the first event of every watch");
    served.run(Client::Write, &["/a/b", "1"]);
    assert_eq!(next(), "/a/b");
    served.run(Client::Write, &["/other", "1", "/a", "2"]);
    assert_eq!(next(), "/a");
    served.run(Client::Rm, &["/a"]);
    assert_eq!(next(), "/a");
    assert!(watch.wait().unwrap().success());
}

#[test]
fn the_daemon_is_controlled_by_the_stock_tool() {
    let Some(served) = Served::with_stock_tools("the_daemon_is_controlled_by_the_stock_tool")
    else {
        return;
    };
    assert_eq!(served.run(Client::Control, &["check"]), "OK\n");
    assert_eq!(served.run(Client::Control, &["print", "hello"]), "OK\n");
    assert!(served.run(Client::Control, &["help"]).contains("quota\t[set <name> <val>|<domid>]\n"));
    assert_eq!(served.run(Client::Control, &["quota", "set", "nodes", "5"]), "OK\n");
    assert!(served.run(Client::Control, &["quota"]).contains("nodes            :        5\n"));
    // The tool asks for the help itself then.
    let nonsense = served.output(Client::Control, &["nonsense"]);
    let told = String::from_utf8([nonsense.stdout, nonsense.stderr].concat()).unwrap();
    assert!(told.contains("Command not supported. Valid commands are:\ncheck"), "{told}");
}
