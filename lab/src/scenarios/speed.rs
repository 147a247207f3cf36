//! The time that domkeep and xl take to list the same domains.

use std::process::Command;
use std::time::Duration;

use super::{Scenario, retrieve};
use crate::dom0::{Failure, GuestConfig, Host, run as run_program};

pub(super) const SPEED: Scenario = Scenario {
    name: "speed",
    about: "the time of `domkeep list -l` and of `xl list -l` for the same domains, few and many",
    limit: Duration::from_mins(10),
    run,
    ..Scenario::PLAIN
};

/// Of each program, in turns.
const RUNS: usize = 9;
/// Domains beside the one that ticks. They are paused, so that they take no time from what is measured.
const OTHERS: u32 = 8;
/// Of each of those: enough for the kernel and its first file system.
const OTHERS_MEBIBYTES: u32 = 96;
const LIMIT: Duration = Duration::from_mins(2);

fn run(host: &mut Host) -> Result<(), Failure> {
    let raw = host.raw_image("web", 64)?;
    let qcow2 = host.qcow2_image("web", 64)?;
    let config = GuestConfig::pv("web")
        .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", raw.display()))
        .disk(&format!("format=qcow2,vdev=xvdb,access=rw,target={}", qcow2.display()))
        .nic("bridge=xenbr0,mac=00:16:3e:00:02:01");
    let guest = host.create_ticking(&config)?;
    retrieve::check_like_xl(host, &guest, "with one guest")?;
    compare(host, "one guest")?;
    let mut others = Vec::new();
    for number in 0..OTHERS {
        let name = format!("other{number}");
        let image = host.raw_image(&name, 16)?;
        let config = GuestConfig::pv(&name)
            .memory(OTHERS_MEBIBYTES)
            .disk(&format!("format=raw,vdev=xvda,access=rw,target={}", image.display()))
            .nic("bridge=xenbr0");
        others.push(host.create_paused(&config)?);
    }
    retrieve::check_like_xl(host, &guest, "with nine guests")?;
    compare(host, "nine guests")?;
    guest.ticks_on()?;
    guest.destroy()
}

/// Told, not asserted: a ratio depends on the machine.
fn compare(host: &mut Host, domains: &str) -> Result<(), Failure> {
    // The lab's xenstored writes down every request, octet by octet: that is not what a host's does.
    host.xenstore()?.control(&["log", "off"])?;
    let mut programs =
        [("domkeep", &["list", "-l"][..]), ("xl", &["list", "-l"]), ("domkeep", &["--version"])]
            .map(|(program, words)| (program, words, Vec::new()));
    for _ in 0..RUNS {
        for (program, words, times) in &mut programs {
            let ran = run_program(Command::new(program).args(*words), LIMIT)?.ok()?;
            times.push(ran.took.as_secs_f64());
        }
    }
    host.xenstore()?.control(&["log", "on"])?;
    let [ours, theirs, start] = programs.map(|(program, words, times)| {
        let median = median(times);
        host.figure(&format!("{domains}: {program} {}, seconds", words.join(" ")), median);
        median
    });
    host.figure(&format!("{domains}: domkeep list -l, times faster than xl"), theirs / ours);
    let beyond_start = theirs / (ours - start).max(f64::EPSILON);
    host.figure(&format!("{domains}: the same without the start of domkeep"), beyond_start);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_make_the_time() {
        assert!((median(vec![0.1, 9.0, 0.2]) - 0.2).abs() < 1e-9);
    }
}
