//! The Xenstore daemon dies, is started again on the store that it kept, and the host goes on.

use std::time::Duration;

use xsclient::Nodes;

use super::Scenario;
use super::xenstored::{goes_on, nodes};
use crate::dom0::{Failure, Guest, GuestConfig, Host};
use crate::xenstored::Xenstored;

pub(super) const KILL: Scenario = Scenario {
    name: "xenstored-kill",
    about: "kill -9 of domkeep's daemon and a restart on its database: guests and dom0's tools go on",
    limit: Duration::from_mins(20),
    run,
    xenstored: Xenstored::OursKept,
    ..Scenario::PLAIN
};

const KILLS: usize = 2;

fn run(host: &mut Host) -> Result<(), Failure> {
    if host.xenstored() != Xenstored::OursKept {
        let why = format!("a store that is not kept is lost ({})", host.xenstored().name());
        return Err(Failure::Skipped(why));
    }
    let raw = host.raw_image("survivor", 32)?;
    let qcow2 = host.qcow2_image("served", 32)?;
    let survivor = host.create_ticking(
        &GuestConfig::pv("survivor")
            .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display())),
    )?;
    let served = host.create_ticking(
        &GuestConfig::pvh("served")
            .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display())),
    )?;
    served.ask("fill xvdb 3 0 64")?;
    for kill in 1..=KILLS {
        let when = format!("kill {kill}");
        let before = nodes(host)?;
        host.kill_xenstored()?;
        host.check(
            &format!("after {when} nobody serves"),
            host.domkeep(&["--xenstore", "/run/xenstored/socket", "xenstore", "ls"])?.ok().is_err(),
        )?;
        host.start_xenstored()?;
        // Its connection to Xenstore is lost, so it has ended.
        host.restart_xenconsoled()?;
        host.check_equal(&format!("after {when} every node is there"), &nodes(host)?, &before)?;
        for guest in [&survivor, &served] {
            goes_on(host, guest, &when)?;
        }
        another(host, &when)?;
    }
    while_it_is_asked(host, &survivor)?;
    served.ask("verify xvdb 3 0 64")?;
    for guest in [survivor, served] {
        let home = format!("/local/domain/{}", guest.domid());
        let name = guest.name().to_owned();
        guest.destroy()?;
        let left = host.xenstore()?.read_optional(&home.parse()?)?;
        host.check_equal(&format!("{name} is destroyed without a trace"), &left, &None)?;
    }
    Ok(())
}

/// A guest that is created, obeys, and is destroyed.
fn another(host: &mut Host, when: &str) -> Result<(), Failure> {
    let guest = host.create_ticking(&GuestConfig::pv("another"))?;
    guest.ask("ping")?;
    guest.destroy()?;
    host.check(&format!("after {when} another guest came and went"), true)
}

/// Killed while a guest asks without a pause.
fn while_it_is_asked(host: &mut Host, guest: &Guest) -> Result<(), Failure> {
    // Messages that are longer than the ring: the daemon dies in the middle of one.
    guest.ask("flood-start 2 1000")?;
    guest.ticks_on()?;
    host.kill_xenstored()?;
    host.start_xenstored()?;
    host.restart_xenconsoled()?;
    let told = guest.ask("flood-stop")?;
    host.step(&format!("of the requests at the kill: {told} (done, refused)"));
    goes_on(host, guest, "a kill between requests")
}
