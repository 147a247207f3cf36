//! `simulate create`, `list` and `destroy`: the domains of a simulated host.

use std::path::{Path, PathBuf};

use serde::Serialize;
use snapshot::control::{DomainControl, DomainState, DomainView};
use snapshot::simulated::{DomainSpec, GuestSpec, Operator, SimulatedDomain};
use uuid::Uuid;

use crate::arguments::{ImageFormat, NewDomain};
use crate::commands::ids::random_uuid;
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;
use crate::places::Places;

const PAGES_PER_MIB: u64 = 256;

/// One domain, as it is printed.
#[derive(Serialize)]
struct Row {
    domid: u16,
    uuid: Uuid,
    name: Option<String>,
    state: DomainState,
    /// The last tick that its guest has done.
    tick: Option<u64>,
    /// The QMP socket of the process that has its qcow2 disks open.
    qmp: Option<PathBuf>,
}

pub(super) fn create(
    asked: NewDomain,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let operator = Operator::new(&asked.host);
    let uuid = asked.uuid.map_or_else(random_uuid, Ok)?;
    let mut guest = GuestSpec::new(asked.seed, asked.memory_mib * PAGES_PER_MIB);
    guest.vcpus = asked.vcpus;
    let mut spec = DomainSpec::new(asked.name, uuid, guest);
    for disk in asked.disks {
        // The host has another directory.
        let path = std::path::absolute(&disk.path).map_err(|source| CommandError::File {
            path: disk.path,
            action: "named absolutely",
            source,
        })?;
        spec = match disk.format {
            ImageFormat::Raw => spec.with_disk(disk.vdev, path),
            ImageFormat::Qcow2 => spec.with_qcow2_disk(disk.vdev, path),
        };
    }
    let mut view = operator.create(spec, places.deadline())?;
    if asked.start {
        let control = SimulatedDomain::new(&asked.host);
        control.unpause(&view.identity, places.deadline())?;
        view.state = DomainState::Running;
    }
    let row = row(&operator, view, places);
    if output.is_json() {
        output.document(&row)?;
    } else {
        output.text(table(&[row]))?;
    }
    Ok(Exit::Done)
}

pub(super) fn list(
    host: &Path,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let operator = Operator::new(host);
    let views = SimulatedDomain::new(host).list(places.deadline())?;
    let rows: Vec<_> = views.into_iter().map(|view| row(&operator, view, places)).collect();
    if output.is_json() {
        output.document(&rows)?;
    } else {
        output.text(table(&rows))?;
    }
    Ok(Exit::Done)
}

pub(super) fn destroy(
    host: &Path,
    which: &str,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let control = SimulatedDomain::new(host);
    let domid = which.parse().ok();
    let is_meant = |view: &DomainView| match domid {
        Some(domid) => view.identity.domid == domid,
        // Names are unique on a simulated host.
        None => view.name.as_deref() == Some(which),
    };
    let views = control.list(places.deadline())?;
    let view = views.into_iter().find(is_meant);
    let view = view.ok_or_else(|| CommandError::NoSimulatedDomain { which: which.to_owned() })?;
    control.destroy(&view.identity, places.deadline())?;
    if output.is_json() {
        output.document(&view.identity)?;
    }
    Ok(Exit::Done)
}

/// A domain may go at any time: then only what was seen of it is printed.
fn row(operator: &Operator, view: DomainView, places: &Places) -> Row {
    let looked = operator.inspect(&view.identity, false, places.deadline()).ok();
    let (tick, qmp) = looked.map_or((None, None), |found| (Some(found.tick), found.qmp));
    let (domid, uuid) = (view.identity.domid.get(), view.identity.uuid);
    Row { domid, uuid, name: view.name, state: view.state, tick, qmp }
}

fn table(rows: &[Row]) -> String {
    let mut text = format!("{:>5}  {:36}  {:20}  {:>8}  NAME\n", "ID", "UUID", "STATE", "TICK");
    for row in rows {
        let tick = row.tick.map_or_else(|| "-".to_owned(), |tick| tick.to_string());
        let (state, name) =
            (row.state.to_string(), row.name.as_deref().map_or("-".to_owned(), printable));
        text.push_str(&format!(
            "{:>5}  {:36}  {state:20}  {tick:>8}  {name}\n",
            row.domid,
            row.uuid.to_string()
        ));
    }
    text
}
