//! What was measured of each daemon, and whether ours keeps its budget.

use std::error::Error;
use std::fmt;

use super::daemons::Kind;

/// One thing measured once.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    pub(crate) label: String,
    pub(crate) budget: Budget,
    pub(crate) value: f64,
}

/// What is wanted of our figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Budget {
    /// Little is good: at most so many times the smaller of the stock daemons' figures.
    AtMost(f64),
    /// Much is good: at least so many times the greater of the stock daemons' figures.
    AtLeast(f64),
    /// At most so much, whatever the stock daemons' figures are.
    Own(f64),
    /// Nothing; it is shown to explain another.
    Shown,
}

impl Figure {
    pub(crate) fn new(label: impl Into<String>, budget: Budget, value: f64) -> Self {
        Self { label: label.into(), budget, value }
    }
}

/// The figures of one case.
#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

struct Row {
    label: String,
    budget: Budget,
    /// Of each kind, one a round.
    values: [Vec<f64>; Kind::ALL.len()],
}

impl Table {
    /// Adds what one round had for one daemon.
    pub(crate) fn add(&mut self, kind: Kind, figures: Vec<Figure>) -> Result<(), Box<dyn Error>> {
        if self.rows.is_empty() {
            let row = |figure: &Figure| Row {
                label: figure.label.clone(),
                budget: figure.budget,
                values: Default::default(),
            };
            self.rows = figures.iter().map(row).collect();
        }
        if !self.rows.iter().map(|row| &row.label).eq(figures.iter().map(|figure| &figure.label)) {
            return Err(format!("{kind} has other figures than the daemon before it").into());
        }
        for (row, figure) in self.rows.iter_mut().zip(figures) {
            row.values[kind as usize].push(figure.value);
        }
        Ok(())
    }

    /// Prints the case's figures and notes what they are to its budgets.
    pub(crate) fn print(&self, case: &str, verdicts: &mut Verdicts) {
        println!("  {:<28} {:>9} {:>9} {:>9}", "", Kind::C, Kind::OCaml, Kind::Ours);
        for row in &self.rows {
            let [c, ocaml, ours] = row.values.each_ref().map(|values| median(values));
            let judged = match row.budget {
                Budget::AtMost(most) => {
                    let ratio = ours / c.min(ocaml);
                    Some((
                        ratio <= most,
                        format!("{ratio:.2} of the better, budget at most {most}"),
                    ))
                }
                Budget::AtLeast(least) => {
                    let ratio = ours / c.max(ocaml);
                    Some((
                        ratio >= least,
                        format!("{ratio:.2} of the better, budget at least {least}"),
                    ))
                }
                Budget::Own(most) => Some((ours <= most, format!("budget at most {most}"))),
                Budget::Shown => None,
            };
            let judged = judged.map(|(kept, text)| {
                verdicts.note(kept, format!("{case}: {}", row.label));
                format!("  {text}: {}", if kept { "kept" } else { "missed" })
            });
            println!(
                "  {:<28} {:>9} {:>9} {:>9}{}",
                row.label,
                shown(c),
                shown(ocaml),
                shown(ours),
                judged.unwrap_or_default()
            );
        }
    }
}

/// Which budgets were kept.
#[derive(Default)]
pub(crate) struct Verdicts {
    kept: usize,
    missed: Vec<String>,
}

impl Verdicts {
    fn note(&mut self, kept: bool, what: String) {
        if kept {
            self.kept += 1;
        } else {
            self.missed.push(what);
        }
    }
}

impl fmt::Display for Verdicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "budgets kept: {}, missed: {}", self.kept, self.missed.len())?;
        if !self.missed.is_empty() {
            write!(f, " ({})", self.missed.join("; "))?;
        }
        Ok(())
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn shown(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let digits = if value >= 100.0 { 0 } else { 2 };
    format!("{value:.digits$}")
}
