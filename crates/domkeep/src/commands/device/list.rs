//! `device list`: every device that the template or Xenstore knows.

use libxl_config::hotplug::{Claim, Hotplug};
use libxl_config::retrieve::{
    Attachment, DeviceClass, DeviceNote, DeviceReport, Presence, Retriever,
};
use serde::Serialize;
use xsclient::DomId;

use crate::domains;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::{self, printable};
use crate::output::Output;
use crate::places::{Opening, Places};

/// A device of the list.
#[derive(Serialize)]
struct Row {
    class: DeviceClass,
    name: String,
    presence: Presence,
    attachment: Attachment,
    in_configuration: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<DeviceNote>,
    /// Who is plugging it, or was when its process died.
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<Claim>,
    #[serde(skip)]
    words: String,
}

#[derive(Serialize)]
struct OfDomain {
    domid: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    devices: Vec<Row>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(
    asked: &[String],
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let mut domids = Vec::new();
    for typed in asked {
        domids.push(domains::find(&mut client, places, typed)?);
    }
    let mut retriever = Retriever::new(&mut client, templates.as_ref()).timeout(places.timeout());
    if domids.is_empty() {
        domids = retriever.domains()?;
    }
    let mut listed = Vec::new();
    for (domid, answer) in retriever.retrieve_all(&domids) {
        let mut of = OfDomain { domid: domid.get(), name: None, devices: Vec::new(), error: None };
        match answer {
            Ok(retrieved) => {
                of.name = retrieved.config.c_info.name.clone();
                of.devices = retrieved.report.devices.iter().map(row).collect();
            }
            Err(error) => of.error = Some(on_one_line(&error)),
        }
        listed.push(of);
    }
    for of in &mut listed {
        let domid = DomId::new(of.domid);
        let claims = Hotplug::new(&mut client, templates.as_ref()).claims(domid)?;
        for (id, claim) in claims {
            let named = |row: &&mut Row| row.class == id.class && row.name == id.label();
            if let Some(row) = of.devices.iter_mut().find(named) {
                row.claim = Some(claim);
            }
        }
    }
    let bad = listed.iter().any(|of| of.error.is_some() || of.devices.iter().any(is_unsettled));
    if output.is_json() {
        output.document(&listed)?;
    } else {
        output.text(table(&listed))?;
    }
    Ok(Exit::bad_news_if(bad))
}

fn row(report: &DeviceReport) -> Row {
    Row {
        class: report.class,
        name: report.id.clone(),
        presence: report.presence,
        attachment: report.attachment.clone(),
        in_configuration: report.in_configuration,
        note: report.note,
        claim: None,
        words: explain::device(report),
    }
}

/// Half plugged, or in one view only although libxl makes none of that kind itself.
fn is_unsettled(row: &Row) -> bool {
    let of_libxl = row.note == Some(DeviceNote::MadeByLibxl);
    !of_libxl && (row.presence != Presence::Both || !row.attachment.is_settled())
}

fn table(listed: &[OfDomain]) -> String {
    let mut text = String::new();
    for of in listed {
        let name = of.name.as_deref().map(printable).unwrap_or_default();
        text.push_str(format!("{:>5}  {name}", of.domid).trim_end());
        text.push('\n');
        if let Some(error) = &of.error {
            text.push_str(&format!("       {error}\n"));
        }
        for row in &of.devices {
            let claim = row.claim.as_ref().map(|claim| format!("; {claim}")).unwrap_or_default();
            let (name, words) = (printable(&row.name), &row.words);
            text.push_str(&format!("       {} {name}  {words}{claim}\n", row.class));
        }
    }
    text
}
