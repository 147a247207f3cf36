//! `snapshot recover`: a save or restore whose process died, undone or completed.

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
    let recovered = recovered?;
    if let (Recovered::Saved(snapshot), Some(path)) = (&recovered, &asked.manifest) {
        manifest::write(path, snapshot)?;
    }
    if output.is_json() {
        output.document(&recovered)?;
    } else {
        output.text(in_words(&recovered))?;
    }
    Ok(Exit::bad_news_if(
        matches!(&recovered, Recovered::RolledBack { left, .. } if !left.is_empty()),
    ))
}

fn in_words(recovered: &Recovered) -> String {
    match recovered {
        Recovered::NothingDone => "nothing had been done\n".to_owned(),
        Recovered::RolledBack { removed, left, domain, warnings, .. } => {
            let removed = removed.iter().map(|path| format!("removed {}", path.display()));
            let left = left.iter().map(|left| format!("left: {left}"));
            let warnings = warnings.iter().map(|warning| format!("warning: {warning}"));
            let mut text: String =
                removed.chain(left).chain(warnings).map(|line| printable(&line) + "\n").collect();
            match domain {
                Some(state) => text.push_str(&format!("undone; the domain is {state}\n")),
                None => text.push_str("undone\n"),
            }
            text
        }
        Recovered::Saved(snapshot) => saved::in_words(snapshot),
        Recovered::Restored(restored) => restore::in_words(restored),
        // What there may be besides is told by the library's own words.
        other => format!("{other:?}\n"),
    }
}
