//! The host, as a scenario sees it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use xsclient::{Client, DomId};

use super::console::{Console, panics};
use super::guest::{XL_LIMIT, client, xl};
use super::{Failure, Guest, GuestConfig, Ran, differences, run};
use crate::report::{Outcome, Report};

/// For one run of domkeep that does not say otherwise.
const DOMKEEP_LIMIT: Duration = Duration::from_mins(3);
/// How often a guest is created before it is believed that the emulation is not to blame.
const CREATED_AT_MOST: u32 = 4;
/// How the hypervisor's log shows a guest at an address of the hypervisor's own code: the guest did not get there by itself.
const HYPERVISORS_ADDRESS: &str = "[<ffff82d0";
/// How many differences a failure names.
const DIFFERENCES_QUOTED: usize = 10;

/// The Xen host that a scenario runs on. It is new for every scenario, and nothing of it is kept but what is on the share.
#[derive(Debug)]
pub struct Host {
    scenario: String,
    started: Instant,
    checks: Vec<String>,
    figures: BTreeMap<String, f64>,
    may_panic: Vec<Console>,
}

impl Host {
    /// The host that this program runs on.
    pub fn new(scenario: &str) -> Host {
        Host {
            scenario: scenario.to_owned(),
            started: Instant::now(),
            checks: Vec::new(),
            figures: BTreeMap::new(),
            may_panic: Vec::new(),
        }
    }

    /// Says what is being done, in the scenario's output.
    pub fn step(&self, what: &str) {
        println!("[{:6.1}] {what}", self.started.elapsed().as_secs_f64());
    }

    /// Ends the scenario if `what` does not hold.
    pub fn check(&mut self, what: &str, holds: bool) -> Result<(), Failure> {
        self.step(&format!("{} {what}", if holds { "holds:" } else { "DOES NOT HOLD:" }));
        if !holds {
            return Err(Failure::because(format!("does not hold: {what}")));
        }
        self.checks.push(what.to_owned());
        Ok(())
    }

    /// Ends the scenario if what was found is something else.
    pub fn check_equal<T: PartialEq + Debug>(
        &mut self,
        what: &str,
        found: &T,
        expected: &T,
    ) -> Result<(), Failure> {
        self.check(what, found == expected).map_err(|_| {
            Failure::because(format!("{what}: found {found:?}, expected {expected:?}"))
        })
    }

    /// Ends the scenario if two documents differ, and says where.
    pub fn check_same(&mut self, what: &str, ours: &Value, theirs: &Value) -> Result<(), Failure> {
        let found = differences(ours, theirs);
        self.check(what, found.is_empty()).map_err(|_| {
            let quoted = &found[..found.len().min(DIFFERENCES_QUOTED)];
            Failure::because(format!("{what}: {}", quoted.join("; ")))
        })
    }

    /// Keeps a measurement in the report.
    pub fn figure(&mut self, name: &str, value: f64) {
        self.step(&format!("figure: {name} = {value:.3}"));
        self.figures.insert(name.to_owned(), value);
    }

    /// Creates a guest with xl. It runs, and has not ticked yet.
    pub fn create(&mut self, config: &GuestConfig) -> Result<Guest, Failure> {
        self.step(&format!("create {}", config.name()));
        Guest::create(config)
    }

    /// Creates a guest with xl that does not run until somebody unpauses it.
    pub fn create_paused(&mut self, config: &GuestConfig) -> Result<Guest, Failure> {
        self.step(&format!("create {}, paused", config.name()));
        Guest::create_paused(config)
    }

    /// Creates a guest with xl, and waits for its third tick and until it takes commands. One that the emulation kills
    /// meanwhile is created again.
    pub fn create_ticking(&mut self, config: &GuestConfig) -> Result<Guest, Failure> {
        for _ in 1..CREATED_AT_MOST {
            let faults = emulation_faults()?;
            let created = self.try_create_ticking(config);
            if emulation_faults()? == faults {
                return created;
            }
            self.step(&format!("the emulation has killed {}: once more", config.name()));
        }
        self.try_create_ticking(config)
    }

    fn try_create_ticking(&mut self, config: &GuestConfig) -> Result<Guest, Failure> {
        let guest = self.create(config)?;
        guest.wait_for_tick(3)?;
        guest.wait_until_it_obeys()?;
        guest.ask("ping")?;
        self.step(&format!("{} ticks, domain {}", guest.name(), guest.domid()));
        Ok(guest)
    }

    /// The kernel of this guest may panic: the scenario has it do so.
    pub fn may_panic(&mut self, guest: &Guest) {
        self.may_panic.push(guest.console().clone());
    }

    /// Runs xl, which has to succeed.
    pub fn xl(&self, arguments: &[&str]) -> Result<Ran, Failure> {
        xl(arguments)
    }

    /// Runs xl, however it ends.
    pub fn xl_either(&self, arguments: &[&str]) -> Result<Ran, Failure> {
        run(Command::new("xl").args(arguments), XL_LIMIT)
    }

