//! `device attach`, `detach` and `repair`.

use std::path::Path;

use libxl_config::hotplug::{
    self, DetachError, Device, DeviceId, DeviceName, Hotplug, Mend, Mended, Repaired, Timeouts,
    spec,
};
use libxl_config::model::Nic;
use libxl_config::retrieve::{Attachment, DeviceClass, Presence};
use libxl_config::template::{Revision, TemplateStore};
use serde::Serialize;
use xsclient::{Client, DomId};

use super::DeviceError;
use crate::arguments::{Attach, ClassChoice, Detach, How, Repair};
use crate::commands::config;
use crate::domains;
use crate::exit::{CommandError, Exit, on_one_line};
use crate::output::Output;
use crate::places::{Opening, Places};

/// A device in an answer.
#[derive(Serialize)]
struct Named {
    class: DeviceClass,
    devid: u32,
    name: String,
}

impl From<DeviceId> for Named {
    fn from(id: DeviceId) -> Self {
        Self { class: id.class, devid: id.devid, name: id.label() }
    }
}

#[derive(Serialize)]
struct AttachedAnswer {
    domid: u16,
    device: Named,
    attachment: Attachment,
    replaced_entry: bool,
    template: Revision,
}

pub(super) fn attach(
    asked: &Attach,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let device = device(asked)?;
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let attached = hotplug(&mut client, templates.as_ref(), &asked.how, places)
        .attach(domid, &device)
        .map_err(DeviceError::from)?;
    if output.is_json() {
        output.document(&AttachedAnswer {
            domid: domid.get(),
            device: attached.id.into(),
            attachment: attached.attachment,
            replaced_entry: attached.replaced_entry,
            template: attached.revision,
        })?;
    } else {
        output
            .text(format!("{} attached to domain {domid}: {}", attached.id, attached.attachment))?;
    }
    Ok(Exit::Done)
}

fn device(asked: &Attach) -> Result<Device, CommandError> {
    let class = DeviceClass::from(asked.class);
    if let Some(file) = &asked.entry {
        return entry(asked.class, file);
    }
    let text = asked.spec.join(",");
    let device = match class {
        DeviceClass::Disk => spec::disk(&text).map(Device::from),
        DeviceClass::Nic => spec::nic(&text).map(Device::from),
        _ => spec::p9(&text).map(Device::from),
    };
    device.map_err(|error| DeviceError::Spec(error).into())
}

fn entry(class: ClassChoice, file: &Path) -> Result<Device, CommandError> {
    let text = config::octets(file)?;
    let device = match class {
        ClassChoice::Disk => serde_json::from_slice(&text).map(Device::Disk),
        ClassChoice::Nic => serde_json::from_slice(&text).map(|nic: Nic| nic.into()),
        ClassChoice::P9 => serde_json::from_slice(&text).map(Device::P9),
    };
    device.map_err(|error| DeviceError::Entry(error).into())
}

#[derive(Serialize)]
struct DetachedAnswer {
    domid: u16,
    device: Named,
    was_in_xenstore: bool,
    was_in_template: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    template: Option<Revision>,
    #[serde(skip_serializing_if = "Option::is_none")]
    script_error: Option<String>,
}

pub(super) fn detach(
    asked: &Detach,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let name = DeviceName::parse(asked.class.into(), &asked.device).map_err(DeviceError::from)?;
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let detached = hotplug(&mut client, templates.as_ref(), &asked.how, places)
        .force(asked.force)
        .detach(domid, &name)
        .map_err(DeviceError::from)?;
    let bad = detached.script_error.is_some();
    if output.is_json() {
        output.document(&DetachedAnswer {
            domid: domid.get(),
            device: detached.id.into(),
            was_in_xenstore: detached.was_in_xenstore,
            was_in_template: detached.was_in_template,
            template: detached.revision,
            script_error: detached.script_error,
        })?;
    } else {
        let mut text = format!("{} detached from domain {domid}", detached.id);
        if !detached.was_in_xenstore {
            text.push_str(": it was in the template only");
        } else if !detached.was_in_template {
            text.push_str(": it was in Xenstore only");
        }
        if let Some(error) = detached.script_error {
            text.push_str(&format!("\n  {error}"));
        }
        output.text(text)?;
    }
    Ok(Exit::bad_news_if(bad))
}

