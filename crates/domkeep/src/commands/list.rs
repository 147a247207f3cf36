//! `list`: all domains, as a table or with their whole configurations.

use std::collections::BTreeMap;

use libxl_config::json::{Object, Value};
use libxl_config::retrieve::{
    Consistency, Report, RetrieveError, Retrieved, Retriever, TemplateSource,
};
use serde::Serialize;
use xsclient::DomId;

use super::hypervisor;
use crate::arguments::List;
use crate::domains;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::printable;
use crate::output::Output;
use crate::places::{Opening, Places};

pub(super) fn run(
    asked: &List,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let mut domids = Vec::new();
    for typed in &asked.domains {
        domids.push(domains::find(&mut client, places, typed)?);
    }
    let xenctrl = hypervisor::open(asked.hypervisor, places)?;
    let mut retriever = Retriever::new(&mut client, templates.as_ref()).timeout(places.timeout());
    // Only the table says what is unsettled.
    retriever = retriever.attachments(!asked.long);
    if let Some(view) = hypervisor::view(xenctrl.as_ref()) {
        retriever = retriever.hypervisor(view);
    }
    let found = if domids.is_empty() { retriever.domains()? } else { domids };
    let listed = listed(retriever.retrieve_all(&found));
    print(&listed, asked.long, output)?;
    Ok(Exit::bad_news_if(listed.iter().any(|domain| domain.answer.is_err())))
}

/// One domain of a list.
pub(super) struct Listed {
    domid: DomId,
    answer: Result<Retrieved, String>,
}

/// A template that cannot be used fails its domain: what is left would be taken for its configuration.
pub(super) fn listed(answers: Vec<(DomId, Result<Retrieved, RetrieveError>)>) -> Vec<Listed> {
    let listed = |(domid, answer): (DomId, Result<Retrieved, RetrieveError>)| {
        let answer = answer.map_err(|error| on_one_line(&error)).and_then(|retrieved| {
            match &retrieved.report.template {
                TemplateSource::Unreadable { error } => {
                    Err(format!("domain {domid}: its template cannot be used: {error}"))
                }
                _ => Ok(retrieved),
            }
        });
        Listed { domid, answer }
    };
    answers.into_iter().map(listed).collect()
}

pub(super) fn print(
    listed: &[Listed],
    long: bool,
    output: &mut Output,
) -> Result<(), CommandError> {
    if long {
        output.configuration(&listed.iter().map(long_entry).collect())
    } else if output.is_json() {
        output.document(&rows(listed))
    } else {
        output.text(table(&rows(listed)))
    }
}

/// As xl prints it, and a note where xl would have printed nothing at all.
fn long_entry(listed: &Listed) -> Value {
    let mut entry = Object::new();
    entry.push("domid", u64::from(listed.domid.get()));
    match &listed.answer {
        Ok(retrieved) => {
            entry.push("config", retrieved.config.to_value());
            if let Some(note) = note(&retrieved.report) {
                entry.push("note", note);
            }
        }
        Err(error) => entry.push("error", error.as_str()),
    }
    entry.into()
}

fn note(report: &Report) -> Option<&'static str> {
    match (&report.template, &report.consistency) {
        (TemplateSource::Missing, _) => Some("no template: built from Xenstore alone"),
        (TemplateSource::OfAnotherDomain { .. }, _) => {
            Some("no template of this domain, only of earlier ones: built from Xenstore alone")
        }
        (_, Consistency::Changing { .. }) => Some("changed while it was read"),
        _ => None,
    }
}

/// A domain of the short list.
#[derive(Serialize)]
pub(super) struct Row {
    domid: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vcpus: Option<usize>,
    /// How many of each class are in the configuration.
    devices: BTreeMap<&'static str, usize>,
    /// Devices with which something is going on or was left undone.
    unsettled: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn rows(listed: &[Listed]) -> Vec<Row> {
    listed.iter().map(row).collect()
}

fn row(listed: &Listed) -> Row {
    let domid = listed.domid.get();
    let mut row = Row {
        domid,
        name: None,
        memory_kib: None,
        vcpus: None,
        devices: BTreeMap::new(),
        unsettled: Vec::new(),
        note: None,
        error: None,
    };
    match &listed.answer {
        Err(error) => row.error = Some(error.clone()),
        Ok(retrieved) => {
            let config = &retrieved.config;
            row.name.clone_from(&config.c_info.name);
            row.memory_kib = config.b_info.target_memkb.get();
            row.vcpus = Some(config.b_info.avail_vcpus.len()).filter(|online| *online > 0);
            row.note = note(&retrieved.report);
            for device in &retrieved.report.devices {
                if device.in_configuration {
                    *row.devices.entry(device.class.name()).or_default() += 1;
                    if !device.attachment.is_settled() {
                        let (class, id, is) = (device.class, &device.id, &device.attachment);
                        row.unsettled.push(format!("{class} {id} {is}"));
                    }
                }
            }
        }
    }
    row
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut cells = vec![["Name", "ID", "Mem", "VCPUs", "Devices"].map(str::to_owned)];
    for row in rows {
        let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
        cells.push([
            printable(row.name.as_deref().unwrap_or("-")),
            row.domid.to_string(),
            number(row.memory_kib.map(|kib| (kib / 1024).to_string())),
            number(row.vcpus.map(|vcpus| vcpus.to_string())),
            printable(&remark(row)),
        ]);
    }
    let width =
        |column: usize| cells.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
    let [name, id, memory, vcpus] = [0, 1, 2, 3].map(width);
    let line = |cells: &[String; 5]| {
        let [a, b, c, d, e] = cells;
        format!("{a:name$}  {b:>id$}  {c:>memory$}  {d:>vcpus$}  {e}").trim_end().to_owned() + "\n"
    };
    cells.iter().map(line).collect()
}

fn remark(row: &Row) -> String {
    if let Some(error) = &row.error {
        return format!("error: {error}");
    }
    let plural = |(class, count): (&&str, &usize)| match count {
        1 => format!("1 {class}"),
        count => format!("{count} {class}s"),
    };
    let mut parts = vec![row.devices.iter().map(plural).collect::<Vec<_>>().join(", ")];
    parts.extend(row.unsettled.iter().cloned());
    parts.extend(row.note.map(str::to_owned));
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}
