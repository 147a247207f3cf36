//! `snapshot plan` and `snapshot save`: a domain as it is at one moment.

use std::path::Path;

use snapshot::disk::{BackingName, CopyMethod};
use snapshot::image::packed::WORKERS_DEFAULT;
use snapshot::request_json::REQUEST_MAX;
use snapshot::save::{
    DiskRequest, DiskRequestAction, MemoryFormat, MemoryRequest, PlanSaveError, SavePlan,
    SaveRequest, plan_save, save,
};
use snapshot::{Observer, Progress, Target};

use super::bar::Bar;
use super::error::SnapshotError;
use super::host::Host;
use super::refused::refused;
use super::{manifest, new_file, saved, told, transcode};
use crate::arguments::{Asked, DiskSpecAction, FormatChoice, Global, MemorySpec, Save, SaveWhat};
use crate::commands::whole;
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;
use crate::places::Places;

pub(super) fn plan(
    what: &SaveWhat,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let host = Host::open(&what.control, global, places)?;
    let request = request(what, global, &host)?;
    match plan_save(&mut host.access(), request) {
        Ok(plan) => {
            if output.is_json() {
                output.document(&plan)?;
            } else {
                output.text(in_words(&plan))?;
            }
            Ok(Exit::Done)
        }
        Err(error) => not_planned(error, output),
    }
}

pub(super) fn run(
    asked: &Save,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    let cancel = told::cancelled_by_signals()?;
    new_file::must_be_free(&asked.manifest)?;
    let host = Host::open(&asked.what.control, global, places)?;
    let request = request(&asked.what, global, &host)?;
    let mut access = host.access();
    let plan = match plan_save(&mut access, request) {
        Ok(plan) => plan,
        Err(error) => return not_planned(error, output),
    };
    let mut warnings = plan.warnings.clone();
    let mut bar = Bar::new(output);
    let mut show = |progress: &Progress| bar.show(progress);
    let mut observer = Observer::none().progress(&mut show).cancel(&cancel);
    let done = save(&mut access, plan, &mut observer);
    drop(bar);
    // What came of it says more about what the plan has warned of.
    let (snapshot, failure) = match done {
        Ok(snapshot) => (Some(Box::new(snapshot)), None),
        Err(mut failure) => (failure.snapshot.take(), Some(failure)),
    };
    let mut written = Ok(());
    if let Some(snapshot) = &snapshot {
        warnings.retain(|warning| !snapshot.warnings.contains(warning));
        // It is told also if there is no room for it: nobody else knows where the disks are now.
        written = manifest::write(&asked.manifest, snapshot);
        if output.is_json() {
            output.document(snapshot)?;
        } else {
            let planned = warnings.iter().map(|text| format!("warning: {}\n", printable(text)));
            output.text(planned.collect::<String>() + &saved::in_words(snapshot))?;
        }
    }
    match failure {
        Some(failure) => Err(SnapshotError::Save { source: failure }.into()),
        None => written.map(|()| Exit::Done),
    }
}

fn not_planned(error: PlanSaveError, output: &mut Output) -> Result<Exit, CommandError> {
    match error {
        PlanSaveError::Refused { refusals } => refused(&refusals, output),
        source => Err(SnapshotError::PlanSave { source: Box::new(source) }.into()),
    }
}

fn request(what: &SaveWhat, global: &Global, host: &Host) -> Result<SaveRequest, CommandError> {
    if let Some(path) = &what.request {
        let text = text_of(path)?;
        let request = SaveRequest::from_json(&text, &[]);
        return Ok(request.map_err(|source| SnapshotError::Request { path: path.clone(), source })?);
    }
    // clap has seen to it that there is one.
    let domain = host.find(what.domain.as_deref().unwrap_or_default())?;
    let asked = &what.asked;
    let mut request = SaveRequest::new(domain);
    if let Some(timeout) = global.timeout {
        request.deadlines.total = timeout;
    }
    request.memory = asked.memory.as_ref().map(|memory| memory_of(memory, asked)).transpose()?;
    request.xenstore = asked.xenstore_state.clone().map(Target::Path);
    request.disks = asked
        .disks
        .iter()
        .map(|disk| DiskRequest {
            vdev: disk.vdev.clone(),
            action: action_of(&disk.action, asked.digest_disks),
        })
        .collect();
    request.qmp = asked.qmp.clone().or_else(|| host.qmp_of(&domain));
    request.journal = asked.journal.clone().map(Target::Path);
    if let Some(after) = asked.after {
        request.after = after.into();
    }
    if let Some(hold) = asked.hold {
        request.hold = hold.into();
    }
    if let Some(consistency) = asked.min_consistency {
        request.min_consistency = consistency.into();
    }
    Ok(request)
}

