//! Scenarios run one by one, each on a host of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::boot::{self, Ended, Job};
use super::{Image, LabError, ring_module};
use crate::report::{self, Outcome, Report};
use crate::scenarios::Scenario;
use crate::xenstored::Xenstored;

/// The lab of a workspace.
#[derive(Clone, Debug)]
pub struct Lab {
    image: Image,
    cache: PathBuf,
    results: PathBuf,
    programs: PathBuf,
    patience: u32,
    /// Instead of what scenarios say.
    xenstored: Option<Xenstored>,
}

/// The programs that the host has beside Debian's.
const PROGRAMS: &[&str] = &["domkeep", "xenstored", "lab-dom0"];
const GUEST: &str = "lab-guest";
/// For a boot until the script starts: ten seconds on an idle machine, three minutes where six compilers run beside it.
const BOOT_LIMIT: Duration = Duration::from_mins(5);
/// How many lines of a guest's console a failure shows.
const TAIL_LINES: usize = 15;

impl Lab {
    /// In the directory `lab`, which is made if it is not there. `programs` is where cargo put the workspace's own. Limits
    /// are multiplied by `patience`.
    pub fn open(lab: &Path, programs: &Path, patience: u32) -> Result<Lab, LabError> {
        let cache = lab.join("cache");
        let image = Image::build(&cache)?;
        let results = std::path::absolute(lab.join("results")).map_err(LabError::file(lab))?;
        fs::create_dir_all(&results).map_err(LabError::file(&results))?;
        Ok(Lab { image, cache, results, programs: programs.to_owned(), patience, xenstored: None })
    }

    /// The same lab, whose hosts all have this daemon.
    #[must_use]
    pub fn with_xenstored(self, xenstored: Option<Xenstored>) -> Lab {
        Lab { xenstored, ..self }
    }

    /// Runs a script on the host, whose output is passed on, and gives its exit status: `None` if it did not end.
    pub fn script(&self, script: &str, limit: Duration) -> Result<Option<i32>, LabError> {
        let (share, _claim) = self.claim("run")?;
        let xenstored = self.xenstored.unwrap_or_default();
        let ended = self.boot(&share, script, limit, None, xenstored)?;
        match &ended {
            Ended::Script(status) => return Ok(Some(*status)),
            Ended::NoStatus(reason) => println!("lab: {reason}"),
            Ended::TimeUp { booted } => println!("lab: {}", time_up(*booted)),
        }
        println!("lab: see {}", share.join("logs").display());
        Ok(None)
    }

    /// Runs a scenario. Its report, the logs and the consoles stay in the results' directory under its name; with another
    /// daemon than its own, that is added to the name.
    pub fn scenario(&self, scenario: &Scenario) -> Result<Report, LabError> {
        let xenstored = self.xenstored.unwrap_or(scenario.xenstored);
        let name = if xenstored == scenario.xenstored {
            scenario.name.to_owned()
        } else {
            format!("{}-{}", scenario.name, xenstored.name())
        };
        let (share, _claim) = self.claim(&name)?;
        let before = Instant::now();
        let report = match self.ring_module(scenario)? {
            Ok(module) => {
                let script = format!("exec /lab/bin/lab-dom0 {}", scenario.name);
                let ended =
                    self.boot(&share, &script, scenario.limit, module.as_deref(), xenstored)?;
                judge(&name, &share, &ended, before.elapsed())
            }
            Err(reason) => Report::of(&name, Outcome::Skipped(reason), 0.0),
        };
        let file = share.join(report::FILE);
        let text =
            serde_json::to_string_pretty(&report).expect("a report holds strings and numbers");
        fs::write(&file, text + "\n").map_err(LabError::file(&file))?;
        if let Outcome::Failed(reason) = &report.outcome {
            println!("lab: {name} failed: {reason}");
            show_consoles(&share.join("logs/console"));
            println!("lab: logs and consoles are in {}", share.join("logs").display());
        }
        Ok(report)
    }

    /// The module for the scenario's guests, if they need it; or why this machine cannot build it.
    fn ring_module(
        &self,
        scenario: &Scenario,
    ) -> Result<Result<Option<PathBuf>, String>, LabError> {
        if !scenario.spoils_rings {
            return Ok(Ok(None));
        }
        match ring_module::build(&self.image, &self.cache) {
            Ok(module) => Ok(Ok(Some(module))),
            Err(LabError::Unavailable(reason)) => {
                let cause = std::error::Error::source(&reason);
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                Ok(Err(format!("no module for its guests: {reason}{cause}")))
            }
            Err(other) => Err(other),
        }
    }

