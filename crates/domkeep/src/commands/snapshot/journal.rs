//! Journals, as far as they tell people something: `snapshot recover` reads them with all their rules.

use std::path::Path;

use serde_json::{Value, json};

use super::inspect::Told;
use crate::commands::whole;
use crate::exit::CommandError;

/// Octets of a journal at most.
const JOURNAL_MAX: u64 = 64 << 20;

/// Octets of the digest before each record, with the blank behind it.
const DIGEST_LEN: usize = 9;

/// What a journal tells; `None` if the file does not begin as one.
pub(super) fn told(path: &Path, first: &[u8]) -> Result<Option<Told>, CommandError> {
    let Some(begin) = first.split(|octet| *octet == b'\n').next().and_then(record) else {
        return Ok(None);
    };
    if begin["record"] != "begin" {
        return Ok(None);
    }
    let octets = whole::read_file(path, JOURNAL_MAX)?;
    let records: Vec<Value> = octets.split(|octet| *octet == b'\n').map_while(record).collect();
    let of = &begin["of"];
    let steps: Vec<_> = records.iter().map(|record| record["record"].clone()).collect();
    let created = records.iter().filter(|record| record["record"] == "created");
    let created: Vec<_> = created.map(|record| record["of"]["path"].clone()).collect();
    let ended =
        matches!(steps.last().and_then(Value::as_str), Some("saved" | "restored" | "rolled-back"));
    Ok(Some(
        Told::new("journal")
            .with("operation", of["operation"].clone())
            .with("id", of["id"].clone())
            .with("domain", of["domain"].clone())
            .with(
                "records",
                json!(steps.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")),
            )
            .with("created", created)
            .with("ended", ended),
    ))
}

/// The record of a line.
fn record(line: &[u8]) -> Option<Value> {
    let (digest, json) = line.split_at_checked(DIGEST_LEN)?;
    let (digits, blank) = digest.split_at(DIGEST_LEN - 1);
    if blank != b" " || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    serde_json::from_slice(json).ok()
}
