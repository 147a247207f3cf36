//! One boot with the main job of each crate.

use std::time::Duration;

use super::{Scenario, retrieve};
use crate::dom0::{Failure, GuestConfig, Host};

pub(super) const SMOKE: Scenario = Scenario {
    name: "smoke",
    about: "the main job of each crate in one boot",
    limit: Duration::from_mins(8),
    run,
};

fn run(host: &mut Host) -> Result<(), Failure> {
    let disk = host.raw_image("web", 64)?;
    let config = GuestConfig::pv("web")
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", disk.display()))
        .nic("bridge=xenbr0,mac=00:16:3e:00:00:01");
    let guest = host.create_ticking(&config)?;
    retrieve::check_like_xl(host, &guest, "after creation")?;
    guest.ticks_on()?;
    guest.destroy()
}
