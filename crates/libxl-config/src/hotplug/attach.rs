//! Attaching.

use std::time::Instant;

use serde::Serialize;
use xsclient::{Batch, Client, Commit, DomId, Failure, Nodes, OperationError, Transaction};

use super::begin::{Begun, begin};
use super::claim::{Claimed, NotClaimed};
use super::error::{AttachError, BeginError, Left, StepError};
use super::place::{Place, fixed, kind_of};
use super::plan::{Facts, Plan};
use super::plugger::{ATTEMPTS_MAX, Hotplug};
use super::script::Action;
use super::wait::Ends;
use super::{Device, DeviceId};
use crate::DomainError;
use crate::domain::Domain;
use crate::retrieve::{Attachment, BackendState, DeviceClass, Missing, disks};
use crate::template::{Revision, steps};

/// A device that was attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Attached {
    /// Which it is.
    pub id: DeviceId,
    /// Connected, or waiting for a guest that has no driver for it (yet).
    pub attachment: Attachment,
    /// Whether it took the place of a template's entry that Xenstore did not have.
    pub replaced_entry: bool,
    /// The template that has it.
    pub revision: Revision,
}

impl Hotplug<'_> {
    /// Attaches a device to a running domain, in both views.
    ///
    /// What the entry leaves open is chosen as libxl does: the backend of a disk, number, address, bridge and script of a
    /// nic. It returns once both ends are connected, or when the guest has not answered within
    /// [`Timeouts::connect`](super::Timeouts::connect): a guest without a driver is no error, but is said.
    ///
    /// # Errors
    /// [`AttachError::Refused`] with everything that speaks against it. After [`AttachError::Failed`] it was undone, or is
    /// left half attached, as the error says; after any other error nothing was changed.
    pub fn attach(&mut self, domid: DomId, device: &Device) -> Result<Attached, AttachError> {
        let domain = self.domain(domid)?;
        let key = domain.key()?;
        let xenstore = |source| AttachError::Xenstore { domid, source };
        let directory = self.script_directory.clone();
        let facts = Facts::read(self.client, domid, &directory).map_err(xenstore)?;
        let plan = Plan::of(device, &facts)
            .map_err(|refusals| AttachError::Refused { domid, refusals })?;
        let deadline = Instant::now() + self.timeouts.lock;
        let templates = self.templates;
        let mut begun = begin(templates, &key, deadline)?;
        steps::reached("attach: locked");
        let made = self.make(&domain, &plan, &mut begun)?;
        let Made { place, claimed, before, unanswered } = made;
        steps::reached("attach: committed");
        let id = place.id;
        if let Some(error) = unanswered
            && !claimed.stands(self.client).unwrap_or(true)
        {
            return Err(AttachError::Xenstore { domid, source: error });
        }
        let revision = match begun.store(deadline) {
            Ok(revision) => revision,
            Err(error) => {
                let mut left = self.unmake(&place, &claimed);
                if left == Left::Nothing && begun.is_stored() {
                    left = Left::Some { why: "the template may have the device".to_owned() };
                }
                let source = Box::new(error.into());
                return Err(AttachError::Failed { domid, id, left, source });
            }
        };
        steps::reached("attach: template written");
        // From here on xl may work on the domain.
        begun.abort();
        steps::reached("attach: unlocked");
        let script = plan.script.as_deref().map(|script| (script, &plan.names));
        match self.bring_up(&place, script) {
            Ok(attachment) => {
                claimed.release(self.client);
                steps::reached("attach: claim released");
                Ok(Attached { id, attachment, replaced_entry: before.is_some(), revision })
            }
            Err(error) => {
                let limit = self.timeouts.undo;
                let undone =
                    self.take_down(&domain, &place, &claimed, script, limit, before.as_ref());
                let left = match undone {
                    Ok(_) => Left::Nothing,
                    Err(why) => {
                        claimed.release(self.client);
                        Left::Some { why: why.to_string() }
                    }
                };
                Err(AttachError::Failed { domid, id, left, source: Box::new(error) })
            }
        }
    }

    /// From the nodes to a device that works: backend, script, connection. Safe to repeat.
    pub(super) fn bring_up(
        &mut self,
        place: &Place,
        script: Option<(&str, &super::script::NicNames)>,
    ) -> Result<Attachment, StepError> {
        let ends = self.await_backend(place)?;
        steps::reached("attach: backend waits");
        if let Some((script, names)) = script
            && ends.hotplug_status.as_deref() != Some("connected")
        {
            self.run_script(place, script, names, Action::Add)?;
            steps::reached("attach: script done");
        }
        let ends = self.await_connection(place)?;
        steps::reached("attach: connected");
        Ok(attachment(&ends))
    }

    /// Commits the nodes, and puts the entry into the template that is about to be written.
    fn make(
        &mut self,
        domain: &Domain,
        plan: &Plan,
        begun: &mut Begun<'_>,
    ) -> Result<Made, AttachError> {
        let domid = domain.domid;
        let xenstore = |source| AttachError::Xenstore { domid, source };
        for _ in 0..ATTEMPTS_MAX {
            let mut transaction = self.client.transaction().map_err(xenstore)?;
            let id = match plan.devid() {
                Some(devid) => devid,
                None => next_devid(&mut transaction, domid, plan.class, begun).map_err(xenstore)?,
            };
            let id = DeviceId { class: plan.class, devid: id };
            let place = plan.place(domid, id);
            let claimed = Claimed::new(domid, id, "attach");
            match put_nodes(&mut transaction, domain, plan, &place, &claimed) {
                Ok(()) => {}
                Err(stop) => {
                    drop(transaction);
                    return Err(stop.into_error(domid, id));
                }
            }
            steps::reached("attach: written in the transaction");
            let entry = plan.entry(id);
            let key = *begun.key();
            let replaced = begun.add(&entry);
            let before = replaced.map_err(|source| BeginError::Entry { key, source })?;
            begun.check()?;
            let unanswered = match transaction.commit() {
                Ok(Commit::Committed) => None,
                Ok(Commit::Conflict) => {
                    // It may get another number the next time.
                    begun.remove(id);
                    if let Some(before) = before {
                        begun.add(&before).map_err(|source| BeginError::Entry { key, source })?;
                    }
                    continue;
                }
                Err(error) if is_without_effect(&error) => return Err(xenstore(error)),
                Err(error) => Some(error),
            };
            return Ok(Made { place, claimed, before, unanswered });
        }
        Err(AttachError::Conflict { domid, attempts: ATTEMPTS_MAX })
    }

    /// Takes the nodes away again at once: nobody has run a script for them yet, so nothing has to be taken back.
    fn unmake(&mut self, place: &Place, claimed: &Claimed) -> Left {
        for _ in 0..ATTEMPTS_MAX {
            match remove_nodes(self.client, place, claimed) {
                Ok(Commit::Committed) => return Left::Nothing,
                Ok(Commit::Conflict) => {}
                Err(error) => return Left::Some { why: error.to_string() },
            }
        }
        let why = StepError::Conflict { attempts: ATTEMPTS_MAX }.to_string();
        Left::Some { why }
    }
}