    /// Runs domkeep, however it ends.
    pub fn domkeep(&self, arguments: &[&str]) -> Result<Ran, Failure> {
        run(Command::new("domkeep").args(arguments), DOMKEEP_LIMIT)
    }

    /// Runs `domkeep --json`, which has to end with status 0 and print JSON.
    pub fn domkeep_json(&self, arguments: &[&str]) -> Result<Value, Failure> {
        let mut command = Command::new("domkeep");
        run(command.arg("--json").args(arguments), DOMKEEP_LIMIT)?.ok()?.json()
    }

    /// The configuration of a domain as `xl list -l` has it.
    pub fn xl_config(&self, domid: DomId) -> Result<Value, Failure> {
        let all = self.xl(&["list", "-l"])?.json()?;
        config_of(&all, domid)
    }

    /// The configuration of a domain as `domkeep list -l` has it.
    pub fn domkeep_config(&self, domid: DomId) -> Result<Value, Failure> {
        let all = self.domkeep(&["list", "-l"])?.ok()?.json()?;
        config_of(&all, domid)
    }

    /// The whole answer of `domkeep retrieve --report`: `config`, `revision` and `report`.
    pub fn retrieve(&self, domid: DomId) -> Result<Value, Failure> {
        self.domkeep_json(&["retrieve", &domid.to_string(), "--report"])
    }

    /// A client of the host's own Xenstore.
    pub fn xenstore(&self) -> Result<Client, Failure> {
        client()
    }

    /// Makes a raw disk image of so many MiB, all zeros, and gives its path.
    pub fn raw_image(&self, name: &str, mebibytes: u64) -> Result<PathBuf, Failure> {
        let path = self.disks()?.join(format!("{name}.raw"));
        fs::File::create_new(&path)?.set_len(mebibytes << 20)?;
        Ok(path)
    }

    /// Makes an empty qcow2 image of so many MiB, and gives its path.
    pub fn qcow2_image(&self, name: &str, mebibytes: u64) -> Result<PathBuf, Failure> {
        let path = self.disks()?.join(format!("{name}.qcow2"));
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg(format!("{mebibytes}M"));
        run(&mut command, XL_LIMIT)?.ok()?;
        Ok(path)
    }

    /// A directory on the host's disk, not on the share: hypervisor pages can be written there.
    pub fn work(&self) -> PathBuf {
        "/lab/work".into()
    }

    fn disks(&self) -> Result<PathBuf, Failure> {
        let directory = PathBuf::from("/lab/disks");
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }

    /// What is to be told of the scenario. A guest whose kernel panicked fails it, whether or not a step noticed.
    pub fn report(self, outcome: Result<(), Failure>) -> Report {
        let outcome = outcome.and_then(|()| match panics(&self.may_panic)?.as_slice() {
            [] => Ok(()),
            panics => Err(Failure::because(panics.join("; "))),
        });
        Report {
            scenario: self.scenario,
            outcome: match outcome {
                Ok(()) => Outcome::Passed,
                Err(Failure::Failed(reason)) => Outcome::Failed(reason),
                Err(Failure::Skipped(reason)) => Outcome::Skipped(reason),
            },
            seconds: self.started.elapsed().as_secs_f64(),
            checks: self.checks,
            figures: self.figures,
        }
    }
}

/// How many guests the emulation has killed on this host.
fn emulation_faults() -> Result<usize, Failure> {
    let log = xl(&["dmesg"])?.stdout;
    let faults = log.lines().filter(|line| line.contains("RIP:"));
    Ok(faults.filter(|line| line.contains(HYPERVISORS_ADDRESS)).count())
}

/// Out of a list as `xl list -l` prints it.
fn config_of(all: &Value, domid: DomId) -> Result<Value, Failure> {
    let entries = all.as_array().map(Vec::as_slice).unwrap_or_default();
    let found = entries.iter().find(|entry| entry["domid"] == u64::from(domid.get()));
    let config = found.and_then(|entry| entry.get("config"));
    config.cloned().ok_or_else(|| {
        Failure::because(format!("domain {domid} has no configuration in the list: {found:?}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(outcome: Result<(), Failure>) -> String {
        match outcome {
            Err(Failure::Failed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_check_that_does_not_hold_ends_the_scenario_and_is_not_among_those_that_held() {
        let mut host = Host::new("s");
        host.check("one and one", 1 + 1 == 2).unwrap();
        assert!(reason(host.check("two and two", 2 + 2 == 5)).contains("two and two"));
        assert!(reason(host.check_equal("sum", &4, &5)).contains("sum: found 4, expected 5"));
        let unlike = host.check_same("json", &json!({"a": 1}), &json!({"a": 2}));
        assert!(reason(unlike).contains("$.a: 1 here, 2 there"));
        assert_eq!(host.checks, ["one and one"]);
    }

    #[test]
    fn a_domain_that_a_list_shows_without_configuration_is_a_failure() {
        let all = json!([{"domid": 3, "error": "its template is locked"}]);
        assert!(config_of(&all, DomId::new(3)).is_err());
        assert!(config_of(&all, DomId::new(4)).is_err());
    }
}
