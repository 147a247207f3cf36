//! A guest: it writes to its memory and disks while it runs, and notices when something is not as it left it.

use std::time::{Duration, Instant};

use crate::control::{DomainState, ShutdownReason};
use crate::simulated::content::{self, Head, RECORD_SIZE, RECORDS, STEPS_BEFORE_DISKS};

use super::domain::{Asked, Core, Domain, Shutdown};

/// A guest that never waits would leave the lock to nobody else.
const TICK_MIN: Duration = Duration::from_micros(50);

/// Runs until the domain is gone. Between any two steps the lock is free, so that the domain can be paused there.
pub(super) fn run(domain: &Domain) {
    let pause = Duration::from_micros(domain.spec.tick_us).max(TICK_MIN);
    let mut next_tick = Instant::now();
    loop {
        let mut core = domain.lock();
        while core.state() != DomainState::Running {
            if core.gone {
                return;
            }
            core = domain.wait(core);
        }
        if core.step == 0 {
            if let Some(asked) = core.asked.take() {
                core.shutdown = Some(match asked {
                    Asked::Suspend => Shutdown::Suspend,
                    Asked::Crash => Shutdown::Other(ShutdownReason::Crash),
                });
                domain.notify();
                continue;
            }
            if Instant::now() < next_tick {
                drop(domain.wait_until(core, next_tick));
                continue;
            }
            next_tick = Instant::now() + pause;
        }
        if let Err(wrong) = step(domain, &mut core) {
            core.wrong = Some(wrong);
            core.shutdown = Some(Shutdown::Other(ShutdownReason::Crash));
            domain.notify();
        }
    }
}

/// The next step of the tick; what is wrong, if the guest finds that something is.
fn step(domain: &Domain, core: &mut Core) -> Result<(), String> {
    let Domain { spec, memory, .. } = domain;
    let (tick, next) = (core.tick, core.tick + 1);
    let disks = core.disks.len() as u64;
    let head = |begun, done| Head { spec: spec.clone(), disks, begun, done }.to_page();
    let read = |pfn| memory.read(pfn).map_err(|error| format!("page {pfn}: {error}"));
    let write =
        |pfn, page| memory.write(pfn, &page).map_err(|error| format!("page {pfn}: {error}"));
    let disk_step = core.step.checked_sub(STEPS_BEFORE_DISKS);
    match (core.step, disk_step) {
        (0, _) => {
            if read(0)? != head(tick, tick) {
                return Err(format!("page 0 is not that of tick {tick}"));
            }
            (0..core.disks.len()).try_for_each(|disk| look_at(domain, core, disk))?;
            write(0, head(next, tick))?;
        }
        (step, None) if step < STEPS_BEFORE_DISKS - 1 => {
            let pfn = content::written_in(spec, next).nth(step - 1).unwrap_or_default();
            if read(pfn)? != content::page(spec, disks, pfn, tick) {
                return Err(format!("page {pfn} is not that of tick {tick}"));
            }
            write(pfn, content::page(spec, disks, pfn, next))?;
        }
        (_, None) => write(1, content::page(spec, disks, 1, next))?,
        (_, Some(number)) => match core.disks.get(number) {
            Some(disk) => {
                let record = content::record(spec.seed, number as u64, next);
                let offset = next % RECORDS * RECORD_SIZE as u64;
                let written = disk.backing.write_at(&record, offset);
                written.map_err(|error| format!("disk {}: {error}", disk.spec.vdev))?;
            }
            None => {
                write(0, head(next, next))?;
                (core.tick, core.step) = (next, 0);
                domain.notify();
                return Ok(());
            }
        },
    }
    core.step += 1;
    Ok(())
}

/// The last record must be that of this tick, and the one that will be overwritten must be as old as it should be.
fn look_at(domain: &Domain, core: &Core, number: usize) -> Result<(), String> {
    let disk = &core.disks[number];
    for slot in [core.tick % RECORDS, (core.tick + 1) % RECORDS] {
        let mut record = [0; RECORD_SIZE];
        let read = disk.backing.read_at(&mut record, slot * RECORD_SIZE as u64);
        read.map_err(|error| format!("disk {}: {error}", disk.spec.vdev))?;
        let tick = content::last_in_slot(slot, core.tick);
        if record != content::record(domain.spec.seed, number as u64, tick) {
            let found = content::record_tick(&record);
            let vdev = &disk.spec.vdev;
            return Err(format!("disk {vdev}: slot {slot} holds tick {found}, not {tick}"));
        }
    }
    Ok(())
}
