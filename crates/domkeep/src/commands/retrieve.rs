//! `retrieve`: the configuration of one domain.

use std::io::{self, Write};

use libxl_config::json::Value;
use libxl_config::retrieve::{
    ConfigurationRevision, HypervisorView, Policy, Report, Retrieved, Retriever, TemplateSource,
};
use libxl_config::template::TemplateStore;
use serde::Serialize;
use xsclient::{Client, DomId};

use super::hypervisor;
use crate::arguments::{PolicyChoice, Retrieve};
use crate::domains;
use crate::exit::{CommandError, Exit};
use crate::explain;
use crate::output::Output;
use crate::places::{Opening, Places};

pub(super) fn run(
    asked: &Retrieve,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let xenctrl = hypervisor::open(asked.hypervisor, places)?;
    let views =
        Views { templates: templates.as_ref(), hypervisor: hypervisor::view(xenctrl.as_ref()) };
    let retrieved = retrieve(asked.policy, domid, &mut client, views, places)?;
    if output.is_json() {
        output.document(&Answer::of(&retrieved, asked.report))?;
    } else if asked.report {
        output.text(explain::report(&retrieved))?;
    } else {
        output.configuration(&retrieved.config.to_value())?;
    }
    if !asked.report {
        warn(&retrieved.report);
    }
    let template = &retrieved.report.template;
    Ok(Exit::bad_news_if(matches!(template, TemplateSource::Unreadable { .. })))
}

/// Says on stderr what the configuration alone does not.
fn warn(report: &Report) {
    let warnings = explain::warnings(report);
    let told: String = warnings.iter().map(|line| format!("domkeep: {line}\n")).collect();
    // If stderr is closed there is nobody to tell.
    let _ = io::stderr().write_all(told.as_bytes());
}

/// What is laid over each other with Xenstore.
#[derive(Clone, Copy)]
pub(super) struct Views<'a> {
    pub(super) templates: &'a dyn TemplateStore,
    pub(super) hypervisor: Option<&'a dyn HypervisorView>,
}

pub(super) fn retrieve(
    policy: PolicyChoice,
    domid: DomId,
    client: &mut Client,
    views: Views<'_>,
    places: &Places,
) -> Result<Retrieved, CommandError> {
    let policy = match policy {
        PolicyChoice::Live => Policy::LiveWins,
        PolicyChoice::Union => Policy::Union,
        PolicyChoice::Template => Policy::Template,
    };
    let mut retriever =
        Retriever::new(client, views.templates).policy(policy).timeout(places.timeout());
    if let Some(hypervisor) = views.hypervisor {
        retriever = retriever.hypervisor(hypervisor);
    }
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
