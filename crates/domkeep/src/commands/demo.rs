//! `demo`: the main job on a machine without Xen, on a small host that is shipped with the command.

use std::error::Error;
use std::time::{Duration, Instant};

use libxl_config::retrieve::{DeviceClass, Retrieved, Retriever};
use libxl_config::template::{MemoryStore, TemplateKey, TemplateText, create};
use serde::Serialize;
use uuid::Uuid;
use xenstored::{Embedded, Store};
use xsclient::{Client, DomId, Nodes, Options, Path};

use super::list::{self, Row};
use super::retrieve::Answer;
use super::snapshot::demo as saving;
use crate::exit::{CommandError, Exit};
use crate::explain;
use crate::output::Output;

const NODES: &str = include_str!("../../demo/host/xenstore.txt");

/// As libxl would have filed them, with the NUL at the end.
const TEMPLATES: [(u16, &str, &[u8]); 3] = [
    (
        0,
        "00000000-0000-0000-0000-000000000000",
        include_bytes!(
            "../../demo/host/userdata-d.0.00000000-0000-0000-0000-000000000000.libxl-json"
        ),
    ),
    (
        1,
        "7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01",
        include_bytes!(
            "../../demo/host/userdata-d.1.7d1c2a90-4b1e-4c7d-9a55-0b6f2f1d6a01.libxl-json"
        ),
    ),
    (
        2,
        "e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02",
        include_bytes!(
            "../../demo/host/userdata-d.2.e2f4b6d8-10ac-4e35-8f77-5c9d3b2a4e02.libxl-json"
        ),
    ),
];

const WEB: DomId = DomId::new(1);
const DB: DomId = DomId::new(2);

/// The backend of the disk that was being plugged in.
const BACKEND: &str = "/local/domain/0/backend/vbd/1/51744";

/// What the hotplug script and both drivers write when plugging comes to its end.
const END_OF_HOTPLUG: [(&str, &str); 3] = [
    ("/local/domain/0/backend/vbd/1/51744/hotplug-status", "connected"),
    ("/local/domain/0/backend/vbd/1/51744/state", "4"),
    ("/local/domain/1/device/vbd/51744/state", "4"),
];

/// How long the embedded server may take for anything; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) fn run(output: &mut Output) -> Result<Exit, CommandError> {
    let mut host = Host::new()?;
    let rows = host.list();
    let db = host.retrieve(DB)?;
    let before = host.retrieve(WEB)?;
    let event = host.finish_hotplug()?;
    let after = host.retrieve(WEB)?;
    let snapshot = saving::run(output.is_json())?;
    if output.is_json() {
        output.document(&Told {
            list: rows,
            db: Answer::of(&db, true),
            web_before: Answer::of(&before, true),
            event: &event,
            web_after: Answer::of(&after, true),
            revision_changed: before.revision != after.revision,
            snapshot: &snapshot,
        })?;
    } else {
        output
            .text(in_words(&rows, &db, &before, &event, &after) + &snapshot_in_words(&snapshot))?;
    }
    Ok(Exit::Done)
}

#[derive(Serialize)]
struct Told<'r> {
    list: Vec<Row>,
    db: Answer<'r>,
    web_before: Answer<'r>,
    event: &'r str,
    web_after: Answer<'r>,
    revision_changed: bool,
    snapshot: &'r saving::Told,
}

/// A host that is all in this process.
struct Host {
    client: Client,
    templates: MemoryStore,
}

impl Host {
    fn new() -> Result<Self, CommandError> {
        let store = Store::from_text(NODES).map_err(broken)?;
        let transport = Box::new(Embedded::new(store).transport(DomId::DOM0));
        let client = Client::over(transport, Options::with_timeout(PATIENCE));
        let templates = MemoryStore::new();
        for (domid, uuid, octets) in TEMPLATES {
            let key = TemplateKey::new(DomId::new(domid), uuid.parse::<Uuid>().map_err(broken)?);
            let text = octets.strip_suffix(b"\0").unwrap_or(octets);
            let text = TemplateText::new(text).map_err(broken)?;
            create(&templates, &key, &text, Instant::now() + PATIENCE)?;
        }
        Ok(Self { client, templates })
    }

