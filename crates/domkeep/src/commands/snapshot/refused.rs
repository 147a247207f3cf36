//! Refusals: all of them, since whoever asked has to see to all.

use std::error::Error;

use serde::Serialize;

use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::printable;
use crate::output::Output;

#[derive(Serialize)]
struct Refused {
    refusals: Vec<String>,
}

/// Prints every refusal.
pub(super) fn refused<E: Error + 'static>(
    refusals: &[E],
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let refusals: Vec<_> = refusals.iter().map(|refusal| words(refusal)).collect();
    if output.is_json() {
        output.document(&Refused { refusals })?;
    } else {
        let lines = refusals.iter().map(|refusal| format!("refused: {}\n", printable(refusal)));
        output.text(lines.collect::<String>())?;
    }
    Ok(Exit::BadNews)
}

/// With its cause, unless that is in its text already.
fn words(refusal: &(dyn Error + 'static)) -> String {
    let text = refusal.to_string();
    let told = refusal.source().is_some_and(|cause| text.contains(&cause.to_string()));
    if told { text } else { on_one_line(refusal) }
}
