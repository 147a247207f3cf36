//! `snapshot recover`: a save or restore whose process died, undone or completed.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;
use snapshot::control::DomainState;
use snapshot::recover::Recovered;
use snapshot::{Observer, Progress, recover};

use super::bar::Bar;
use super::error::SnapshotError;
use super::host::Host;
use super::{manifest, new_file, restore, saved, told};
use crate::arguments::{Global, Recover};
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;
use crate::places::Places;

#[derive(Serialize)]
struct RolledBack {
    removed: Vec<PathBuf>,
    left: Vec<String>,
    domain: Option<DomainState>,
    warnings: Vec<String>,
}

pub(super) fn run(
    asked: &Recover,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let cancel = told::cancelled_by_signals()?;
    if let Some(path) = &asked.manifest {
        new_file::must_be_free(path)?;
    }
    let host = Host::open(&asked.control, global, places)?;
    let mut access = host.access();
    let mut bar = Bar::new(output);
    let mut show = |progress: &Progress| bar.show(progress);
    let mut observer = Observer::none().progress(&mut show).cancel(&cancel);
    let recovered = recover(&mut access, &asked.journal, &mut observer)
        .map_err(|source| SnapshotError::Recover { source: Box::new(source) });
    drop(bar);
    match recovered? {
        Recovered::NothingDone => {
            say(output, "nothing had been done", || json!({ "recovered": "nothing-done" }))?;
            Ok(Exit::Done)
        }
        Recovered::RolledBack { removed, left, domain, warnings, .. } => {
            let left: Vec<_> = left.iter().map(ToString::to_string).collect();
            rolled_back(&RolledBack { removed, left, domain, warnings }, output)
        }
        Recovered::Saved(snapshot) => {
            if let Some(path) = &asked.manifest {
                manifest::write(path, &snapshot)?;
            }
            if output.is_json() {
                output.document(&json!({ "recovered": "saved", "snapshot": snapshot }))?;
            } else {
                output.text(saved::in_words(&snapshot))?;
            }
            Ok(Exit::Done)
        }
        Recovered::Restored(restored) => {
            if output.is_json() {
                output.document(&json!({ "recovered": "restored", "restored": restored }))?;
            } else {
                restore::tell(&restored, output)?;
            }
            Ok(Exit::Done)
        }
        // What there may be besides is told by the library's own words.
        other => {
            say(output, &format!("{other:?}"), || json!({ "recovered": "otherwise" }))?;
            Ok(Exit::Done)
        }
    }
}

fn rolled_back(told: &RolledBack, output: &mut Output) -> Result<Exit, CommandError> {
    let exit = Exit::bad_news_if(!told.left.is_empty());
    if output.is_json() {
        output.document(&json!({ "recovered": "rolled-back", "rolled_back": told }))?;
        return Ok(exit);
    }
    let mut text = String::new();
    for path in &told.removed {
        text.push_str(&printable(&format!("removed {}", path.display())));
        text.push('\n');
    }
    for left in &told.left {
        text.push_str(&format!("left: {}\n", printable(left)));
    }
    for warning in &told.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    match &told.domain {
        Some(state) => text.push_str(&format!("undone; the domain is {state}\n")),
        None => text.push_str("undone\n"),
    }
    output.text(text)?;
    Ok(exit)
}

fn say(
    output: &mut Output,
    words: &str,
    document: impl FnOnce() -> serde_json::Value,
) -> Result<(), CommandError> {
    if output.is_json() { output.document(&document()) } else { output.text(words) }
}
