//! Killed at every step: a recovery undoes it, or completes it, and the guest that goes on has found nothing wrong.

use std::collections::BTreeMap;
use std::env;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Signal, getpid, kill_process};
use snapshot::control::DomainState;
use snapshot::crash_steps::at_every_step;
use snapshot::recover::{Recovered, recover};
use snapshot::restore::{NewIdentity, RestoreMode};
use snapshot::{Observer, Snapshot, plan_restore, restore};

use super::saved::{DIRECTORY, Memory, Saved, request, saved, with_host};

const STEP: &str = "DOMKEEP_TEST_RESTORE_STEP";
const REPLACE: &str = "DOMKEEP_TEST_RESTORE_REPLACE";

#[test]
#[ignore = "a program that restores until it is killed, which other tests start"]
fn killed_restorer_program() {
    let (Some(directory), Some(step)) = (env::var_os(DIRECTORY), env::var_os(STEP)) else { return };
    let (directory, step) = (PathBuf::from(directory), step.to_str().unwrap().parse::<u32>());
    let step = step.unwrap();
    let manifest = std::fs::read_to_string(directory.join("manifest")).unwrap();
    let mut request = request(Snapshot::from_json(&manifest).unwrap(), &directory, "copy");
    if let Some(free_first) = env::var_os(REPLACE) {
        request.identity = NewIdentity::default();
        let domain = request.snapshot.domain.identity;
        request.mode = RestoreMode::Replace { domain, free_first: free_first == "free-first" };
    }
    with_host(&directory.join("host"), |access| {
        let plan = plan_restore(access, request).unwrap();
        let mut reached = 0;
        at_every_step(move |_| {
            reached += 1;
            if reached == step {
                kill_process(getpid(), Signal::KILL).unwrap();
            }
        });
        restore(access, plan, &mut Observer::none()).unwrap();
    });
}

/// Whether it was killed.
fn killed(saved: &Saved, step: u32, replace: Option<&str>) -> bool {
    std::fs::write(saved.path("manifest"), saved.snapshot.to_json().unwrap()).unwrap();
    let mut program = Command::new(env::current_exe().unwrap());
    program.args(["--ignored", "--exact", "restore::killed::killed_restorer_program"]);
    program.env(DIRECTORY, saved.directory.path()).env(STEP, step.to_string());
    replace.map(|how| program.env(REPLACE, how));
    let status = program.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(status.success() || status.signal() == Some(Signal::KILL.as_raw()), "{status}");
    !status.success()
}

/// Kills a restore at each of its steps. Gives how often it was undone, and how often completed.
fn kill_everywhere(test: &str, replace: Option<&str>) -> Option<(u32, u32)> {
    let (mut undone, mut completed) = (0, 0);
    for step in 1.. {
        let saved = saved(test, Memory::Packed)?;
        let before = saved.files();
        if !killed(&saved, step, replace) {
            assert!(step > 10, "there are more steps than {step}");
            break;
        }
        let journal = saved.path("copy-journal");
        if !journal.exists() {
            saved.nothing_but_the_original();
            continue;
        }
        let again = || saved.with(|access| recover(access, &journal, &mut Observer::none()));
        let recovered = again().unwrap();
        let domains = saved.domains();
        match recovered {
            Recovered::NothingDone | Recovered::RolledBack { .. } => {
                undone += 1;
                let mut files = saved.files();
                files.retain(|name| name != "copy-journal" && name != "manifest");
                assert_eq!(files, before, "step {step}");
                if domains.is_empty() {
                    assert_eq!(replace, Some("free-first"), "step {step}: there is no domain");
                } else {
                    saved.nothing_but_the_original();
                }
            }
            Recovered::Restored(restored) => {
                completed += 1;
                let running = |name: &&str| ((*name).to_owned(), DomainState::Running);
                let names: &[&str] = if replace.is_some() { &["web"] } else { &["copy", "web"] };
                assert_eq!(domains, names.iter().map(running).collect::<BTreeMap<_, _>>());
                saved.ticks(&restored.domain.unwrap());
                saved.frozen_is_as_it_was();
            }
            other => panic!("step {step}: {other:?}"),
        }
        again().unwrap();
        assert_eq!(saved.domains(), domains, "step {step}: a second recovery changes nothing");
    }
    Some((undone, completed))
}

#[test]
fn a_restore_beside_the_original_that_is_killed_is_undone_or_completed() {
    const TEST: &str = "a_restore_beside_the_original_that_is_killed_is_undone_or_completed";
    let Some((undone, completed)) = kill_everywhere(TEST, None) else { return };
    assert!(undone > 5 && completed > 2, "{undone} undone, {completed} completed");
}

#[test]
fn a_restore_in_the_place_of_the_original_that_is_killed_is_undone_or_completed() {
    const TEST: &str =
        "a_restore_in_the_place_of_the_original_that_is_killed_is_undone_or_completed";
    for how in ["after", "free-first"] {
        let Some((undone, completed)) = kill_everywhere(TEST, Some(how)) else { return };
        assert!(undone > 5 && completed > 2, "{how}: {undone} undone, {completed} completed");
    }
}
