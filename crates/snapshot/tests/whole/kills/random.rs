//! Kills at random moments of saves and restores.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::judge::{self, Outcome, When};
use super::program::{Kill, Task, Work};
use super::world::{World, available};
use super::{Origin, format_of};

/// How many kills, if not as many as are run before a release.
const KILLS: &str = "DOMKEEP_KILLS";
const KILLS_DEFAULT: u32 = 24;
/// What the moments are drawn from; another one may be given to look for others.
const SEED: &str = "DOMKEEP_KILLS_SEED";

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text:?}")),
        Err(_) => default,
    }
}

/// SplitMix64: moments need no better one.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

/// How long it takes from its beginning when nobody kills it, as far as is known: the machine is not always as fast.
#[derive(Debug)]
struct Measured(Duration);

impl Measured {
    fn by(task: &Task) -> Self {
        let (mut child, began) = (task.start(), Instant::now());
        assert!(child.wait().unwrap().success());
        Self(began.elapsed())
    }

    /// Kills it a random time after it began; whether it was killed before it had ended.
    fn killed(&mut self, task: &Task, random: &mut Random) -> bool {
        let mut child = task.start();
        let all = u64::try_from(self.0.as_micros()).unwrap_or(u64::MAX);
        // Every second one in the last third, where the commit is.
        let micros = match random.below(2) {
            0 => random.below(all),
            _ => all - random.below(all / 3),
        };
        std::thread::sleep(Duration::from_micros(micros));
        // It may have ended a moment ago; its number is its own until it is waited for.
        let _ = kill_process(Pid::from_child(&child), Signal::KILL);
        let was_killed = task.ended(child.wait().unwrap()).is_some();
        // So that some end before they are killed, and not many do.
        self.0 = if was_killed { self.0.mul_f64(1.01) } else { self.0.mul_f64(0.93) };
        was_killed
    }
}

#[derive(Debug, Default)]
struct Counts {
    rolled_back: u32,
    completed: u32,
    /// Not counted as kills.
    ended_before: u32,
}

impl Counts {
    fn kills(&self) -> u32 {
        self.rolled_back + self.completed
    }

    fn count(&mut self, outcome: Outcome, was_killed: bool) {
        match outcome {
            _ if !was_killed => self.ended_before += 1,
            Outcome::RolledBack => self.rolled_back += 1,
            Outcome::Completed => self.completed += 1,
        }
    }
}

fn saves(kills: u32, random: &mut Random) -> Counts {
    let world = World::start();
    let task = |round: u32| {
        let name = format!("web-{round}");
        let files = world.files(&name);
        let work =
            Work::Save { domain: world.running(&name, &files), saving: format_of(round).into() };
        Task { host: world.path().to_owned(), files, work, kill: Kill::Never }
    };
    let mut measured = Measured::by(&task(u32::MAX));
    let mut counts = Counts::default();
    for round in 0.. {
        if counts.kills() == kills {
            break;
        }
        let task = task(round);
        let was_killed = measured.killed(&task, random);
        let Work::Save { domain, saving } = &task.work else { unreachable!("it is a save") };
        let when = if random.below(2) == 0 { When::AfterGuardian } else { When::BesideGuardian };
        counts.count(judge::save(&world, &task.files, domain, *saving, when), was_killed);
    }
    println!("{kills} saves killed, of {} ms: {counts:?}", measured.0.as_millis());
    counts
}

fn restores(kills: u32, random: &mut Random) -> Counts {
    let origin = Origin::new();
    let files = |round: u32| origin.world.files(&format!("restored-{round}"));
    let first = origin.task(files(u32::MAX), Some(origin.domain), Kill::Never);
    let mut measured = Measured::by(&first);
    let is_replacing = true;
    let (_, mut current) =
        judge::restore(&origin.world, &first.files, &origin.snapshot, origin.domain, is_replacing);
    let mut counts = Counts::default();
    for round in 0.. {
        if counts.kills() == kills {
            break;
        }
        let is_replacing = random.below(2) == 0;
        let task = origin.task(files(round), is_replacing.then_some(current), Kill::Never);
        let was_killed = measured.killed(&task, random);
        let (outcome, now) =
            judge::restore(&origin.world, &task.files, &origin.snapshot, current, is_replacing);
        current = now;
        counts.count(outcome, was_killed);
    }
    origin.is_whole();
    println!("{kills} restores killed, of {} ms: {counts:?}", measured.0.as_millis());
    counts
}

#[test]
fn whatever_moment_a_save_or_restore_is_killed_at_it_is_undone_or_completed() {
    const TEST: &str = "whatever_moment_a_save_or_restore_is_killed_at_it_is_undone_or_completed";
    if !available(TEST) {
        return;
    }
    let kills = u32::try_from(number(KILLS, KILLS_DEFAULT.into())).unwrap();
    let seed = number(SEED, 4);
    println!("{KILLS}={kills} {SEED}={seed}");
    let (saves, restores) = std::thread::scope(|scope| {
        let saves = scope.spawn(|| saves(kills.div_ceil(2), &mut Random(seed)));
        let restores = scope.spawn(|| restores(kills / 2, &mut Random(seed ^ 1)));
        (saves.join(), restores.join())
    });
    let (saves, restores) = (saves.unwrap(), restores.unwrap());
    assert_eq!(saves.kills() + restores.kills(), kills);
}
