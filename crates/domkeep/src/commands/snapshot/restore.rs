//! `snapshot restore`: a saved domain, beside others or in the place of one.

use std::collections::BTreeMap;

use snapshot::restore::{
    DiskRestore, NewIdentity, NicChange, PlanRestoreError, RestoreMode, RestorePlan,
    RestoreRequest, Restored, Source, Start, UuidChoice,
};
use snapshot::{Observer, Progress, Target, plan_restore, restore};

use super::bar::Bar;
use super::error::SnapshotError;
use super::host::Host;
use super::refused::refused;
use super::{manifest, told};
use crate::arguments::{Global, ImageSpec, Restore, RestoreDiskSpec, UuidSpec};
use crate::commands::ids::random_uuid;
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: Restore,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let cancel = told::cancelled_by_signals()?;
    let snapshot = manifest::read(&asked.manifest)?;
    let host = Host::open(&asked.control, global, places)?;
    let (dry_run, manifest) = (asked.dry_run, asked.manifest.clone());
    let mut request = RestoreRequest::new(snapshot);
    if let Some(timeout) = global.timeout {
        request.deadlines.total = timeout;
    }
    fill(&mut request, asked, &host)?;
    let mut access = host.access();
    let plan = match plan_restore(&mut access, request) {
        Ok(plan) => plan,
        Err(PlanRestoreError::Refused { refusals }) => return refused(&refusals, output),
        Err(source) => return Err(SnapshotError::PlanRestore { source }.into()),
    };
    if dry_run {
        if output.is_json() {
            output.document(&plan)?;
        } else {
            output.text(plan_in_words(&plan))?;
        }
        return Ok(Exit::Done);
    }
    let mut bar = Bar::new(output);
    let mut show = |progress: &Progress| bar.show(progress);
    let mut observer = Observer::none().progress(&mut show).cancel(&cancel);
    let restored = restore(&mut access, plan, &mut observer);
    drop(bar);
    match restored {
        Ok(restored) => {
            tell(&restored, output)?;
            Ok(Exit::Done)
        }
        Err(failure) => {
            if let Some(restored) = &failure.restored {
                tell(restored, output)?;
            }
            Err(SnapshotError::Restore { path: manifest, source: failure.into() }.into())
        }
    }
}

fn fill(request: &mut RestoreRequest, asked: Restore, host: &Host) -> Result<(), CommandError> {
    request.memory = asked.memory.map(Source::Path);
    request.xenstore = asked.xenstore_state.map(Source::Path);
    if let Some(domid) = asked.replace {
        let domain = host.find(&domid.to_string())?;
        request.mode = RestoreMode::Replace { domain, free_first: asked.free_first };
    }
    let uuid = match asked.uuid {
        UuidSpec::Keep => UuidChoice::Keep,
        UuidSpec::New => UuidChoice::New(random_uuid()?),
        UuidSpec::This(uuid) => UuidChoice::New(uuid),
    };
    request.identity = NewIdentity { name: asked.as_name, uuid };
    for RestoreDiskSpec { vdev, image } in asked.disks {
        if request.disks.insert(vdev.clone(), image_of(image)).is_some() {
            return Err(SnapshotError::DiskTwice { vdev }.into());
        }
    }
    let mut nics: BTreeMap<u32, NicChange> = BTreeMap::new();
    for mac in asked.macs {
        nics.entry(mac.devid).or_default().mac = Some(mac.mac);
    }
    for bridge in asked.bridges {
        nics.entry(bridge.devid).or_default().bridge = Some(bridge.bridge);
    }
    request.nics = nics;
    request.start = if asked.paused { Start::Paused } else { Start::Run };
    request.verify = asked.verify.into();
    request.journal = asked.journal.map(Target::Path);
    Ok(())
}

fn image_of(image: ImageSpec) -> DiskRestore {
    match image {
        ImageSpec::Overlay(path) => DiskRestore::NewOverlay { overlay: Target::Path(path) },
        ImageSpec::Frozen => DiskRestore::FrozenReadOnly,
        ImageSpec::Active => DiskRestore::AdoptActive,
        ImageSpec::Configured => DiskRestore::AsConfigured,
        ImageSpec::Image { path, format, verify } => DiskRestore::Image { path, format, verify },
    }
}

/// Says what there is.
fn tell(restored: &Restored, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() { output.document(restored) } else { output.text(in_words(restored)) }
}

pub(super) fn in_words(restored: &Restored) -> String {
    let mut text = String::new();
    for disk in &restored.disks {
        let rights = if disk.writable { "" } else { ", read-only" };
        let (path, format) = (disk.image.path.display(), disk.image.format);
        text.push_str(&printable(&format!("{}: {path} ({format}{rights})", disk.vdev)));
        text.push('\n');
    }
    if let Some(xenstore) = &restored.xenstore {
        text.push_str(&format!("Xenstore: {} changes\n", xenstore.changes));
        for unapplied in &xenstore.unapplied {
            text.push_str(&format!("not restored: {}\n", printable(unapplied)));
        }
    }
    for warning in &restored.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    let name = printable(&restored.name);
    match (&restored.domain, &restored.state) {
        (Some(domain), Some(state)) => {
            text.push_str(&format!("{name}: domain {domain} is {state}\n"));
        }
        (Some(domain), None) => text.push_str(&format!("{name}: domain {domain}\n")),
        (None, _) => text.push_str(&format!(
            "{name}: its memory was not saved; create it from the configuration, which --json tells\n"
        )),
    }
    text
}

fn plan_in_words(plan: &RestorePlan) -> String {
    let mut text = String::new();
    for disk in &plan.disks {
        let over = disk.over.as_ref().map(|over| format!(" over {}", over.path.display()));
        let rights = if disk.writable { "" } else { ", read-only" };
        let (path, format) = (disk.image.path.display(), disk.image.format);
        let over = over.unwrap_or_default();
        text.push_str(&printable(&format!("{}: {path} ({format}{rights}){over}", disk.vdev)));
        text.push('\n');
    }
    for path in &plan.creates {
        text.push_str(&printable(&format!("creates {}", path.display())));
        text.push('\n');
    }
    for space in &plan.space {
        let line = format!(
            "needs {} of {} free octets where {} is to be",
            space.needed,
            space.free,
            space.path.display()
        );
        text.push_str(&printable(&line));
        text.push('\n');
    }
    for warning in &plan.warnings {
        text.push_str(&format!("warning: {}\n", printable(warning)));
    }
    let how = match &plan.mode {
        RestoreMode::New => "beside others".to_owned(),
        RestoreMode::Replace { domain, .. } => format!("in the place of {domain}"),
    };
    text.push_str(&format!(
        "{} ({}): {how}; nothing was changed\n",
        printable(&plan.name),
        plan.uuid
    ));
    text
}