#[derive(Serialize)]
struct RepairedAnswer {
    domid: u16,
    device: Named,
    #[serde(skip_serializing_if = "Option::is_none")]
    found: Option<Attachment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<Presence>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claim: Option<hotplug::Claim>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    mended: Option<Mended>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn repair(
    asked: &Repair,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let name = match (asked.class, &asked.device) {
        (Some(class), Some(device)) => {
            Some(DeviceName::parse(class.into(), device).map_err(DeviceError::from)?)
        }
        _ => None,
    };
    let mut client = places.client()?;
    let templates = places.templates(Opening::Existing)?;
    let domid = domains::find(&mut client, places, &asked.domain)?;
    let mend = if asked.undo { Mend::Undo } else { Mend::Finish };
    let mut hotplug =
        hotplug(&mut client, templates.as_ref(), &asked.how, places).force(asked.force);
    let repaired = match name {
        Some(name) => {
            let one = hotplug.repair(domid, &name, mend).map_err(DeviceError::from)?;
            vec![(one.id, Ok(one))]
        }
        None => hotplug.repair_all(domid, mend).map_err(DeviceError::from)?,
    };
    let failed = repaired.iter().any(|(_, one)| one.is_err());
    if output.is_json() {
        let answers: Vec<_> = repaired.into_iter().map(|one| answer(domid, one)).collect();
        output.document(&answers)?;
    } else if repaired.is_empty() {
        output.text(format!("domain {domid}: nothing to repair"))?;
    } else {
        let lines: Vec<_> = repaired.iter().map(|(id, one)| line(*id, one)).collect();
        output.text(lines.join("\n"))?;
    }
    Ok(Exit::bad_news_if(failed))
}

fn answer(
    domid: DomId,
    (id, repaired): (DeviceId, Result<Repaired, DetachError>),
) -> RepairedAnswer {
    let (domid, device) = (domid.get(), id.into());
    let mut answer = RepairedAnswer {
        domid,
        device,
        found: None,
        presence: None,
        claim: None,
        mended: None,
        error: None,
    };
    match repaired {
        Ok(repaired) => {
            answer.found = repaired.found;
            answer.presence = repaired.presence;
            answer.claim = repaired.claim;
            answer.mended = Some(repaired.mended);
        }
        Err(error) => answer.error = Some(on_one_line(&error)),
    }
    answer
}

fn line(id: DeviceId, repaired: &Result<Repaired, DetachError>) -> String {
    let repaired = match repaired {
        Ok(repaired) => repaired,
        Err(error) => return format!("{id}: {}", on_one_line(error)),
    };
    let done = match &repaired.mended {
        Mended::Attached { attachment } => format!("attached to the end: {attachment}"),
        Mended::Detached { because: None } => "detached to the end".to_owned(),
        Mended::Detached { because: Some(because) } => {
            format!("detached, since it could not be attached: {because}")
        }
        Mended::EntryAdded => "put into the template".to_owned(),
        Mended::EntryRemoved => "taken out of the template".to_owned(),
        _ => "nothing to do".to_owned(),
    };
    let found = repaired.found.as_ref().map(|found| format!("{found}; ")).unwrap_or_default();
    let claim = repaired.claim.as_ref().map(|claim| format!("{claim}; ")).unwrap_or_default();
    format!("{id}: {found}{claim}{done}")
}

fn hotplug<'a>(
    client: &'a mut Client,
    templates: &'a dyn TemplateStore,
    how: &How,
    places: &Places,
) -> Hotplug<'a> {
    let mut timeouts = Timeouts::default();
    timeouts.lock = places.timeout();
    timeouts.connect = how.wait;
    timeouts.let_go = how.wait;
    timeouts.script = how.script_limit;
    Hotplug::new(client, templates).timeouts(timeouts).script_directory(how.scripts.clone())
}
