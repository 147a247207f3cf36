//! `template`: what the template store holds.

use std::path::Path;

use libxl_config::json::Value;
use libxl_config::template::{
    Revision, Template as Stored, TemplateKey, TemplateStore, TemplateText, create,
};
use libxl_config::{DomainConfig, Layout, Mode};
use serde::Serialize;
use uuid::Uuid;
use xsclient::DomId;

use super::config;
use crate::arguments::{Template, Which};
use crate::exit::{CommandError, Exit, on_one_line};
use crate::explain::printable;
use crate::output::Output;
use crate::places::{Opening, Places};

pub(super) fn run(
    asked: Template,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    match asked {
        Template::Ls => ls(places, output),
        Template::Show { which } => show(which, places, output),
        Template::Import { file, domid, uuid } => import(&file, domid, uuid, places, output),
    }
}

#[derive(Serialize)]
struct Row {
    domid: u16,
    uuid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
    /// Octets, without the NUL behind them.
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn ls(places: &Places, output: &mut Output) -> Result<Exit, CommandError> {
    let store = places.templates(Opening::Existing)?;
    let deadline = places.deadline();
    let mut rows = Vec::new();
    for key in store.keys(deadline)? {
        let (domid, uuid) = (key.domid.get(), key.uuid);
        let mut row = Row { domid, uuid, name: None, revision: None, size: None, error: None };
        match store.load(&key, deadline) {
            // Forgotten since it was listed.
            Ok(None) => continue,
            Ok(Some(stored)) => {
                row.revision = Some(stored.revision);
                row.size = Some(stored.octets.len());
                match DomainConfig::read(&stored.octets, Mode::Lenient) {
                    Ok(read) => row.name = read.config.c_info.name,
                    Err(error) => row.error = Some(on_one_line(&error)),
                }
            }
            Err(error) => row.error = Some(on_one_line(&error)),
        }
        rows.push(row);
    }
    if output.is_json() {
        output.document(&rows)?;
    } else {
        output.text(table(&rows))?;
    }
    Ok(Exit::bad_news_if(rows.iter().any(|row| row.error.is_some())))
}

fn table(rows: &[Row]) -> String {
    let mut text =
        format!("{:>5}  {:36}  {:12}  {:>6}  Name\n", "ID", "UUID", "Revision", "Octets");
    for row in rows {
        // Enough of it to tell one from another by eye; --json has all.
        let revision = row.revision.map(|revision| revision.to_string()[..12].to_owned());
        let name = match (&row.name, &row.error) {
            (_, Some(error)) => format!("error: {error}"),
            (name, None) => name.clone().unwrap_or_else(|| "-".to_owned()),
        };
        let line = format!(
            "{:>5}  {:36}  {:12}  {:>6}  {}",
            row.domid,
            row.uuid.hyphenated().to_string(),
            revision.unwrap_or_else(|| "-".to_owned()),
            row.size.map_or_else(|| "-".to_owned(), |size| size.to_string()),
            printable(&name),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[derive(Serialize)]
struct Shown {
    domid: u16,
    uuid: Uuid,
    revision: Revision,
    config: Value,
}

fn show(which: Which, places: &Places, output: &mut Output) -> Result<Exit, CommandError> {
    let store = places.templates(Opening::Existing)?;
    let (key, stored) = load(which, store.as_ref(), places)?;
    if output.is_json() {
        let read = DomainConfig::read(&stored.octets, Mode::Lenient).map_err(|source| {
            CommandError::Configuration { path: key.to_string().into(), source }
        })?;
        let config = read.config.to_value();
        let (domid, uuid, revision) = (key.domid.get(), key.uuid, stored.revision);
        output.document(&Shown { domid, uuid, revision, config })?;
    } else {
        let mut octets = stored.octets;
        if octets.last() != Some(&b'\n') {
            octets.push(b'\n');
        }
        output.octets(&octets)?;
    }
    Ok(Exit::Done)
}

fn load(
    which: Which,
    store: &dyn TemplateStore,
    places: &Places,
) -> Result<(TemplateKey, Stored), CommandError> {
    let deadline = places.deadline();
    let (keys, named) = match which {
        Which::Domid(domid) => (store.keys_of(domid, deadline)?, format!("domain {domid}")),
        Which::Uuid(uuid) => {
            let mut keys = store.keys(deadline)?;
            keys.retain(|key| key.uuid == uuid);
            (keys, uuid.to_string())
        }
    };
    match keys.as_slice() {
        [key] => match store.load(key, deadline)? {
            Some(stored) => Ok((*key, stored)),
            None => Err(CommandError::NoTemplate { which: named }),
        },
        [] => Err(CommandError::NoTemplate { which: named }),
        _ => {
            let found: Vec<String> = keys.iter().map(ToString::to_string).collect();
            Err(CommandError::SeveralTemplates { which: named, found: found.join(", ") })
        }
    }
}

#[derive(Serialize)]
struct Imported {
    domid: u16,
    uuid: Uuid,
    revision: Revision,
}

/// What is stored is the configuration as libxl would write it, unknown keys included: what was read leniently, libxl might
/// not read at all.
fn import(
    path: &Path,
    domid: DomId,
    uuid: Option<Uuid>,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let mut config = config::read(path)?.config;
    let told = Some(config.c_info.uuid).filter(|uuid| !uuid.is_nil());
    let uuid = uuid.or(told).ok_or_else(|| CommandError::NoUuid { path: path.to_owned() })?;
    config.c_info.uuid = uuid;
    let text = TemplateText::new(config.to_value().to_octets(Layout::Yajl))
        .map_err(|source| CommandError::NotATemplate { path: path.to_owned(), source })?;
    let store = places.templates(Opening::OrCreate)?;
    let key = TemplateKey::new(domid, uuid);
    let revision = create(store.as_ref(), &key, &text, places.deadline())?;
    if output.is_json() {
        output.document(&Imported { domid: domid.get(), uuid, revision })?;
    } else {
        output.text(format!("created the template of {key}, revision {revision}"))?;
    }
    Ok(Exit::Done)
}