fn text_of(path: &Path) -> Result<String, CommandError> {
    let octets = whole::read(path, REQUEST_MAX as u64)?;
    String::from_utf8(octets)
        .map_err(|_| SnapshotError::RequestNotText { path: path.to_owned() }.into())
}

fn memory_of(memory: &MemorySpec, asked: &Asked) -> Result<MemoryRequest, SnapshotError> {
    transcode::check_options(memory.format, asked.packing, asked.side_digest.is_some())?;
    let format = match memory.format {
        FormatChoice::Stream => {
            MemoryFormat::Stream { side_digest: asked.side_digest.clone().map(Target::Path) }
        }
        FormatChoice::Mapped => MemoryFormat::Mapped,
        FormatChoice::Packed => MemoryFormat::Packed {
            codec: transcode::codec(asked.packing),
            workers: asked.packing.workers.map_or(WORKERS_DEFAULT, Into::into),
        },
    };
    Ok(MemoryRequest { target: Target::Path(memory.path.clone()), format, live: false })
}

fn action_of(action: &DiskSpecAction, digest: bool) -> DiskRequestAction {
    match action {
        DiskSpecAction::Overlay(path) => DiskRequestAction::ExternalQcow2 {
            overlay: Target::Path(path.clone()),
            node: None,
            overlay_node: None,
            backing: BackingName::Absolute,
            digest,
        },
        DiskSpecAction::Internal(tag) => {
            DiskRequestAction::InternalQcow2 { tag: tag.clone(), node: None }
        }
        DiskSpecAction::Copy(path) => DiskRequestAction::Copy {
            destination: Target::Path(path.clone()),
            method: CopyMethod::ReflinkOrSparse,
            digest,
        },
        DiskSpecAction::Skip(reason) => DiskRequestAction::Skip { reason: reason.clone() },
    }
}

fn in_words(plan: &SavePlan) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&printable(&words));
        text.push('\n');
    };
    for disk in &plan.disks {
        let chain: Vec<_> =
            disk.chain.iter().map(|image| image.path.display().to_string()).collect();
        line(format!("disk {}: {}", disk.vdev, chain.join(" over ")));
        for warning in &disk.warnings {
            line(format!("warning: disk {}: {warning}", disk.vdev));
        }
    }
    for disk in &plan.skipped {
        line(format!("disk {}: is not saved: {}", disk.vdev, disk.reason));
    }
    for file in &plan.files {
        line(format!(
            "creates {} for {}, up to {} octets",
            file.path.display(),
            file.what,
            file.octets_needed
        ));
    }
    for space in &plan.space {
        line(format!(
            "needs {} of {} free octets where {} is to be",
            space.needed,
            space.free,
            space.path.display()
        ));
    }
    for warning in &plan.warnings {
        line(format!("warning: {warning}"));
    }
    let reason = plan.consistency_reason.as_ref().map(|reason| format!(" ({reason})"));
    let consistency = serde_json::to_value(plan.consistency).unwrap_or_default();
    line(format!(
        "consistency: {}{}",
        consistency.as_str().unwrap_or_default(),
        reason.unwrap_or_default()
    ));
    let name = plan.domain.name.as_deref().unwrap_or("without a name");
    line(format!("{name}, domain {}; nothing was changed", plan.domain.identity));
    text
}
