//! How far a command is: a bar on stderr if a person looks at it, and nothing otherwise.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use snapshot::{Phase, Progress};

use crate::output::Output;

/// A phase with octets to be counted.
const WITH_TOTAL: &str =
    "{prefix:>10} [{bar:30}] {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
/// A phase whose end nobody knows.
const WITHOUT_TOTAL: &str = "{prefix:>10} {spinner} {bytes}  {bytes_per_sec}";
/// A phase without octets.
const STEP: &str = "{prefix:>10} {spinner}";

/// A bar, or none.
pub(super) struct Bar {
    bar: ProgressBar,
    phase: Option<Phase>,
    template: &'static str,
}

impl Bar {
    /// Answers for a program have none.
    pub(super) fn new(output: &Output) -> Self {
        let seen = !output.is_json() && io::stderr().is_terminal();
        let target = if seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(None, target);
        let mut it = Self { bar, phase: None, template: "" };
        it.styled(STEP);
        it
    }

    /// Shows the progress of a call.
    pub(super) fn show(&mut self, progress: &Progress) {
        if self.phase != Some(progress.phase) {
            self.phase = Some(progress.phase);
            self.bar.set_prefix(progress.phase.to_string());
            self.bar.reset();
        }
        self.advance(progress.done, progress.total);
    }

    /// Names what is done from now on, with octets to be counted.
    pub(super) fn name(&mut self, what: &'static str) {
        self.bar.set_prefix(what);
        self.styled(WITH_TOTAL);
    }

    /// So many octets are done.
    pub(super) fn advance(&mut self, done: u64, total: Option<u64>) {
        match total {
            Some(total) => {
                self.bar.set_length(total.max(done));
                self.styled(WITH_TOTAL);
            }
            None => self.styled(if done > 0 { WITHOUT_TOTAL } else { STEP }),
        }
        self.bar.set_position(done);
    }

    /// For whoever counts octets elsewhere, in whatever thread.
    pub(super) fn counter(&self) -> Counter {
        Counter(self.bar.clone())
    }

    fn styled(&mut self, template: &'static str) {
        if self.template != template {
            self.template = template;
            // A template that indicatif does not take leaves its own style, which shows as much.
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style.progress_chars("=> "));
            }
        }
    }
}

/// What is printed next is not for the bar's line.
impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Counts for a bar.
#[derive(Clone)]
pub(super) struct Counter(ProgressBar);

impl Counter {
    /// How many octets there will be.
    pub(super) fn expect(&self, total: u64) {
        self.0.set_length(total);
    }

    /// So many are done.
    pub(super) fn reached(&self, octets: u64) {
        self.0.set_position(octets);
    }
}
