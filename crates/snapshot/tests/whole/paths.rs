//! Paths that are not UTF-8, which neither manifest nor journal nor QEMU can be told.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use snapshot::disk::{CopyMethod, DiskRefusal};
use snapshot::restore::{DiskRestore, PlanRestoreError, RestoreRefusal, RestoreRequest};
use snapshot::save::{DiskRequestAction, MemoryFormat, PlanSaveError, SaveRefusal};
use snapshot::{plan_restore, plan_save};

use crate::hosts::{TestHost, has_qemu, start};

fn odd(name: &str) -> OsString {
    let mut octets = name.as_bytes().to_vec();
    octets.push(0xff);
    OsString::from_vec(octets)
}

fn refused(host: &TestHost, request: snapshot::save::SaveRequest) -> Vec<(String, PathBuf)> {
    let error = plan_save(&mut host.access(), request).unwrap_err();
    let PlanSaveError::Refused { refusals } = error else { panic!("{error:?}") };
    let mut named: Vec<_> = refusals
        .iter()
        .map(|refusal| match refusal {
            SaveRefusal::NotUtf8 { what, path }
            | SaveRefusal::Disk(DiskRefusal::NotUtf8 { vdev: what, path }) => {
                (what.clone(), path.clone())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    named.sort();
    named
}

#[test]
fn every_target_that_is_not_utf8_is_refused_by_name() {
    let host = start();
    let domain = host.running("web");
    let side_digest = Some(host.saved("").join(odd("side")).into());
    let mut request = host.with_memory(host.copying(&domain), MemoryFormat::Stream { side_digest });
    let at = |name: &str| host.saved("").join(odd(name));
    request.memory.as_mut().unwrap().target = at("memory").into();
    request.xenstore = Some(at("xenstore").into());
    request.journal = Some(at("journal").into());
    request.qmp = Some(at("qmp"));
    let (method, destination) = (CopyMethod::Sparse, at("b").into());
    request.disks[1].action = DiskRequestAction::Copy { destination, method, digest: false };
    let expected = [
        ("QEMU's socket", "qmp"),
        ("journal", "journal"),
        ("memory", "memory"),
        ("side digest", "side"),
        ("xenstore", "xenstore"),
        ("xvdb", "b"),
    ];
    let named = refused(&host, request);
    assert_eq!(named, expected.map(|(what, name)| (what.to_owned(), at(name))));
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

fn rebase(image: &Path, backing: &Path) {
    let mut program = std::process::Command::new("qemu-img");
    program.args(["rebase", "-u", "-f", "qcow2", "-F", "raw", "-b"]).arg(backing).arg(image);
    assert!(program.status().unwrap().success());
}

#[test]
fn an_image_of_a_chain_that_is_not_utf8_is_refused_by_name() {
    if !has_qemu("an_image_of_a_chain_that_is_not_utf8_is_refused_by_name") {
        return;
    }
    let host = start();
    let base = host.directory.path().join(odd("base"));
    File::create_new(&base).unwrap().set_len(8 << 20).unwrap();
    let domain = host.running_qcow2_over("web", &|image| rebase(image, &base));
    let named = refused(&host, host.overlaying(&domain));
    assert_eq!(named, [("xvda".to_owned(), base.clone()), ("xvdb".to_owned(), base)]);
    assert_eq!(host.saved_names(), <[&str; 0]>::default());
    host.assert_goes_on(&domain);
}

#[test]
fn an_overlay_to_restore_to_that_is_not_utf8_is_refused_by_name() {
    let host = start();
    let domain = host.running("web");
    let snapshot = host.save(host.copying(&domain)).unwrap();
    let mut request = RestoreRequest::new(snapshot);
    let overlay = host.saved("").join(odd("overlay"));
    let target = overlay.clone().into();
    request.disks.insert("xvda".into(), DiskRestore::NewOverlay { overlay: target });
    request.disks.insert("xvdb".into(), DiskRestore::FrozenReadOnly);
    let journal = host.saved("").join(odd("journal"));
    request.journal = Some(journal.clone().into());
    let error = plan_restore(&mut host.access(), request).unwrap_err();
    let PlanRestoreError::Refused { refusals } = error else { panic!("{error:?}") };
    let named: Vec<_> = refusals
        .iter()
        .filter_map(|refusal| match refusal {
            RestoreRefusal::TargetNotUtf8 { path, .. } => Some(path),
            _ => None,
        })
        .collect();
    assert_eq!(named, [&overlay, &journal], "{refusals:?}");
}
