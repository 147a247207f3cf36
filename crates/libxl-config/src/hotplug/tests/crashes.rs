//! Killed at every step: `retrieve` tells the truth, and a repair mends it, whichever way.

use std::path::Path;
use std::time::{Duration, Instant};

use super::host::{GUEST, Host, connect, hotplug};
use crate::hotplug::{DeviceName, Mend};
use crate::retrieve::{Attachment, DeviceClass, Presence};
use crate::template::UserdataDir;
use crate::template::processes::{Player, await_parent, role};
use crate::template::steps::DIE_AFTER;

const PLUGGER: &str = "hotplug::tests::crashes::a_plugger_to_be_killed";

#[test]
fn a_plugger_to_be_killed() {
    let Some((asked, directory)) = role() else { return };
    await_parent();
    let (action, class) = asked.split_once(' ').unwrap();
    let templates = UserdataDir::open(directory.join("templates")).unwrap();
    let mut client = connect(&directory.join("socket"));
    let mut hotplug = hotplug(&mut client, &templates, &directory);
    if action == "attach" {
        hotplug.attach(GUEST, &device(&directory, class)).unwrap();
    } else {
        hotplug.detach(GUEST, &name(class)).unwrap();
    }
}

fn device(directory: &Path, class: &str) -> crate::hotplug::Device {
    let path = |file: &str| directory.join(file).display().to_string();
    match class {
        "disk" => crate::hotplug::spec::disk(&format!("vdev=xvdb,target={}", path("a.img")))
            .unwrap()
            .into(),
        "nic" => crate::hotplug::spec::nic("devid=0,mac=00:16:3e:00:00:01").unwrap().into(),
        _ => {
            let share = format!("tag=share,security_model=none,path={}", path("scripts"));
            crate::hotplug::spec::p9(&share).unwrap().into()
        }
    }
}

fn name(class: &str) -> DeviceName {
    match class {
        "disk" => DeviceName::parse(DeviceClass::Disk, "xvdb").unwrap(),
        "nic" => DeviceName::parse(DeviceClass::Nic, "0").unwrap(),
        _ => DeviceName::parse(DeviceClass::P9, "0").unwrap(),
    }
}

fn kill_at(host: &Host, asked: &str, step: &str) {
    let mut plugger = Player::start(PLUGGER, asked, host.directory.path(), &[(DIE_AFTER, step)]);
    plugger.go_on();
    assert!(!plugger.end().success(), "{asked}: {step} was not reached");
}

/// What both views and the report have to say after a death.
fn told(host: &Host, class: &str) -> (Option<Presence>, Option<Attachment>, bool) {
    let DeviceName::Id(id) = name(class) else { unreachable!("named by its number") };
    let report = host.report(id.class, &id.label());
    let presence = report.as_ref().map(|report| report.presence);
    let in_configuration = report.as_ref().is_some_and(|report| report.in_configuration);
    (presence, report.map(|report| report.attachment), in_configuration)
}

