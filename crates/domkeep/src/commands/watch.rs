//! `retrieve --watch`: another answer whenever there is one.

use std::time::Instant;

use libxl_config::diff;
use libxl_config::retrieve::Retrieved;

use super::hypervisor;
use super::retrieve::{Answer, Views, retrieve};
use crate::arguments::Retrieve;
use crate::changes::Changes;
use crate::domains;
use crate::exit::{CommandError, Exit};
use crate::explain;
use crate::output::{Output, end_when_told};
use crate::places::{Opening, Places};

pub(super) fn run(
    asked: &Retrieve,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let deadline = asked.watch_timeout.map(|timeout| Instant::now() + timeout);
    let mut client = places.client()?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let changes = Changes::of(domid, places)?;
    let xenctrl = hypervisor::open(asked.hypervisor, places)?;
    end_when_told();
    let mut last: Option<Retrieved> = None;
    let mut answers = 0;
    while asked.watch_count.is_none_or(|count| answers < count) {
        if !changes.wait(deadline)? {
            return Ok(Exit::bad_news_if(asked.watch_count.is_some()));
        }
        // Opened for each answer: a sled store that is kept open keeps everybody else out.
        let templates = places.templates(Opening::Existing)?;
        let hypervisor = hypervisor::view(xenctrl.as_ref());
        let views = Views { templates: templates.as_ref(), hypervisor };
        let now = retrieve(asked.policy, domid, &mut client, views, places)?;
        drop(templates);
        if last.as_ref().is_some_and(|last| last.revision == now.revision) {
            continue;
        }
        if output.is_json() {
            output.line(&Answer::of(&now, asked.report))?;
        } else {
            output.octets(&in_words(&now, last.as_ref(), asked.report))?;
        }
        last = Some(now);
        answers += 1;
    }
    Ok(Exit::Done)
}

/// A whole answer, with what is new in it before it.
fn in_words(now: &Retrieved, last: Option<&Retrieved>, as_report: bool) -> Vec<u8> {
    let mut words = format!("# domain {}, revision {}\n", now.domid, now.revision);
    if let Some(last) = last {
        let changes = diff(&last.config, &now.config);
        for change in &changes {
            words.push_str(&format!("# {}\n", explain::printable(&change.to_string())));
        }
        if changes.is_empty() {
            words.push_str(
                "# the configuration is the same, only the state of something in it is not\n",
            );
        }
    }
    if as_report {
        words.push_str(&explain::report(now));
        return words.into_bytes();
    }
    for warning in explain::warnings(&now.report) {
        words.push_str(&format!("# {warning}\n"));
    }
    let mut octets = words.into_bytes();
    octets.extend(now.config.to_value().to_octets(libxl_config::Layout::Yajl));
    octets
}