    fn list(&mut self) -> Vec<Row> {
        let mut retriever = Retriever::new(&mut self.client, &self.templates).timeout(PATIENCE);
        list::rows(&list::listed(retriever.retrieve_all(&[DomId::DOM0, WEB, DB])))
    }

    fn retrieve(&mut self, domid: DomId) -> Result<Retrieved, CommandError> {
        let mut retriever = Retriever::new(&mut self.client, &self.templates).timeout(PATIENCE);
        Ok(retriever.retrieve(domid)?)
    }

    /// Does what the script and the drivers would have done, and gives the path that a watch told of first.
    fn finish_hotplug(&mut self) -> Result<String, CommandError> {
        let watch = self.client.watch(BACKEND.parse::<Path>().map_err(broken)?, None)?;
        for (path, value) in END_OF_HOTPLUG {
            self.client.write(&path.parse().map_err(broken)?, value.as_bytes())?;
        }
        let mut told = String::new();
        while let Some(event) = self.client.next_event(&watch, PATIENCE)? {
            if !event.first {
                told = event.path.as_str().to_owned();
                break;
            }
        }
        self.client.unwatch(&watch)?;
        Ok(told)
    }
}

fn broken(error: impl Error + Send + Sync + 'static) -> CommandError {
    CommandError::Demo(Box::new(error))
}

fn in_words(
    rows: &[Row],
    db: &Retrieved,
    before: &Retrieved,
    event: &str,
    after: &Retrieved,
) -> String {
    let xvdc = |retrieved: &Retrieved| {
        let device = retrieved.report.device(DeviceClass::Disk, "xvdc");
        device.map(explain::device).unwrap_or_default()
    };
    let writes: String =
        END_OF_HOTPLUG.iter().map(|(path, value)| format!("    {path} = \"{value}\"\n")).collect();
    format!(
        "\
A Xen host in this process: an embedded Xenstore, three templates as libxl keeps them, no Xen.

$ domkeep list
{list}
1. The guest `db`: its template, and what is true now
-----------------------------------------------------

The template is what a guest was created from, and what plugging devices in has added since. This one says `db-new`,
2 GiB, four virtual CPUs, two disks. Somebody has renamed the guest, has taken memory and CPUs from it, and has unplugged
a disk. The template knows nothing of that; Xenstore does. `retrieve` lays one over the other and says what came from where:

$ domkeep retrieve db --report
{db}
2. The guest `web`: a disk that is only half there
--------------------------------------------------

Somebody plugged in a third disk, xvdc, and the command was killed while the hotplug script ran. The disk is in the
template and in Xenstore, so `xl list -l` shows it like any other. But its backend still is in state 2 and there is no
hotplug-status, so the script never came to its end:

$ domkeep retrieve web --report
{before}
3. The hotplug comes to its end
-------------------------------

{writes}
A watch told of {event}, so the configuration is retrieved again. It is another answer, and
has another revision:

$ domkeep retrieve web --report
{after}
    xvdc before: {xvdc_before}
    xvdc after:  {xvdc_after}

",
        list = list::table(rows),
        db = explain::report(db),
        before = explain::report(before),
        after = explain::report(after),
        xvdc_before = xvdc(before),
        xvdc_after = xvdc(after),
    )
}

fn snapshot_in_words(told: &saving::Told) -> String {
    format!(
        "\
4. A running guest is saved and brought back
--------------------------------------------

Another host, in a process of its own, which `domkeep simulate serve` runs in a directory DIR that is gone at the end. Its guest
writes to its memory and its two disks all the time, and stops if it ever reads something else than it wrote. `save` takes
memory, disks, configuration and Xenstore state of one moment, and the guest goes on; `restore` builds a second guest of
that moment beside it. Every path is the caller's:

{}On a Xen host: `domkeep list`, `domkeep retrieve DOMAIN --report`, `domkeep retrieve DOMAIN --watch`.
",
        told.in_words()
    )
}