    fn boot(
        &self,
        share: &Path,
        script: &str,
        limit: Duration,
        ring_module: Option<&Path>,
        xenstored: Xenstored,
    ) -> Result<Ended, LabError> {
        let programs: Vec<_> = PROGRAMS.iter().map(|name| self.programs.join(name)).collect();
        let guest = self.programs.join(GUEST);
        let limit = (BOOT_LIMIT + limit) * self.patience;
        let (programs, guest) = (programs.as_slice(), guest.as_path());
        let job = Job { script, programs, guest, ring_module, xenstored, limit };
        boot::run(&self.image, share, &job)
    }

    /// A new and empty directory for the results of `name`, and what keeps it from other labs: if one is at it right now,
    /// another name is taken.
    fn claim(&self, name: &str) -> Result<(PathBuf, File), LabError> {
        for number in 1.. {
            let name = if number == 1 { name.to_owned() } else { format!("{name}-{number}") };
            let lock = self.results.join(format!(".{name}.lock"));
            let file = File::create(&lock).map_err(LabError::file(&lock))?;
            if file.try_lock().is_err() {
                continue;
            }
            let directory = self.results.join(name);
            if directory.exists() {
                fs::remove_dir_all(&directory).map_err(LabError::file(&directory))?;
            }
            fs::create_dir(&directory).map_err(LabError::file(&directory))?;
            return Ok((directory, file));
        }
        unreachable!("the numbers do not end")
    }
}

/// What the host told, or what became of it.
fn judge(name: &str, share: &Path, ended: &Ended, took: Duration) -> Report {
    let failed = |reason| Report::of(name, Outcome::Failed(reason), took.as_secs_f64());
    let told = fs::read_to_string(share.join(report::FILE)).ok();
    let told = told.and_then(|text| serde_json::from_str::<Report>(&text).ok());
    match (ended, told) {
        (Ended::TimeUp { booted }, _) => failed(time_up(*booted)),
        (Ended::NoStatus(reason), _) => failed(reason.clone()),
        (Ended::Script(status), None) => failed(format!("no report was left (status {status})")),
        // A program that says `passed` and then ends badly has not passed.
        (Ended::Script(status), Some(report))
            if *status != 0 && !matches!(report.outcome, Outcome::Failed(_)) =>
        {
            failed(format!("the scenario's program ended with status {status}"))
        }
        // By this machine's clock, which no emulation slows down, and with the boot.
        (Ended::Script(_), Some(report)) => {
            Report { scenario: name.to_owned(), seconds: took.as_secs_f64(), ..report }
        }
    }
}

fn time_up(booted: bool) -> String {
    if booted { "the time was up" } else { "the time was up before the host had booted" }.to_owned()
}

fn show_consoles(directory: &Path) {
    let Ok(consoles) = fs::read_dir(directory) else { return };
    for console in consoles.filter_map(Result::ok).map(|entry| entry.path()) {
        if !console.file_name().is_some_and(|name| name.to_string_lossy().starts_with("guest-")) {
            continue; // of the hypervisor, which xenconsoled keeps too
        }
        let text = fs::read(&console).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        println!("---- the end of {}", console.display());
        for line in &lines[lines.len().saturating_sub(TAIL_LINES)..] {
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: Duration = Duration::from_secs(3);

    fn judged(report: Option<&str>, ended: &Ended) -> Outcome {
        let share = tempfile::tempdir().unwrap();
        if let Some(report) = report {
            fs::write(share.path().join(report::FILE), report).unwrap();
        }
        judge("smoke", share.path(), ended, TOOK).outcome
    }

    const PASSED: &str = r#"{"scenario":"smoke","outcome":"passed","seconds":1.5,"checks":["a"],"figures":{"x":2.0}}"#;

    #[test]
    fn a_report_is_believed_only_if_its_program_and_host_ended_well() {
        assert_eq!(judged(Some(PASSED), &Ended::Script(0)), Outcome::Passed);
        for ended in [
            Ended::Script(101),
            Ended::TimeUp { booted: true },
            Ended::NoStatus("the host went down by itself".into()),
        ] {
            let outcome = judged(Some(PASSED), &ended);
            assert!(matches!(outcome, Outcome::Failed(_)), "{ended:?}: {outcome:?}");
        }
    }

    #[test]
    fn no_report_and_a_broken_one_are_failures() {
        for report in [None, Some("{\"scenario\":\"smoke\",\"outc")] {
            let outcome = judged(report, &Ended::Script(0));
            assert_eq!(outcome, Outcome::Failed("no report was left (status 0)".into()));
        }
    }

    #[test]
    fn a_failed_check_keeps_its_reason() {
        let report = PASSED.replace("\"passed\"", r#"{"failed":"tick 4 did not come"}"#);
        let outcome = judged(Some(&report), &Ended::Script(1));
        assert_eq!(outcome, Outcome::Failed("tick 4 did not come".into()));
    }
}