/// Nodes that were committed.
struct Made {
    place: Place,
    claimed: Claimed,
    /// The entry that it took the place of.
    before: Option<Device>,
    /// The commit was sent and not answered.
    unanswered: Option<OperationError>,
}

/// How far a device has come that was just brought up.
fn attachment(ends: &Ends) -> Attachment {
    match ends.backend_state {
        Some(4) => Attachment::Connected,
        Some(2) => Attachment::WaitingForFrontend,
        state => Attachment::HalfAttached {
            backend_state: BackendState(state.unwrap_or_default()),
            missing: Missing::BackendConnection,
        },
    }
}

/// The number behind the highest that anybody has, so that no two devices ever meet in one.
fn next_devid(
    nodes: &mut dyn Nodes,
    domid: DomId,
    class: DeviceClass,
    begun: &Begun<'_>,
) -> Result<u32, OperationError> {
    let kind = kind_of(class);
    let mut taken = Vec::new();
    if class == DeviceClass::P9 {
        // libxl does not compare shares with Xenstore: an entry that is only in the template counts.
        taken = begun.devids(class);
    }
    for directory in [
        format!("/libxl/{domid}/device/{kind}"),
        format!("/local/domain/{domid}/device/{kind}"),
        format!("/local/domain/0/backend/{kind}/{domid}"),
    ] {
        let names = match nodes.directory(&fixed(&directory)) {
            Err(error) if error.is_not_found() => continue,
            names => names?,
        };
        taken.extend(names.iter().filter_map(|name| name.as_str().parse::<u32>().ok()));
    }
    // A guest can make directories in its own tree, but not raise the number beyond what libxl can hold.
    let highest = taken.into_iter().filter(|devid| *devid < 1 << 16).max();
    Ok(highest.map_or(0, |highest| highest + 1))
}

