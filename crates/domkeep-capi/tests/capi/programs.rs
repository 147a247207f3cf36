//! The programs in `tests/c`, and the example.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libxl_config::Layout;
use libxl_config::hotplug::simulated::{Behaviour, Ends};
use libxl_config::retrieve::Retriever;
use libxl_config::template::UserdataDir;
use snapshot::simulated::{DomainSpec, GuestSpec};
use tempfile::TempDir;
use uuid::Uuid;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Client, DomId, Endpoint, Nodes, Options};

use crate::hosts::{self, soon};
use crate::tools::{Linked, Program, here};

fn run(test: &str, name: &str, linked: Linked, arguments: &[&Path]) -> Option<String> {
    let program = Program::build(test, &here(&format!("tests/c/{name}.c")), linked)?;
    Some(program.check(test, arguments))
}

/// The demonstration's host, served, with a copy of its templates.
struct Served {
    xenstore: Embedded,
    _server: UnixServer,
    directory: TempDir,
}

impl Served {
    fn demo() -> Self {
        Self::of(&here("../domkeep/demo/host"))
    }

    fn of(capture: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_templates(capture, &directory.path().join("templates"));
        let text = fs::read_to_string(capture.join("xenstore.txt")).unwrap();
        let xenstore = Embedded::new(Store::from_text(&text).unwrap());
        let server = xenstore.serve_unix(directory.path().join("socket")).unwrap();
        Self { xenstore, _server: server, directory }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn client(&self) -> Client {
        Client::over(Box::new(self.xenstore.transport(DomId::DOM0)), Options::default())
    }

    fn templates(&self) -> String {
        format!("userdata:{}", self.path("templates").display())
    }
}

fn copy_templates(capture: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(capture).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("userdata-") {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

fn retrieved(served: &Served, domid: DomId) -> String {
    let templates = UserdataDir::open(served.path("templates")).unwrap();
    let mut client = served.client();
    Retriever::new(&mut client, &templates).retrieve(domid).unwrap().config.to_json(Layout::Yajl)
}

#[test]
fn c_retrieves_what_rust_does() {
    let served = Served::demo();
    let (socket, templates) = (served.path("socket"), served.templates());
    for linked in [Linked::Shared, Linked::Static] {
        let arguments = [&*socket, Path::new(&templates), Path::new("db")];
        let Some(told) = run("c_retrieves_what_rust_does", "retrieve", linked, &arguments) else {
            return;
        };
        assert_eq!(told, retrieved(&served, DomId::new(2)) + "\n");
    }
}

#[test]
fn wrong_arguments_are_errors_that_name_them() {
    run("wrong_arguments_are_errors_that_name_them", "wrong", Linked::Shared, &[]);
}

#[test]
fn a_toolstack_that_plugs_itself_changes_the_template_with_it_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let templates = format!("userdata:{}", directory.path().display());
    let test = "a_toolstack_that_plugs_itself_changes_the_template_with_it_or_not_at_all";
    run(test, "hotplug", Linked::Shared, &[Path::new(&templates)]);
}

#[test]
fn devices_are_plugged_by_the_library() {
    let served = Served::demo();
    let _ends = Ends::play(served.client(), Behaviour::default());
    let program = hosts::program("programs::script_program", served.directory.path());
    let words = program.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    for name in ["block", "vif-bridge"] {
        let script = served.path(name);
        let text = format!(
            "#!/bin/sh\n{}={} exec {} {words} >/dev/null\n",
            hosts::DIRECTORY,
            served.directory.path().display(),
            program.get_program().display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let image = served.path("data.img");
    fs::write(&image, "").unwrap();
    let templates = served.templates();
    let (socket, scripts) = (served.path("socket"), served.path(""));
    let arguments = [&*socket, Path::new(&templates), &scripts, &image];
    // Not under valgrind, which does not know the pidfd that a script is waited for with.
    let test = "devices_are_plugged_by_the_library";
    if let Some(program) = Program::build(test, &here("tests/c/devices.c"), Linked::Shared) {
        program.run(&arguments);
    }
}

#[test]
#[ignore = "a hotplug script, which another test has run: what the real ones write"]
fn script_program() {
    let Some(directory) = hosts::directory_of_program() else { return };
    let backend = std::env::var("XENBUS_PATH").unwrap();
    let endpoint = Endpoint::UnixSocket(directory.join("socket"));
    let mut client = Client::open(endpoint, Options::default()).unwrap();
    for (name, value) in [("physical-device", "7:0"), ("hotplug-status", "connected")] {
        let path = format!("/local/domain/0/{backend}/{name}").parse().unwrap();
        client.write(&path, value.as_bytes()).unwrap();
    }
}

#[test]
fn disks_are_on_their_new_images_in_both_views() {
    let directory = tempfile::tempdir().unwrap();
    let templates = format!("userdata:{}", directory.path().display());
    let test = "disks_are_on_their_new_images_in_both_views";
    run(test, "images", Linked::Shared, &[Path::new(&templates)]);
}

#[test]
fn calls_from_several_threads_on_one_context() {
    let directory = tempfile::tempdir().unwrap();
    let templates = format!("userdata:{}", directory.path().display());
    let test = "calls_from_several_threads_on_one_context";
    run(test, "threads", Linked::Shared, &[Path::new(&templates)]);
}

#[test]
fn a_daemon_that_dies_is_an_error_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("socket");
    run("a_daemon_that_dies_is_an_error_and_no_signal", "daemon", Linked::Shared, &[&socket]);
}

#[test]
fn texts_are_checked_printed_and_compared() {
    run("texts_are_checked_printed_and_compared", "config", Linked::Shared, &[]);
}

#[test]
fn snapshots_go_through_callbacks_that_may_fail() {
    let host = hosts::start();
    host.running("web");
    let arguments = [host.directory.path(), Path::new("web")];
    run("snapshots_go_through_callbacks_that_may_fail", "snapshot", Linked::Shared, &arguments);
}

#[test]
fn the_example_saves_and_restores_through_its_callbacks() {
    let test = "the_example_saves_and_restores_through_its_callbacks";
    let Some(example) = example(test) else { return };
    let host = hosts::start();
    let image = host.image("root.img");
    let guest = GuestSpec::new(7, 256);
    let spec = DomainSpec::new("web", Uuid::from_u128(7), guest).with_disk("xvda", image);
    let web = host.operator().create(spec, soon()).unwrap().identity;
    snapshot::control::DomainControl::unpause(&host.control(), &web, soon()).unwrap();
    host.operator().await_tick(&web, 5, soon()).unwrap();
    let told = example
        .check(test, &[Path::new("save-and-restore"), host.directory.path(), Path::new("web")]);
    for line in [
        "suspend domain 1 and write its memory",
        "resume domain 1",
        "what was saved is as it was saved",
        "unpause domain 2",
        "domain 1 was saved, and domain 2 goes on from there",
    ] {
        assert!(told.contains(line), "no {line:?} in {told}");
    }
    let views = snapshot::control::DomainControl::list(&host.control(), soon()).unwrap();
    let again = views.iter().find(|view| view.name.as_deref() == Some("web-again")).unwrap();
    let inspection = host.inspect(&again.identity);
    assert_eq!(inspection.wrong, None, "its memory and disk are those that were saved");
    assert!(inspection.tick >= 5, "{}", inspection.tick);
}

#[test]
fn the_example_retrieves_a_captured_host() {
    let test = "the_example_retrieves_a_captured_host";
    let Some(example) = example(test) else { return };
    let capture = here("../domkeep/demo/host");
    let served = Served::of(&capture);
    let told = example.check(
        test,
        &[Path::new("retrieve"), &capture.join("xenstore.txt"), &served.path("templates")],
    );
    let wanted: String = (0..3).map(|domid| retrieved(&served, DomId::new(domid)) + "\n").collect();
    assert_eq!(told, wanted);
}

fn example(test: &str) -> Option<Program> {
    Program::build(test, &here("../../examples/c/toolstack.c"), Linked::Shared)
}
