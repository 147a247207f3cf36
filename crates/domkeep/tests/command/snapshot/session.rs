//! A whole session: a simulated host, a domain with two disks, and what is done to it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use snapshot::control::{DomainControl, DomainIdentity, DomainState};
use snapshot::simulated::{Call, Effect, Operator, SimulatedDomain};
use xsclient::DomId;

use crate::host::{Answer, domkeep};
use crate::simulate::{Simulated, has_qemu, start};

/// How long anything may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

/// A host with one running domain, whose files are in the host's directory.
struct Session {
    host: Simulated,
    web: Value,
}

impl Session {
    fn new(disks: impl Fn(&Simulated) -> Vec<String>) -> Self {
        let host = start();
        let disks = disks(&host);
        let mut arguments = vec!["--name", "web", "--memory-mib", "4", "--start", "--json"];
        for disk in &disks {
            arguments.extend(["--disk", disk]);
        }
        let web = host.ask("create", &arguments).expect(0).json();
        Self { host, web }
    }

    /// With a raw disk, for which no program is needed.
    fn raw() -> Self {
        Self::new(|host| vec![host.disk("xvda")])
    }

    fn path(&self, name: &str) -> PathBuf {
        self.host.directory.path().join(name)
    }

    /// The command; in the directory of the files, so that they are named shortly.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = domkeep();
        command.arg("snapshot").args(arguments).current_dir(self.host.directory.path());
        if !matches!(arguments[0], "verify" | "inspect") {
            command.arg(format!("--control=simulated:{}", self.host.told("host")));
        }
        command
    }

    fn ask(&self, arguments: &[&str]) -> Answer {
        Answer::of(&mut self.command(arguments))
    }

    fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn operator(&self) -> Operator {
        Operator::new(self.host.told("host"))
    }

    fn control(&self) -> SimulatedDomain {
        SimulatedDomain::new(self.host.told("host"))
    }

    fn names(&self) -> BTreeSet<OsString> {
        let entries = fs::read_dir(self.host.directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Lets the next save stop in the midst of the memory.
    fn hang_next_save(&self) {
        let effect = Effect::StreamHangs { at: 1 << 20 };
        self.operator().fail(Call::SuspendTo, effect, deadline()).unwrap();
    }

    fn await_suspended(&self, domain: &DomainIdentity) {
        let until = deadline();
        while self.control().state(domain, deadline()).unwrap() != DomainState::Suspended {
            assert!(Instant::now() < until, "the domain is not suspended");
            std::thread::yield_now();
        }
    }

    /// The guest works, and has found all of its memory and disks as it left them.
    fn assert_works(&self, domain: &DomainIdentity) {
        let now = self.operator().inspect(domain, true, deadline()).unwrap();
        assert_eq!(now.wrong, None);
        let later = self.operator().await_tick(domain, now.tick + 20, deadline()).unwrap();
        assert_eq!((later.wrong, later.view.state), (None, DomainState::Running));
    }
}

fn identity(row: &Value) -> DomainIdentity {
    let domid = u16::try_from(row["domid"].as_u64().unwrap()).unwrap();
    DomainIdentity::new(DomId::new(domid), row["uuid"].as_str().unwrap().parse().unwrap())
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn a_domain_with_two_qcow2_disks_is_saved_verified_restored_and_replaced() {
    const TEST: &str = "a_domain_with_two_qcow2_disks_is_saved_verified_restored_and_replaced";
    if !has_qemu(TEST) {
        return;
    }
    let session = Session::new(|host| vec![host.qcow2_disk("xvda"), host.qcow2_disk("xvdb")]);
    let web = identity(&session.web);
    let qmp = session.web["qmp"].as_str().unwrap();

    let saving = |command: &'static str, number: u32| -> Vec<String> {
        let mut arguments: Vec<String> =
            [command, "web", "--digest-disks", "--qmp", qmp, "--json"].map(Into::into).into();
        let file = |name: &str| format!("{name}-{number}");
        arguments.extend(["--memory".into(), format!("{},format=packed", file("memory"))]);
        arguments.extend(["--xenstore-state".into(), file("xenstore")]);
        arguments.extend(["--journal".into(), file("journal")]);
        for vdev in ["xvda", "xvdb"] {
            arguments.extend(["--disk".into(), format!("{vdev}=overlay:{}", file(vdev))]);
        }
        if command == "save" {
            arguments.extend(["--manifest".into(), file("manifest")]);
        }
        arguments
    };
    let words = |arguments: &[String]| -> Vec<&str> {
        Vec::leak(arguments.to_vec()).iter().map(|word| &**word).collect()
    };

    let before = session.names();
    let plan = session.ask(&words(&saving("plan", 1))).expect(0).json();
    assert_eq!(
        (&plan["consistency"], plan["disks"].as_array().unwrap().len()),
        (&json!("complete"), 2)
    );
    assert_eq!(session.names(), before, "a plan changes nothing");

    let saved = session.ask(&words(&saving("save", 1))).expect(0).json();
    assert_eq!(
        (&saved["consistency"], &saved["state_after"]),
        (&json!("complete"), &json!("running"))
    );
    session.assert_works(&web);
    let verified =
        session.ask(&["verify", "manifest-1", "--depth", "full", "--json"]).expect(0).json();
    assert_eq!((&verified["problems"], &verified["uncovered"]), (&json!([]), &json!([])));
    let again = session.ask(&words(&saving("save", 1))).expect(1).stderr();
    assert!(again.contains("exists already"), "{again}");

    // The guest has gone on; the configuration follows it.
    let templates = format!("userdata:{}", session.host.told("templates"));
    let mut retrieve = domkeep();
    retrieve.args(["retrieve", "web", "--templates", &templates]);
    retrieve.args(["--xenstore", session.host.told("xenstore")]);
    let config = Answer::of(&mut retrieve).expect(0).json();
    assert_eq!(config["disks"][1]["pdev_path"], session.path("xvdb-1").to_str().unwrap());

    let beside = [
        "restore",
        "manifest-1",
        "--as-name",
        "web-2",
        "--uuid",
        "new",
        "--verify",
        "full",
        "--json",
        "--disk",
        "xvda=overlay:xvda-2",
        "--disk",
        "xvdb=overlay:xvdb-2",
    ];
    let restored = session.ask(&beside).expect(0).json();
    assert_eq!((&restored["name"], &restored["state"]), (&json!("web-2"), &json!("running")));
    session.assert_works(&identity(&restored["domain"]));
    session.assert_works(&web);

    let replace = [
        "restore",
        "manifest-1",
        "--replace",
        "1",
        "--paused",
        "--journal",
        "journal-3",
        "--json",
        "--disk",
        "xvda=overlay:xvda-3",
        "--disk",
        "xvdb=overlay:xvdb-3",
    ];
    let replaced = session.ask(&replace).expect(0).json();
    assert_eq!((&replaced["name"], &replaced["state"]), (&json!("web"), &json!("paused")));
    assert_eq!(replaced["domain"]["uuid"], session.web["uuid"]);
    assert_eq!(session.control().state(&web, deadline()).unwrap(), DomainState::Gone);
    let third = identity(&replaced["domain"]);
    session.control().unpause(&third, deadline()).unwrap();
    session.assert_works(&third);

    // Both are done: recovering them finds what there is.
    let recovered =
        session.ask(&["recover", "journal-1", "--manifest", "manifest-again", "--json"]);
    assert_eq!(recovered.expect(0).json()["recovered"], "saved");
    assert_eq!(read(&session.path("manifest-again")), read(&session.path("manifest-1")));
    let recovered = session.ask(&["recover", "journal-3", "--json"]).expect(0).json();
    assert_eq!(recovered["restored"]["name"], "web");
    session.assert_works(&third);
}

const SAVE: [&str; 12] = [
    "save",
    "web",
    "--memory",
    "memory",
    "--xenstore-state",
    "xenstore-state",
    "--disk",
    "xvda=copy:copy",
    "--journal",
    "journal",
    "--manifest",
    "manifest",
];

#[test]
fn a_killed_save_leaves_a_domain_that_runs_and_recover_removes_what_it_left() {
    let session = Session::raw();
    let web = identity(&session.web);
    let before = session.names();
    session.hang_next_save();
    let mut save = session.spawn(&SAVE);
    session.await_suspended(&web);
    let said = session.ask(&["recover", "journal"]).expect(1).stderr();
    assert!(said.contains("in use"), "{said}");
    save.kill().unwrap();
    save.wait().unwrap();
    // The guardian, which nobody waits for, resumes it.
    session.assert_works(&web);
    assert_ne!(session.names(), before);
    let told = session.ask(&["inspect", "journal", "--json"]).expect(0).json();
    assert_eq!((&told["kind"], &told["ended"]), (&json!("journal"), &json!(false)));

    for _ in 0..2 {
        let recovered =
            session.ask(&["recover", "journal", "--manifest", "manifest", "--json"]).expect(0);
        assert_eq!(recovered.json()["recovered"], "rolled-back");
    }
    fs::remove_file(session.path("journal")).unwrap();
    assert_eq!(session.names(), before);
    session.assert_works(&web);
    session.ask(&SAVE).expect(0);
    session.ask(&["verify", "manifest", "--depth", "full"]).expect(0);
}

#[test]
fn a_save_that_is_told_to_end_undoes_all_of_it() {
    for signal in [Signal::TERM, Signal::INT] {
        let session = Session::raw();
        let web = identity(&session.web);
        let before = session.names();
        session.hang_next_save();
        let save = session.spawn(&SAVE);
        session.await_suspended(&web);
        kill_process(Pid::from_child(&save), signal).unwrap();
        let answer = Answer(save.wait_with_output().unwrap()).expect(1);
        assert!(answer.stderr().contains("cancelled"), "{}", answer.stderr());
        session.assert_works(&web);
        fs::remove_file(session.path("journal")).unwrap();
        assert_eq!(session.names(), before);
    }
}

#[test]
fn every_refusal_is_told_and_nothing_is_done() {
    let session = Session::raw();
    fs::write(session.path("taken"), b"mine").unwrap();
    let before = session.names();
    let arguments = [
        "plan",
        "web",
        "--memory",
        "taken",
        "--xenstore-state",
        "nosuch/file",
        "--disk",
        "xvdz=skip:none",
        "--json",
    ];
    let refusals = session.ask(&arguments).expect(1).json()["refusals"].clone();
    let refusals: Vec<_> =
        refusals.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect();
    for part in ["taken", "xvda", "xvdz"] {
        assert!(
            refusals.iter().any(|text| text.contains(part)),
            "nothing of {part} in {refusals:?}"
        );
    }
    let lines = session.ask(&arguments[..arguments.len() - 1]).expect(1).stdout();
    assert_eq!(lines.lines().filter(|line| line.starts_with("refused: ")).count(), refusals.len());
    assert_eq!(session.names(), before);
    session.ask(&["plan", "nobody", "--no-memory"]).expect(1);
}

#[test]
fn what_makes_no_sense_is_usage_and_no_host_is_out_of_reach() {
    let session = Session::raw();
    session.ask(&["plan", "web"]).expect(2);
    session.ask(&["plan", "web", "--memory", "m", "--no-memory"]).expect(2);
    session.ask(&["plan", "web", "--memory", "m,format=stream", "--level", "1"]).expect(2);
    session.ask(&["save", "web", "--no-memory"]).expect(2);
    session.ask(&["plan", "web", "--request", "file"]).expect(2);
    session.ask(&["restore", "manifest", "--free-first"]).expect(2);
    let nowhere =
        ["snapshot", "plan", "web", "--no-memory", "--control", "simulated:/nosuch/socket"];
    let said = Answer::of(domkeep().args(nowhere)).expect(3).stderr();
    assert!(said.contains("domkeep simulate serve"), "{said}");
}

#[test]
fn a_request_in_json_does_what_the_options_do() {
    let session = Session::raw();
    let request = json!({
        "domain": { "domid": session.web["domid"], "uuid": session.web["uuid"] },
        "memory": { "target": { "path": session.path("memory") }, "format": "mapped" },
        "disks": [{ "vdev": "xvda", "action": { "skip": { "reason": "scratch" } } }],
        "after": "leave-paused",
    });
    fs::write(session.path("request"), request.to_string()).unwrap();
    session.ask(&["save", "--request", "request", "--manifest", "manifest"]).expect(0);
    let web = identity(&session.web);
    assert_eq!(session.control().state(&web, deadline()).unwrap(), DomainState::Paused);
    let told = session.ask(&["inspect", "manifest", "--json"]).expect(0).json();
    assert_eq!(told["skipped"][0]["reason"], "scratch");
    assert_eq!(told["memory"]["format"], "mapped");
    fs::write(session.path("request"), "{}").unwrap();
    session.ask(&["plan", "--request", "request"]).expect(2);
}

#[test]
fn a_changed_manifest_or_image_is_not_restored() {
    let session = Session::raw();
    session.ask(&SAVE).expect(0);
    let restore = |manifest: &str| {
        let disk = "xvda=image:mine,format=raw";
        session.ask(&["restore", manifest, "--as-name", "other", "--uuid", "new", "--disk", disk])
    };
    // The copy itself is frozen.
    fs::copy(session.path("copy"), session.path("mine")).unwrap();
    let text = read(&session.path("manifest"));
    fs::write(session.path("edited"), text.replace("\"web\"", "\"wed\"")).unwrap();
    let said = restore("edited").expect(1).stderr();
    assert!(said.contains("digest"), "{said}");
    let mut octets = fs::read(session.path("memory")).unwrap();
    let middle = octets.len() / 2;
    octets[middle] ^= 1;
    fs::write(session.path("memory"), octets).unwrap();
    let wrong = session.ask(&["verify", "manifest", "--depth", "full", "--json"]).expect(1).json();
    assert_eq!(wrong["problems"].as_array().unwrap().len(), 1, "{wrong}");
    let said = restore("manifest").expect(1).stderr();
    assert!(said.contains("memory image"), "{said}");
    let listed = session.host.ask("list", &["--json"]).expect(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[test]
fn a_guardian_that_is_told_nothing_says_so() {
    let said = Answer::of(domkeep().arg("guard")).expect(1).stderr();
    assert!(said.contains("the domain cannot be guarded"), "{said}");
}
