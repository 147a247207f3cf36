//! Captured hosts, on every server: what can be moved is moved, what cannot is refused by name, and all else stays.

use std::path::{Path, PathBuf};

use libxl_config::replace_image::{Refusal, ReplaceError, ReplaceImage, ViewState};
use libxl_config::retrieve::{DeviceClass, Retriever};
use libxl_config::template::{TemplateStore, UserdataDir};
use libxl_config::{DomainConfig, Mode};
use stock_xenstore::{Kind, Packages, StartError, StockDaemon};
use xenstored::{Embedded, Store};
use xsclient::{Client, Endpoint, Options};

use crate::hosts::{self, qcow2};

/// The captures of real hosts, and the hosts that come with the project.
fn captures() -> Vec<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut captures = vec![here.join("../domkeep/demo/host")];
    for all in ["../domkeep/tests/data/captures", "../../../shared/captures/xen-4.17"] {
        let Ok(entries) = std::fs::read_dir(here.join(all)) else { continue };
        let directories = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        captures.extend(directories);
    }
    captures.sort();
    captures
}

/// A copy of a capture's templates that may be written.
fn copied(capture: &Path) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(capture).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("userdata-d.") {
            std::fs::copy(entry.path(), directory.path().join(entry.file_name())).unwrap();
        }
    }
    directory
}

/// Asks for another image for every disk of every domain; how many were moved and how many refused.
fn replace_all(client: &mut Client, capture: &Path) -> (usize, usize) {
    let directory = copied(capture);
    let templates = UserdataDir::open(directory.path()).unwrap();
    let (mut moved, mut refused) = (0, 0);
    for domid in Retriever::new(client, &templates).domains().unwrap() {
        let retrieved = Retriever::new(client, &templates).retrieve(domid).unwrap();
        for disk in &retrieved.config.disks {
            let vdev = disk.vdev.as_deref().unwrap();
            let was = retrieved.report.device(DeviceClass::Disk, vdev).unwrap();
            let before = hosts::whole(client);
            let files = files(directory.path());
            let asked = [qcow2(vdev, "/srv/overlay.qcow2")];
            match ReplaceImage::new(client, &templates).replace(domid, &asked) {
                Ok(replaced) => {
                    moved += 1;
                    assert!(was.attachment.is_settled(), "{was:?}");
                    let changed = hosts::changed(&before, &hosts::whole(client));
                    assert_eq!(changed.len(), 2, "{changed:?}");
                    assert!(changed.iter().all(|(path, value)| path.ends_with("/params")
                        && value == "qcow2:/srv/overlay.qcow2"));
                    let text = templates.load(&replaced.key, hosts::later()).unwrap().unwrap();
                    let config = DomainConfig::read(&text.octets, Mode::Strict).unwrap().config;
                    let found = config.disks.iter().find(|disk| disk.vdev.as_deref() == Some(vdev));
                    assert_eq!(found.unwrap().pdev_path.as_deref(), Some("/srv/overlay.qcow2"));
                    let now = Retriever::new(client, &templates).retrieve(domid).unwrap();
                    let report = now.report.device(DeviceClass::Disk, vdev).unwrap();
                    assert!(report.changes.is_empty(), "{report:?}");
                    assert_eq!(now.report.is_clean(), retrieved.report.is_clean());
                    let back = replaced.undoing();
                    ReplaceImage::new(client, &templates).replace(domid, &back).unwrap();
                }
                Err(error) => {
                    refused += 1;
                    assert_eq!(error.views().live, ViewState::Old);
                    let ReplaceError::Refused { refusals, .. } = &error else { panic!("{error}") };
                    let known = |refusal: &Refusal| {
                        matches!(
                            refusal,
                            Refusal::Backend { .. }
                                | Refusal::Cdrom { .. }
                                | Refusal::Empty { .. }
                                | Refusal::XenstoreOnly { .. }
                                | Refusal::NotAttached { .. }
                        )
                    };
                    assert!(refusals.iter().all(known), "{}: {error}", capture.display());
                }
            }
            assert_eq!(hosts::whole(client), before, "{}", capture.display());
            assert_eq!(self::files(directory.path()), files, "{}", capture.display());
        }
    }
    (moved, refused)
}

/// Templates by their names; libxl's locks come and go.
fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn on_the_embedded_server_every_captured_disk_is_moved_or_refused_by_name() {
    let (mut moved, mut refused) = (0, 0);
    for capture in captures() {
        let text = std::fs::read(capture.join("xenstore.txt")).unwrap();
        let xenstore = Embedded::new(Store::from_text(text).unwrap());
        let counts = replace_all(&mut hosts::client(&xenstore), &capture);
        moved += counts.0;
        refused += counts.1;
    }
    assert!(refused > 0, "{moved} moved, {refused} refused");
    if captures().iter().any(|capture| capture.ends_with("14-create-pvq")) {
        assert!(moved > 0, "{moved} moved, {refused} refused");
    } else {
        println!("skipped: disks that can be moved: no ../shared/captures");
    }
}

/// On a stock daemon: the guest of the other tests, and the captures.
fn on_stock(test: &str, kind: Kind) {
    let packages = match Packages::of_workspace() {
        Ok(packages) => packages,
        Err(reason) => return println!("skipped: {test}: {reason}"),
    };
    let start = |text: &str| match StockDaemon::start(kind, packages) {
        Err(StartError::Unavailable(reason)) => {
            println!("skipped: {test}: {reason}");
            None
        }
        daemon => {
            let daemon = daemon.unwrap();
            daemon.fill(text).unwrap();
            let socket = daemon.socket().to_owned();
            let client = Client::open(Endpoint::UnixSocket(socket), Options::default()).unwrap();
            Some((daemon, client))
        }
    };
    let Some((_daemon, mut client)) = start(&hosts::xenstore().snapshot().to_text()) else {
        return;
    };
    let templates = hosts::templates();
    let before = hosts::whole(&mut client);
    let mut replacer = ReplaceImage::new(&mut client, &templates);
    let replaced = replacer.replace(hosts::GUEST, &hosts::overlays()).unwrap();
    assert_eq!(hosts::text(&templates), hosts::template_with_overlays());
    assert_eq!(hosts::changed(&before, &hosts::whole(&mut client)).len(), 4);
    let retrieved = hosts::retrieve(&mut client, &templates);
    assert!(retrieved.report.is_clean(), "{:#?}", retrieved.report);
    ReplaceImage::new(&mut client, &templates).replace(hosts::GUEST, &replaced.undoing()).unwrap();
    assert_eq!(hosts::whole(&mut client), before);
    assert_eq!(hosts::text(&templates), hosts::TEMPLATE);

    for capture in captures() {
        let text = std::fs::read_to_string(capture.join("xenstore.txt")).unwrap();
        let Some((_daemon, mut client)) = start(&text) else { return };
        replace_all(&mut client, &capture);
    }
}

#[test]
fn on_c_xenstored_every_captured_disk_is_moved_or_refused_by_name() {
    on_stock("on_c_xenstored_every_captured_disk_is_moved_or_refused_by_name", Kind::C);
}

#[test]
fn on_oxenstored_every_captured_disk_is_moved_or_refused_by_name() {
    on_stock("on_oxenstored_every_captured_disk_is_moved_or_refused_by_name", Kind::OCaml);
}
