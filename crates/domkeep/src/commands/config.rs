//! `config`: configuration files, without any domain.

use std::path::Path;

use libxl_config::json::{JsonPath, MAX_SIZE, Value};
use libxl_config::{DomainConfig, Finding, Layout, Mode, ReadConfig, ReadError, diff};
use serde::Serialize;

use super::whole;
use crate::arguments::{Config, LayoutChoice};
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;

pub(super) fn run(asked: &Config, output: &mut Output) -> Result<Exit, CommandError> {
    match asked {
        Config::Check { file, stored } => check(file, *stored, output),
        Config::Print { file, layout } => print(file, *layout, output),
        Config::Diff { a, b } => compare(a, b, output),
    }
}

/// Reads a configuration file as libxl would, or more leniently.
pub(super) fn read(path: &Path) -> Result<ReadConfig, CommandError> {
    DomainConfig::read(&octets(path)?, Mode::Lenient)
        .map_err(|source| CommandError::Configuration { path: path.to_owned(), source })
}

/// The octets of a file that is small enough to be a configuration; of stdin for `-`.
pub(super) fn octets(path: &Path) -> Result<Vec<u8>, CommandError> {
    // The NUL of a stored file is one more.
    whole::read(path, MAX_SIZE as u64 + 1)
}

#[derive(Serialize)]
struct Checked {
    file: String,
    findings: Vec<Found>,
    /// Why it cannot be read at all.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Serialize)]
struct Found {
    path: String,
    severity: String,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<usize>,
}

impl From<&Finding> for Found {
    fn from(finding: &Finding) -> Self {
        Self {
            path: finding.path.to_string(),
            severity: finding.severity().to_string(),
            message: finding.kind.to_string(),
            line: finding.position.map(|at| at.line),
            column: finding.position.map(|at| at.column),
            offset: finding.position.map(|at| at.offset),
        }
    }
}

fn check(path: &Path, stored: bool, output: &mut Output) -> Result<Exit, CommandError> {
    let octets = octets(path)?;
    let read = if stored {
        DomainConfig::read_userdata(&octets, Mode::Strict)
    } else {
        DomainConfig::read(&octets, Mode::Strict)
    };
    let (findings, error) = match read {
        Ok(read) => (read.findings, None),
        Err(ReadError::Deviations { findings }) => (findings, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let bad = error.is_some() || findings.iter().any(Finding::is_deviation);
    let file = path.display().to_string();
    if output.is_json() {
        let findings = findings.iter().map(Found::from).collect();
        let error = error.map(|error| error.to_string());
        output.document(&Checked { file, findings, error })?;
        return Ok(Exit::bad_news_if(bad));
    }
    let mut words = String::new();
    for finding in &findings {
        let at = finding.position.map(|at| format!(":{}:{}", at.line, at.column));
        let line = format!(
            "{file}{}: {}: {}: {}",
            at.unwrap_or_default(),
            finding.severity(),
            finding.path,
            finding.kind
        );
        words.push_str(&printable(&line));
        words.push('\n');
    }
    if let Some(error) = error {
        words.push_str(&printable(&format!("{file}: error: {error}")));
        words.push('\n');
    } else if !bad {
        words.push_str(&format!("{}: libxl reads it as it says\n", printable(&file)));
    }
    output.text(words)?;
    Ok(Exit::bad_news_if(bad))
}

fn print(path: &Path, layout: LayoutChoice, output: &mut Output) -> Result<Exit, CommandError> {
    let layout = match layout {
        LayoutChoice::Yajl => Layout::Yajl,
        LayoutChoice::JsonC => Layout::JsonC,
    };
    let read = read(path)?;
    output.octets(&read.config.to_value().to_octets(layout))?;
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Difference {
    path: String,
    before: Option<Value>,
    after: Option<Value>,
}

fn compare(a: &Path, b: &Path, output: &mut Output) -> Result<Exit, CommandError> {
    let changes = diff(&read(a)?.config, &read(b)?.config);
    if output.is_json() {
        let difference = |change: &libxl_config::Change| Difference {
            path: JsonPath::to_string(&change.path),
            before: change.before.clone(),
            after: change.after.clone(),
        };
        output.document(&changes.iter().map(difference).collect::<Vec<_>>())?;
    } else {
        let line = |change: &libxl_config::Change| printable(&change.to_string()) + "\n";
        output.text(changes.iter().map(line).collect::<String>())?;
    }
    Ok(Exit::bad_news_if(!changes.is_empty()))
}
