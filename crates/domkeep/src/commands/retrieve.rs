//! `retrieve`: the configuration of one domain.

use libxl_config::json::Value;
use libxl_config::retrieve::{ConfigurationRevision, Policy, Report, Retrieved, Retriever};
use libxl_config::template::TemplateStore;
use serde::Serialize;
use xsclient::{Client, DomId};

use crate::arguments::{PolicyChoice, Retrieve};
use crate::domains;
use crate::exit::{CommandError, Exit};
use crate::explain;
use crate::output::Output;
use crate::patience::Patience;
use crate::places::{Opening, Places};

pub(super) fn run(
    asked: &Retrieve,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let domid = domains::find(&mut client, &asked.domain)?;
    let retrieved = retrieve(asked.policy, domid, &mut client, templates.as_ref(), places)?;
    if output.is_json() {
        output.document(&Answer::of(&retrieved, asked.report))?;
    } else if asked.report {
        output.text(explain::report(&retrieved))?;
    } else {
        output.configuration(&retrieved.config.to_value())?;
    }
    Ok(Exit::Done)
}

pub(super) fn retrieve(
    policy: PolicyChoice,
    domid: DomId,
    client: &mut Client,
    templates: &dyn TemplateStore,
    places: &Places,
) -> Result<Retrieved, CommandError> {
    let policy = match policy {
        PolicyChoice::Live => Policy::LiveWins,
        PolicyChoice::Union => Policy::Union,
        PolicyChoice::Template => Policy::Template,
    };
    let templates = Patience::new(templates, places);
    let mut retriever = Retriever::new(client, &templates).policy(policy).timeout(places.timeout());
    Ok(retriever.retrieve(domid)?)
}

/// An answer for a program.
#[derive(Serialize)]
pub(super) struct Answer<'r> {
    domid: u16,
    revision: ConfigurationRevision,
    config: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    report: Option<&'r Report>,
}

impl<'r> Answer<'r> {
    pub(super) fn of(retrieved: &'r Retrieved, with_report: bool) -> Self {
        Self {
            domid: retrieved.domid.get(),
            revision: retrieved.revision,
            config: retrieved.config.to_value(),
            report: with_report.then_some(&retrieved.report),
        }
    }
}
