//! 10,000 templates stored and loaded durably, in the embedded store and in libxl's directory.

use std::error::Error;
use std::time::{Duration, Instant};

use libxl_config::template::{
    SledStore, TemplateKey, TemplateStore, TemplateText, UserdataDir, create, create_many,
};

use crate::host;
use crate::measure::{micros_each, ratio};

const TEMPLATES: u16 = 10_000;
const TIMEOUT: Duration = Duration::from_secs(600);

/// Both stores on the same disk, in one run.
pub(crate) fn run() -> Result<(), Box<dyn Error>> {
    // Not the temporary directory: that may be memory, where syncing costs nothing.
    let target = concat!(env!("CARGO_MANIFEST_DIR"), "/../target");
    let templates: Vec<(TemplateKey, TemplateText)> = (1..=TEMPLATES).map(host::template).collect();
    let octets: usize = templates.iter().map(|(_, text)| text.octets().len()).sum();
    println!(
        "{TEMPLATES} templates of {} octets each, on the disk of {target}",
        octets / templates.len()
    );
    println!(
        "{:<10} {:>18} {:>18} {:>12} {:>12}",
        "store", "stored singly us", "stored in bulk us", "loaded us", "listed us"
    );
    let mut figures = Vec::new();
    for name in ["sled", "userdata"] {
        let open = |dir: &std::path::Path| -> Result<Box<dyn TemplateStore>, Box<dyn Error>> {
            Ok(match name {
                "sled" => Box::new(SledStore::open_or_create(dir.join("db"), deadline())?),
                _ => Box::new(UserdataDir::open(dir)?),
            })
        };
        let singly = tempfile::tempdir_in(target)?;
        let store = open(singly.path())?;
        let start = Instant::now();
        for (key, text) in &templates {
            create(&*store, key, text, deadline())?;
        }
        let stored = start.elapsed();
        drop(store);
        let bulk_dir = tempfile::tempdir_in(target)?;
        let store = open(bulk_dir.path())?;
        let start = Instant::now();
        create_many(&*store, &templates, deadline())?;
        let bulk = start.elapsed();
        drop(store);
        // Opened again, so that what is loaded was stored.
        let store = open(bulk_dir.path())?;
        let start = Instant::now();
        for (key, text) in &templates {
            let loaded = store.load(key, deadline())?.ok_or("a template is gone")?;
            if loaded.octets != text.octets() {
                return Err(format!("{key} came back changed").into());
            }
        }
        let loaded = start.elapsed();
        let start = Instant::now();
        let listed = store.keys(deadline())?.len();
        if listed != templates.len() {
            return Err(format!("{listed} templates listed").into());
        }
        let listing = start.elapsed();
        println!(
            "{name:<10} {:>18.1} {:>18.1} {:>12.1} {:>12.1}",
            micros_each(stored, templates.len()),
            micros_each(bulk, templates.len()),
            micros_each(loaded, templates.len()),
            micros_each(listing, templates.len()),
        );
        figures.push((stored, bulk, loaded));
    }
    if let [sled, userdata] = figures[..] {
        println!(
            "userdata / sled: stored singly {:.2}, in bulk {:.2}, loaded {:.2}",
            ratio(userdata.0, sled.0),
            ratio(userdata.1, sled.1),
            ratio(userdata.2, sled.2)
        );
    }
    Ok(())
}

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}
