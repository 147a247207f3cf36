//! Beside others: another process that holds libxl's lock, and writers of the same domain.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use libxl_config::model::DiskFormat;
use libxl_config::replace_image::{Image, ReplaceError, ReplaceImage, Replacement, ViewState};
use libxl_config::retrieve::{Consistency, Retriever};
use libxl_config::template::{LockError, MemoryStore, TemplateStore, UserdataDir};
use rustix::fs::{FlockOperation, flock};
use xenstored::Embedded;

use crate::hosts::{self, GUEST, overlays};

/// The lock file that the child takes.
const LOCK: &str = "DOMKEEP_TEST_LOCK";

/// The child: what libxl does to hold a template, until its standard input ends.
#[test]
fn a_holder_of_libxls_lock() {
    let Some(path) = std::env::var_os(LOCK).map(PathBuf::from) else { return };
    let file = File::options().create(true).append(true).open(&path).unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    println!("@held");
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // libxl removes the file before it lets go of it.
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn while_another_process_holds_libxls_lock_nothing_is_changed() {
    let directory = tempfile::tempdir().unwrap();
    let templates = UserdataDir::open(directory.path()).unwrap();
    hosts::fill(&templates, hosts::TEMPLATE);
    let name = format!("userdata-l.7.{}.domain-userdata-lock", hosts::key().uuid);
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "locks::a_holder_of_libxls_lock", "--nocapture"])
        .env(LOCK, directory.path().join(name))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    while !lines.next().unwrap().unwrap().ends_with("@held") {}

    let xenstore = hosts::xenstore();
    let mut client = hosts::client(&xenstore);
    let error = ReplaceImage::new(&mut client, &templates)
        .deadline(Instant::now() + Duration::from_millis(200))
        .replace(GUEST, &overlays())
        .unwrap_err();
    let ReplaceError::Lock(LockError::Locked { .. }) = &error else { panic!("{error}") };
    assert!(error.to_string().contains(&format!("process {}", holder.id())), "{error}");
    assert_eq!(hosts::live(&xenstore), ViewState::Old);

    drop(holder.stdin.take());
    ReplaceImage::new(&mut client, &templates).replace(GUEST, &overlays()).unwrap();
    assert!(holder.wait().unwrap().success());
    assert_eq!(hosts::live(&xenstore), ViewState::New);
    assert_eq!(hosts::template(&templates), ViewState::New);
}

/// Image number `n` of a disk.
fn numbered(vdev: &str, n: u32) -> Replacement {
    let format = if n.is_multiple_of(2) { DiskFormat::Raw } else { DiskFormat::Qcow2 };
    Replacement::new(vdev, Image::new(format!("/srv/{vdev}-{n}"), format))
}

/// Two writers, one of one disk and one of both, and a reader: no change of one is lost by the other, and what is read is
/// of one moment.
fn never_torn(xenstore: &Embedded, templates: &dyn TemplateStore) {
    const ROUNDS: u32 = 60;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let both = scope.spawn(|| {
            for n in 1..=ROUNDS {
                let asked = [numbered("xvda", n), numbered("xvdb", n)];
                hosts::replace(xenstore, templates, &asked).unwrap();
            }
        });
        let reader = scope.spawn(|| {
            let mut seen = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut client = hosts::client(xenstore);
                let retrieved = Retriever::new(&mut client, templates).retrieve(GUEST).unwrap();
                if !matches!(retrieved.report.consistency, Consistency::Consistent { .. }) {
                    continue;
                }
                let number = |at: usize| {
                    let path = retrieved.config.disks[at].pdev_path.as_deref().unwrap();
                    path.rsplit('-').next().unwrap().to_owned()
                };
                assert!(number(0) == number(1) || number(0).starts_with("/srv"));
                assert!(retrieved.report.devices.iter().all(|device| device.changes.is_empty()));
                seen += 1;
            }
            seen
        });
        both.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > 0);
    });
    let retrieved = hosts::retrieve(&mut hosts::client(xenstore), templates);
    let expected = [format!("xvda raw:/srv/xvda-{ROUNDS}"), format!("xvdb raw:/srv/xvdb-{ROUNDS}")];
    assert_eq!(hosts::images(&retrieved), expected);
}

#[test]
fn a_reader_beside_a_writer_sees_both_disks_and_both_views_of_one_moment() {
    never_torn(&hosts::xenstore(), &hosts::templates());
    let directory = tempfile::tempdir().unwrap();
    let templates = UserdataDir::open(directory.path()).unwrap();
    hosts::fill(&templates, hosts::TEMPLATE);
    never_torn(&hosts::xenstore(), &templates);
}

#[test]
fn two_writers_of_different_disks_lose_nothing_of_each_other() {
    let (xenstore, templates) = (hosts::xenstore(), hosts::templates());
    let write = |vdev: &'static str| {
        for n in 1..=40 {
            hosts::replace(&xenstore, &templates, &[numbered(vdev, n)]).unwrap();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| write("xvda"));
        scope.spawn(|| write("xvdb"));
    });
    let retrieved = hosts::retrieve(&mut hosts::client(&xenstore), &templates as &MemoryStore);
    assert_eq!(hosts::images(&retrieved), ["xvda raw:/srv/xvda-40", "xvdb raw:/srv/xvdb-40"]);
    assert!(retrieved.report.devices.iter().all(|device| device.changes.is_empty()));
}
