//! The example of `docs/lab.md`.

use std::time::Duration;

use super::Scenario;
use crate::dom0::{Failure, GuestConfig, Host};

pub(super) const RENAME: Scenario = Scenario {
    name: "rename",
    about: "a guest keeps its new name",
    limit: Duration::from_mins(3),
    run,
    ..Scenario::PLAIN
};

fn run(host: &mut Host) -> Result<(), Failure> {
    let disk = host.raw_image("web", 64)?;
    let disk = format!("format=raw,vdev=xvda,access=rw,target={}", disk.display());
    let guest = host.create_ticking(&GuestConfig::pv("web").disk(&disk))?;
    guest.ask("fill xvda 7 0 64")?; // the guest writes 64 blocks of pattern 7, past its cache
    host.xl(&["rename", "web", "shop"])?;
    let name = host.domkeep_config(guest.domid())?["c_info"]["name"].clone();
    host.check_equal("the name is the new one", &name, &"shop".into())?;
    guest.ask("verify xvda 7 0 64")?;
    guest.ticks_on()?; // two more ticks
    guest.destroy()
}