/// Why nodes were not put into the transaction.
enum Stop {
    Exists,
    Occupied(String),
    AnotherDomain,
    Claim(NotClaimed),
}

impl From<OperationError> for Stop {
    fn from(error: OperationError) -> Self {
        Self::Claim(NotClaimed::Xenstore(error))
    }
}

impl Stop {
    fn into_error(self, domid: DomId, id: DeviceId) -> AttachError {
        match self {
            Self::Exists => AttachError::Exists { domid, id },
            Self::Occupied(path) => AttachError::Occupied { domid, id, path },
            Self::AnotherDomain => DomainError::NoSuchDomain { domid }.into(),
            Self::Claim(NotClaimed::By(claim)) => AttachError::Claimed { domid, id, claim },
            Self::Claim(NotClaimed::Xenstore(source)) => AttachError::Xenstore { domid, source },
        }
    }
}

fn put_nodes(
    transaction: &mut Transaction<'_>,
    domain: &Domain,
    plan: &Plan,
    place: &Place,
    claimed: &Claimed,
) -> Result<(), Stop> {
    let seen = transaction.read_optional(&disks::vm_path(place.domid))?;
    if seen != domain.vm {
        return Err(Stop::AnotherDomain);
    }
    let ends = Ends::read(transaction, place)?;
    claimed.put(transaction).map_err(Stop::Claim)?;
    if ends.toolstack {
        return Err(Stop::Exists);
    }
    // A backend that nobody owns any more may still have its script's work below it.
    if ends.backend {
        return Err(Stop::Occupied(place.backend().to_string()));
    }
    let mut batch = Batch::new();
    let mut slots = Vec::new();
    if ends.frontend {
        slots.push(batch.rm(place.frontend()));
    }
    for directory in plan.directories(place) {
        slots.push(batch.mkdir(directory.path.clone()));
        slots.push(batch.set_perms(directory.path.clone(), directory.perms));
        for (key, value) in directory.keys {
            slots.push(batch.write(super::place::under(&directory.path, key), value));
        }
    }
    let (perms, keys) = plan.read_only(place);
    for (key, value) in keys {
        let path = super::place::under(&place.frontend(), key);
        slots.push(batch.write(path.clone(), value.clone()));
        slots.push(batch.set_perms(path, perms.clone()));
    }
    let mut replies = transaction.run(batch)?;
    // libxl ignores what is refused here, and commits half a device.
    for slot in slots {
        replies.take(slot)?;
    }
    Ok(())
}

/// Removes what is left of a device, with directories that are empty then, and the claim.
pub(super) fn remove_nodes(
    client: &mut Client,
    place: &Place,
    claimed: &Claimed,
) -> Result<Commit, OperationError> {
    let mut transaction = client.transaction()?;
    remove_in(&mut transaction, place, claimed)?;
    transaction.commit()
}

pub(super) fn remove_in(
    transaction: &mut Transaction<'_>,
    place: &Place,
    claimed: &Claimed,
) -> Result<(), OperationError> {
    for path in [place.frontend(), place.toolstack(), place.backend()] {
        if transaction.read_optional(&path)?.is_some() {
            transaction.rm(&path)?;
        }
    }
    for parent in place.parents() {
        match transaction.directory(&parent) {
            Ok(children) if children.is_empty() => transaction.rm(&parent)?,
            Ok(_) => {}
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    claimed.take_out(transaction)
}

/// Whether a failed commit is known to have written nothing.
pub(super) fn is_without_effect(error: &OperationError) -> bool {
    matches!(error.failure(), Failure::Refused(_) | Failure::Timeout { sent: false })
}