/// As [`told`], once the ends have come together that are on their way: a repair leaves them to it.
fn settled(host: &Host, class: &str) -> (Option<Presence>, Option<Attachment>) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let (found, attachment, _) = told(host, class);
        let is_done = matches!(attachment, None | Some(Attachment::Connected));
        if is_done || Instant::now() >= deadline {
            return (found, attachment);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

const ATTACHING: [(&str, Option<Presence>); 13] = [
    ("userdata: locked", None),
    ("attach: locked", None),
    ("attach: written in the transaction", None),
    ("attach: committed", Some(Presence::XenstoreOnly)),
    ("userdata: next written", Some(Presence::XenstoreOnly)),
    ("userdata: next synced", Some(Presence::XenstoreOnly)),
    ("userdata: renamed", Some(Presence::Both)),
    ("attach: template written", Some(Presence::Both)),
    ("attach: unlocked", Some(Presence::Both)),
    ("attach: backend waits", Some(Presence::Both)),
    ("attach: script started", Some(Presence::Both)),
    ("attach: script done", Some(Presence::Both)),
    ("attach: connected", Some(Presence::Both)),
];

#[test]
fn an_attach_that_is_killed_at_any_step_is_told_and_finished_or_undone() {
    for class in ["disk", "nic", "share"] {
        for (step, presence) in ATTACHING {
            if class == "share" && step.contains("script") {
                continue;
            }
            for mend in [Mend::Finish, Mend::Undo] {
                let host = Host::new().with_qemu();
                kill_at(&host, &format!("attach {class}"), step);
                let (found, attachment, in_configuration) = told(&host, class);
                assert_eq!(found, presence, "{class}: {step}");
                assert_eq!(in_configuration, presence.is_some(), "{class}: {step}: {attachment:?}");
                let claims = host.plug(|mut hotplug| hotplug.claims(GUEST)).unwrap();
                assert_eq!(claims.is_empty(), presence.is_none(), "{class}: {step}");

                let repaired = host.plug(|mut hotplug| hotplug.repair(GUEST, &name(class), mend));
                let repaired =
                    repaired.unwrap_or_else(|error| panic!("{class}: {step}: {error:?}"));
                assert_eq!(repaired.presence, presence, "{class}: {step}");
                let (found, attachment) = settled(&host, class);
                // What has come together by itself is not torn apart.
                let undone = found.is_none();
                assert!(mend == Mend::Undo || undone == presence.is_none(), "{class}: {step}");
                if undone {
                    host.assert_bare();
                } else {
                    let both = (Some(Presence::Both), Some(Attachment::Connected));
                    assert_eq!((found, attachment), both, "{class}: {step}: {repaired:?}");
                    let claims = host.plug(|mut hotplug| hotplug.claims(GUEST)).unwrap();
                    assert!(claims.is_empty(), "{claims:?}");
                }
                let again =
                    host.plug(|mut hotplug| hotplug.repair(GUEST, &name(class), mend)).unwrap();
                assert_eq!(again.mended, crate::hotplug::Mended::Nothing, "{class}: {step}");
            }
        }
    }
}

#[test]
fn a_detach_that_is_killed_at_any_step_is_told_and_finished() {
    for class in ["disk", "nic", "share"] {
        for step in [
            "detach: written in the transaction",
            "detach: closing",
            "detach: closed",
            "detach: script started",
            "detach: script done",
            "detach: locked",
            "detach: removed in the transaction",
            "detach: removed",
            "userdata: next synced",
            "userdata: renamed",
            "detach: template written",
        ] {
            if class == "share" && step.contains("script") {
                continue;
            }
            let host = Host::new().with_qemu();
            let attached = host
                .plug(|mut hotplug| hotplug.attach(GUEST, &device(host.directory.path(), class)));
            attached.unwrap();
            kill_at(&host, &format!("detach {class}"), step);
            let (found, attachment, in_configuration) = told(&host, class);
            match attachment {
                // Not begun, or gone from both.
                Some(Attachment::Connected) => {
                    assert_eq!(step, "detach: written in the transaction")
                }
                Some(Attachment::HalfDetached { .. }) => {}
                // In the template only, where the word of that does not count.
                Some(Attachment::Absent) => {
                    assert_eq!((found, in_configuration), (Some(Presence::TemplateOnly), false));
                }
                None => assert!(
                    ["userdata: renamed", "detach: template written"].contains(&step)
                        || class == "share" && step == "detach: removed",
                    "{class}: {step}"
                ),
                Some(other) => panic!("{class}: {step}: {other:?}"),
            }
            let connected = step == "detach: written in the transaction";
            let repaired =
                host.plug(|mut hotplug| hotplug.repair(GUEST, &name(class), Mend::Finish));
            repaired.unwrap_or_else(|error| panic!("{class}: {step}: {error:?}"));
            if connected {
                assert_eq!(told(&host, class).1, Some(Attachment::Connected));
                host.plug(|mut hotplug| hotplug.detach(GUEST, &name(class))).unwrap();
            }
            host.assert_bare();
        }
    }
}

/// A script outlives the process that started it.
#[test]
fn a_script_that_still_runs_is_waited_for_before_anything_is_mended() {
    let host = Host::new();
    host.scripts("hang");
    kill_at(&host, "attach disk", "attach: script started");
    let short = crate::hotplug::Timeouts {
        script: Duration::from_millis(300),
        ..crate::hotplug::Timeouts::default()
    };
    let error = host
        .plug(|hotplug| hotplug.timeouts(short).repair(GUEST, &name("disk"), Mend::Finish))
        .unwrap_err();
    let crate::hotplug::DetachError::Failed { source, .. } = error else { panic!("{error:?}") };
    let crate::hotplug::StepError::ScriptRuns { pid } = *source else { panic!("{source:?}") };
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    host.scripts("ok");
    let repaired = host.plug(|mut hotplug| hotplug.repair(GUEST, &name("disk"), Mend::Finish));
    let attached = crate::hotplug::Mended::Attached { attachment: Attachment::Connected };
    assert_eq!(repaired.unwrap().mended, attached);
}
