//! Keeps a copy of every domain's configuration: what an operator backs up, to have the domains again after the host is lost.
//!
//! For each domain DIR/NAME-UUID.json is what `xl list -l` would show if it told the truth, and DIR/NAME-UUID.report.json says
//! where every value came from. A file is complete or as it was before; an answer that is not the whole truth goes to
//! NAME-UUID.partial.json instead; what belongs to no domain any more goes to DIR/gone.
//!
//! Exit status: 0 if all of every domain was seen, 1 if something was not, 2 if nothing could be looked at. With `--watch` it goes
//! on whenever something changes, until it is killed, which it may be at any moment.

mod changes;
mod files;

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use libxl_config::Layout;
use libxl_config::retrieve::{
    Consistency, Report, RetrieveError, Retrieved, Retriever, TemplateSource, Unseen,
};
use libxl_config::template::UserdataDir;
use xsclient::{Client, DomId, Endpoint, Options, on_one_line};

use crate::changes::Changes;
use crate::files::{Files, Stem};

/// How long one look at all domains may take.
const LIMIT: Duration = Duration::from_secs(60);

const USAGE: &str = "\
usage: config_exporter --output DIR [--xenstore SOCKET] [--templates DIR] [--watch]
  --output DIR       where the configurations go; the directory must exist
  --xenstore SOCKET  Xenstore's socket; else it is searched for as the stock tools do
  --templates DIR    where libxl keeps its templates; else /var/lib/xen
  --watch            go on whenever something changes";

struct Arguments {
    xenstore: Option<PathBuf>,
    templates: PathBuf,
    output: PathBuf,
    watch: bool,
}

impl Arguments {
    /// `None` if they make no sense.
    fn of(mut given: impl Iterator<Item = OsString>) -> Option<Self> {
        let (mut xenstore, mut output, mut watch) = (None, None, false);
        let mut templates = PathBuf::from(UserdataDir::HOST_PATH);
        while let Some(option) = given.next() {
            match option.to_str()? {
                "--watch" => watch = true,
                "--xenstore" => xenstore = Some(given.next()?.into()),
                "--templates" => templates = given.next()?.into(),
                "--output" => output = Some(given.next()?.into()),
                _ => return None,
            }
        }
        Some(Self { xenstore, templates, output: output?, watch })
    }
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::of(env::args_os().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("config_exporter: {}", on_one_line(error.as_ref()));
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let mut exporter = Exporter::open(arguments)?;
    if !arguments.watch {
        return exporter.export();
    }
    // Watched before the first look, so that no change falls in between.
    let changes = Changes::watch(exporter.connect()?, &arguments.templates)?;
    loop {
        exporter.export()?;
        changes.wait()?;
    }
}

struct Exporter {
    endpoint: Endpoint,
    client: Client,
    templates: UserdataDir,
    files: Files,
}

impl Exporter {
    fn open(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let endpoint = arguments.xenstore.clone().map_or(Endpoint::Search, Endpoint::UnixSocket);
        let client = Client::open(endpoint.clone(), Options::default())?;
        let templates = UserdataDir::open(&arguments.templates)?;
        Ok(Self { endpoint, client, templates, files: Files::open(&arguments.output)? })
    }

    /// Another connection: a watch needs one of its own if it is to be waited for while this one is in use.
    fn connect(&self) -> Result<Client, Box<dyn Error>> {
        Ok(Client::open(self.endpoint.clone(), Options::default())?)
    }

    /// Looks at all domains; `true` if all of each was seen.
    fn export(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut retriever = Retriever::new(&mut self.client, &self.templates).timeout(LIMIT);
        let domids = retriever.domains()?;
        if !domids.contains(&DomId::DOM0) {
            // A server that has just been started anew: not the moment to take every domain for gone.
            return Err("Xenstore does not know domain 0, so it is not believed".into());
        }
        // All at once: up to 32 domains share their round trips, and each has an answer of its own.
        let answers = retriever.retrieve_all(&domids);
        let mut stems = BTreeSet::new();
        let (mut whole, mut not_known) = (0, false);
        for (domid, answer) in &answers {
            match answer {
                Ok(retrieved) => {
                    let stem = Stem::of(*domid, &retrieved.config);
                    not_known |= !stem.is_certain();
                    whole += usize::from(self.keep(&stem, retrieved)?);
                    stems.insert(stem);
                }
                // It has gone since the list was read.
                Err(RetrieveError::NoSuchDomain { .. }) => whole += 1,
                Err(error) => {
                    not_known = true;
                    println!("not seen: {}", on_one_line(error));
                }
            }
        }
        if not_known {
            // A domain that could not be seen may own any of the files.
            println!("nothing is taken for gone");
        } else {
            for file in self.files.move_gone(&stems)? {
                println!("gone: {file}");
            }
        }
        let all = whole == answers.len();
        println!("{whole} of {} domains seen whole", answers.len());
        Ok(all)
    }

    /// Keeps an answer; `true` if it is the whole truth.
    fn keep(&self, stem: &Stem, retrieved: &Retrieved) -> Result<bool, Box<dyn Error>> {
        let missing = missing(&retrieved.report);
        // As octets, for what was no UTF-8 in the template stays as it is.
        let configuration = retrieved.config.to_value().to_octets(Layout::Yajl);
        let report = serde_json::to_vec_pretty(&retrieved.report)?;
        let is_new = self.files.keep(stem, missing.is_empty(), &configuration, &report)?;
        for what in &missing {
            println!("partial: {stem}: {what}");
        }
        if missing.is_empty() && is_new {
            println!("kept: {stem}");
        }
        Ok(missing.is_empty())
    }
}

/// What keeps an answer from being the whole truth.
///
/// A device that is half attached is none of that: it is so, and the report says it.
fn missing(report: &Report) -> Vec<String> {
    let mut missing = Vec::new();
    match &report.template {
        TemplateSource::Found { .. } => {}
        TemplateSource::Unreadable { error } => missing.push(format!("template: {error}")),
        _ => missing.push("no template, so only what Xenstore knows".to_owned()),
    }
    if !matches!(report.consistency, Consistency::Consistent { .. }) {
        missing.push("it kept changing while it was read".to_owned());
    }
    let knobs = report.knobs.iter().filter_map(|knob| knob.problem.as_ref());
    let devices = report.devices.iter().flat_map(|device| &device.problems);
    missing.extend(knobs.chain(devices).map(|problem| format!("{}: {}", problem.at, problem.what)));
    for unseen in &report.unseen {
        // What only the hypervisor knows is the template's here, by design: nobody was asked.
        if !matches!(unseen, Unseen::Hypervisor { .. }) {
            missing.push(serde_json::to_string(unseen).unwrap_or_else(|error| error.to_string()));
        }
    }
    missing
}
