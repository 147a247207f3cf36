//! `xenstore watch`: a line an event.

use std::time::{Duration, Instant};

use serde::Serialize;
use xsclient::PathOrSpecial;

use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::{Output, end_with_the_reader};
use crate::places::Places;

/// How long one wait for an event lasts when there is no end. Nothing ends with it; it only has to be some time.
const LONG: Duration = Duration::from_secs(24 * 3600);

#[derive(Serialize)]
struct Seen<'e> {
    path: &'e str,
    /// Whether it is the one that comes when the watch is set.
    first: bool,
    /// Whether others before it were dropped.
    lost_before: bool,
}

pub(super) fn run(
    paths: &[PathOrSpecial],
    count: Option<u64>,
    timeout: Option<Duration>,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    for path in paths {
        client.watch(path.clone(), None)?;
    }
    end_with_the_reader();
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut events = 0;
    while count.is_none_or(|count| events < count) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let Some(event) = client.next_event_any(left.unwrap_or(LONG))? else {
            if left.is_none() {
                continue;
            }
            return Ok(Exit::bad_news_if(count.is_some()));
        };
        let (path, first, lost_before) = (event.path.as_str(), event.first, event.lost_before);
        if output.is_json() {
            output.line(&Seen { path, first, lost_before })?;
        } else {
            output.text(printable(path))?;
        }
        events += 1;
    }
    Ok(Exit::Done)
}
