//! The Xenstore daemon is replaced under guests that run: stock, ours, ours again, stock again.

use std::time::Duration;

use xsclient::{Client, Endpoint, Nodes, Options, Path, Watch};

use super::Scenario;
use super::xenstored::{goes_on, nodes};
use crate::dom0::{Failure, GuestConfig, Host};
use crate::xenstored::Xenstored;

pub(super) const LIVE_UPDATE: Scenario = Scenario {
    name: "live-update",
    about: "the daemon is replaced under ticking guests: stock by ours, ours by ours, ours by stock",
    limit: Duration::from_mins(20),
    run,
    ..Scenario::PLAIN
};

/// For an event of a watch that was set before.
const EVENT_LIMIT: Duration = Duration::from_mins(1);

fn run(host: &mut Host) -> Result<(), Failure> {
    let raw = host.raw_image("tick", 32)?;
    let qcow2 = host.qcow2_image("tock", 32)?;
    let paravirt = host.create_ticking(
        &GuestConfig::pv("tick")
            .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
            .nic("bridge=xenbr0,mac=00:16:3e:00:09:01"),
    )?;
    let hardware = host.create_ticking(
        &GuestConfig::pvh("tock")
            .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display())),
    )?;
    hardware.ask("fill xvdb 5 0 64")?;
    let mut clients = [
        Since::open("a socket", Endpoint::UnixSocket("/run/xenstored/socket".into()))?,
        Since::open("dom0's kernel", Endpoint::Xenbus("/dev/xen/xenbus".into()))?,
    ];
    for (round, to) in [Xenstored::Ours, Xenstored::Ours, Xenstored::Stock].into_iter().enumerate()
    {
        let before = nodes(host)?;
        let took = host.live_update(to)?;
        let when = format!("update {} (to {})", round + 1, to.name());
        host.figure(&format!("{when}, s"), took.as_secs_f64());
        host.check_equal(&format!("after {when} every node is as before"), &nodes(host)?, &before)?;
        for client in &mut clients {
            client.goes_on(host, &when)?;
        }
        for guest in [&paravirt, &hardware] {
            goes_on(host, guest, &when)?;
        }
        comes_and_goes(host, &when)?;
    }
    hardware.ask("verify xvdb 5 0 64")?;
    paravirt.destroy()?;
    hardware.destroy()
}

/// Domains can still be made and destroyed.
fn comes_and_goes(host: &mut Host, when: &str) -> Result<(), Failure> {
    let guest = host.create_paused(&GuestConfig::pv("visitor").memory(96))?;
    let home = format!("/local/domain/{}", guest.domid());
    guest.destroy()?;
    let left = host.xenstore()?.read_optional(&home.parse()?)?;
    host.check_equal(&format!("after {when} a domain came and went"), &left, &None)
}

/// A client that was there before the first update.
struct Since {
    way: &'static str,
    client: Client,
    watch: Watch,
    node: Path,
}

impl Since {
    fn open(way: &'static str, endpoint: Endpoint) -> Result<Since, Failure> {
        let mut client = Client::open(endpoint, Options::with_timeout(EVENT_LIMIT))?;
        let node: Path = "/tool/lab/since".parse()?;
        let watch = client.watch(node.clone(), None)?;
        Ok(Since { way, client, watch, node })
    }

    /// Its connection and its watch are there still.
    fn goes_on(&mut self, host: &mut Host, when: &str) -> Result<(), Failure> {
        // What came of the watch itself, and of earlier rounds.
        while self.client.next_event(&self.watch, Duration::ZERO)?.is_some() {}
        host.xenstore()?.write(&self.node, when.as_bytes())?;
        let event = self.client.next_event(&self.watch, EVENT_LIMIT)?;
        let what =
            format!("after {when} a watch by {} that was set before tells of a write", self.way);
        host.check(&what, event.is_some())?;
        let read = self.client.read_text(&self.node)?;
        host.check_equal(&format!("by {} it is read", self.way), &read.as_str(), &when)
    }
}
