//! One boot with the main job of each crate. Each subject is a function that takes the host and a guest that ticks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::snapshot::{self, Saved};
use super::{Scenario, devices, retrieve, xenstored};
use crate::dom0::{Failure, Guest, GuestConfig, Host, start};
use crate::xenstored::Xenstored;

pub(super) const SMOKE: Scenario = Scenario {
    name: "smoke",
    about: "the main job of each crate in one boot",
    limit: Duration::from_mins(8),
    run,
    ..Scenario::PLAIN
};

/// For a server of domkeep's to be reached.
const SERVE_LIMIT: Duration = Duration::from_mins(1);

fn run(host: &mut Host) -> Result<(), Failure> {
    let disk = host.raw_image("web", 64)?;
    let config = GuestConfig::pv("web")
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", disk.display()))
        .nic("bridge=xenbr0,mac=00:16:3e:00:00:01");
    let guest = host.create_ticking(&config)?;
    retrieve::check_like_xl(host, &guest, "after creation")?;
    client(host, &guest)?;
    server(host, &guest)?;
    stream(host, &guest)?;
    devices::disk(host, &guest, "raw")?;
    let guest = snapshot(host, guest)?;
    daemon(host, &guest)?;
    guest.destroy()
}

/// xenstored: it takes the host over from the stock daemon, and the guest, its devices and xl go on.
fn daemon(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    host.live_update(Xenstored::Ours)?;
    xenstored::goes_on(host, guest, "the update to our daemon")
}

/// xsclient: the stock daemon by its socket and by the kernel's device.
fn client(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    guest.ask("node-write data/greeting from the guest")?;
    let node = format!("/local/domain/{}/data/greeting", guest.domid());
    for (way, place) in [("socket", "/run/xenstored/socket"), ("device", "/dev/xen/xenbus")] {
        let read = host.domkeep(&["--xenstore", place, "xenstore", "read", &node])?.ok()?;
        let what = format!("what the guest wrote is read from the stock daemon by the {way}");
        host.check_equal(&what, &read.stdout.trim_end(), &"from the guest")?;
    }
    let devices = format!("/local/domain/{}/device", guest.domid());
    let ours = host.domkeep(&["xenstore", "ls", "-fp", &devices])?.ok()?.stdout;
    let stock = Command::new("xenstore-ls").args(["-fp", &devices]).output()?;
    let theirs = String::from_utf8_lossy(&stock.stdout).into_owned();
    host.check_equal("`domkeep xenstore ls` prints as xenstore-ls does", &ours, &theirs)
}

/// xenstored: the embedded server, filled with this host's nodes, gives the same answer about the guest.
fn server(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let (dump, socket) = (host.work().join("nodes.txt"), host.work().join("embedded"));
    fs::write(&dump, host.domkeep(&["xenstore", "ls", "-fp"])?.ok()?.stdout)?;
    let mut serve = Command::new("domkeep");
    serve.args(["xenstore", "serve", "--socket"]).arg(&socket).arg("--load").arg(&dump);
    let server = start(&mut serve)?;
    server.wait_for_line(SERVE_LIMIT)?;
    let domid = guest.domid().to_string();
    let from = |place: &Path| -> Result<Value, Failure> {
        let place = place.to_string_lossy();
        host.domkeep(&["--xenstore", &place, "list", "-l", &domid])?.ok()?.json()
    };
    let (embedded, stock) = (from(&socket)?, from(Path::new("/run/xenstored/socket"))?);
    host.check_same("the embedded server gives the same configuration", &embedded, &stock)?;
    server.kill()
}

/// xenstore-migration: the guest's Xenstore state as a stream that keeps the rules.
fn stream(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    let file = host.work().join("web.stream");
    let file = file.to_string_lossy();
    let domid = guest.domid().to_string();
    let extracted = host.domkeep_json(&["stream", "extract", &domid, &file])?;
    host.check_equal("the guest's state is of one moment", &extracted["consistent"], &true.into())?;
    host.domkeep(&["stream", "verify", &file, "--kind", "domain"])?.ok()?;
    let inspected = host.domkeep(&["stream", "inspect", &file])?.ok()?.stdout;
    host.check("the stream has what the guest wrote", inspected.contains("from the guest"))
}

/// libxl-control and snapshot: the guest is saved while it ticks, and reverted to that.
fn snapshot(host: &mut Host, guest: Guest) -> Result<Guest, Failure> {
    guest.ask("fill xvda 1 0 64")?;
    let before = guest.ticks_on()?;
    let frozen = "xvda=copy:/lab/work/web.copy";
    let made = ["--memory", "/lab/work/web.memory", "--xenstore-state", "/lab/work/web.xenstore"];
    let noted = ["--journal", "/lab/work/web.journal", "--manifest", "/lab/work/web.snapshot"];
    let mut save = vec!["snapshot", "save", guest.name(), "--disk", frozen];
    save.extend(made.into_iter().chain(noted));
    let manifest = host.domkeep_json(&save)?;
    host.check_equal("all is of one moment", &manifest["consistency"], &Value::from("complete"))?;
    let after = guest.ticks_on()?;
    guest.ask("fill xvda 2 0 64")?;

    let domid = guest.domid().to_string();
    let disk = "xvda=overlay:/lab/work/web.qcow2";
    let journal = ["--journal", "/lab/work/revert.journal"];
    let mut restore = vec!["snapshot", "restore", "/lab/work/web.snapshot", "--disk", disk];
    restore.extend(["--replace", &domid].into_iter().chain(journal));
    host.domkeep(&restore)?.ok()?;
    guest.forget();
    let reverted = Guest::adopt_restored("web")?;
    snapshot::goes_on(host, &reverted, &Saved { before, after }, "the reverted guest")?;
    reverted.ask("verify xvda 1 0 64")?;
    let note = reverted.ask("node-read data/greeting")?;
    host.check_equal("what it wrote to Xenstore is there", &note.as_str(), &"from the guest")?;
    retrieve::check_like_xl(host, &reverted, "after the revert")?;
    Ok(reverted)
}
