//! A template that changes together with what the caller does to Xenstore: begin, add or remove, commit or abort.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libxl_config::DomainError;
use libxl_config::Layout;
use libxl_config::hotplug::{BeginError, Begun, CommitError, DeviceName, begin, template_key};
use libxl_config::retrieve::HypervisorView;
use libxl_config::template::{LoadError, TemplateStore, WriteError};
use xsclient::DomId;

use crate::arguments::{domid, empty, invalid, optional_text, required, text};
use crate::boundary::{call, guarded};
use crate::context::Ctx;
use crate::device::{class_of, device_of, entry_of};
use crate::outcome::{give_json, give_text, give_values};
use crate::problem::{Error, Problem, status_of};
use crate::status::Status;
use crate::template::{key, of_lock};

/// A domain's template whose lock is held and which is about to change. It is used by one thread at a time.
pub struct Hotplug {
    // Before what it borrows from, so that it is dropped first.
    begun: Begun<'static>,
    domid: DomId,
    timeout: Duration,
    _templates: Arc<dyn TemplateStore>,
}

/// Takes the lock of a domain's template, which is libxl's own where templates are libxl's, and reads it.
///
/// For a toolstack that plugs devices itself: begin, dk_hotplug_add() or dk_hotplug_remove(), commit the own Xenstore transaction,
/// dk_hotplug_commit(); or dk_hotplug_abort() if that failed. Nothing slow belongs in between: xl waits for the lock.
///
/// `uuid` says which template it is; NULL to find that out from Xenstore or the hypervisor.
///
/// `*hotplug` is NULL unless the call succeeds. It must be committed or aborted. The end of the process releases the lock as well,
/// and leaves the template as it was.
///
/// DK_STATUS_BUSY: somebody held the lock until the deadline. DK_STATUS_NOT_FOUND: there is no such domain, or no template of it.
///
/// # Safety
///
/// `uuid` is NULL or ends with a NUL. `hotplug` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_hotplug_begin(
    ctx: Option<&Ctx>,
    domid: u32,
    uuid: *const c_char,
    hotplug: Option<&mut MaybeUninit<*mut Hotplug>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_begin", error, || {
        let place = empty(hotplug, "hotplug")?;
        let ctx = required(ctx, "ctx")?;
        let id = self::domid(domid)?;
        // SAFETY: as this function's own contract.
        let uuid = unsafe { optional_text(uuid, "uuid") }?;
        let deadline = ctx.deadline();
        let templates = Arc::clone(ctx.templates());
        let key = match uuid {
            Some(uuid) => key(domid, uuid)?,
            None => {
                let hypervisor = ctx.hypervisor()?;
                let view = hypervisor.as_deref().map(|xenctrl| xenctrl as &dyn HypervisorView);
                let found =
                    ctx.read(|client| template_key(client, templates.as_ref(), view, id, deadline));
                found.map_err(|problem| problem.about(id))?
            }
        };
        let store = Arc::as_ptr(&templates);
        // SAFETY: the store lives as long as the handle, which keeps it behind what borrows from it and drops that first.
        let store: &'static dyn TemplateStore = unsafe { &*store };
        let begun = begin(store, &key, deadline).map_err(|error| Problem::from(error).about(id))?;
        let (timeout, _templates) = (ctx.timeout(), templates);
        *place = Box::into_raw(Box::new(Hotplug { begun, domid: id, timeout, _templates }));
        Ok(())
    })
}

/// Puts a device into the template, in place of the entry that it may have already.
///
/// `class` is one of DK_DEVICE_CLASS_DISK, DK_DEVICE_CLASS_NIC and DK_DEVICE_CLASS_P9. `device` is the device's entry in a
/// configuration, as JSON, or what is typed for xl ("format=raw,vdev=xvdb,access=rw,target=/srv/data.img").
///
/// `*replaced`, which may be left out, becomes the entry that was there, as JSON, or NULL. It is freed with free().
///
/// # Safety
///
/// `device` ends with a NUL. `hotplug` is used by no other thread; `replaced` and `error` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_hotplug_add(
    hotplug: Option<&mut Hotplug>,
    class: i32,
    device: *const c_char,
    replaced: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_add", error, || {
        let replaced = replaced.map(|replaced| replaced.write(ptr::null_mut()));
        let hotplug = required(hotplug, "hotplug")?;
        // SAFETY: as this function's own contract.
        let device = device_of(class, unsafe { text(device, "device") }?)?;
        let before = hotplug
            .begun
            .add(&device)
            .map_err(|error| Problem::of(Status::InvalidData, &error).about(hotplug.domid))?;
        match (replaced, before) {
            (Some(place), Some(before)) => give_json(place, &entry_of(&before)?),
            _ => Ok(()),
        }
    })
}

/// Takes a device out of the template. DK_STATUS_NOT_FOUND if it has no such entry.
///
/// `name` is a vdev or its number for a disk, and a devid for the others. `*removed`, which may be left out, becomes the entry,
/// as JSON. It is freed with free().
///
/// # Safety
///
/// `name` ends with a NUL. `hotplug` is used by no other thread; `removed` and `error` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_hotplug_remove(
    hotplug: Option<&mut Hotplug>,
    class: i32,
    name: *const c_char,
    removed: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_remove", error, || {
        let removed = removed.map(|removed| removed.write(ptr::null_mut()));
        let hotplug = required(hotplug, "hotplug")?;
        // SAFETY: as this function's own contract.
        let name = unsafe { text(name, "name") }?;
        let parsed = DeviceName::parse(class_of(class)?, name)
            .map_err(|error| Problem::of(Status::InvalidArgument, &error))?;
        let DeviceName::Id(id) = parsed else {
            return Err(invalid(format!(
                "\"{name}\" is no number: a template knows devices by that"
            )));
        };
        let Some(entry) = hotplug.begun.remove(id) else {
            let message = format!("{}: no {id}", hotplug.begun.key());
            return Err(Problem::new(Status::NotFound, message).about(hotplug.domid));
        };
        removed.map_or(Ok(()), |place| give_json(place, &entry_of(&entry)?))
    })
}

/// The configuration with the changes made so far, which nobody else sees yet. `*configuration` is freed with free().
#[unsafe(no_mangle)]
pub extern "C" fn dk_hotplug_configuration(
    hotplug: Option<&Hotplug>,
    configuration: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_configuration", error, || {
        let place = empty(configuration, "configuration")?;
        let hotplug = required(hotplug, "hotplug")?;
        give_text(place, &hotplug.begun.config().to_json(Layout::Yajl))
    })
}

/// The numbers that the template's devices of a class have, for choosing another: `*count` of them, freed with free(); NULL if
/// there are none.
#[unsafe(no_mangle)]
pub extern "C" fn dk_hotplug_devids(
    hotplug: Option<&Hotplug>,
    class: i32,
    devids: Option<&mut MaybeUninit<*mut u32>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_devids", error, || {
        let place = empty(devids, "devids")?;
        let count = required(count, "count")?.write(0);
        let hotplug = required(hotplug, "hotplug")?;
        give_values(place, count, &hotplug.begun.devids(class_of(class)?))
    })
}

/// Checks that the changes can be written, so that after this nothing but the store can fail. To be called before the own
/// Xenstore transaction is committed.
#[unsafe(no_mangle)]
pub extern "C" fn dk_hotplug_check(
    hotplug: Option<&Hotplug>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_check", error, || {
        let hotplug = required(hotplug, "hotplug")?;
        let checked = hotplug.begun.check();
        checked.map_err(|error| Problem::from(error).about(hotplug.domid))
    })
}

/// Writes the template and releases its lock. Afterwards `hotplug` is no more, however the call ends.
///
/// If it fails, the template is the old one or the new one, and complete.
#[unsafe(no_mangle)]
pub extern "C" fn dk_hotplug_commit(
    hotplug: Option<Box<Hotplug>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_hotplug_commit", error, || {
        let Hotplug { begun, domid, timeout, _templates } = *required(hotplug, "hotplug")?;
        let committed = begun.commit(Instant::now() + timeout);
        committed.map(drop).map_err(|error| Problem::from(error).about(domid))
    })
}

/// Releases the lock and leaves the template as it was. Afterwards `hotplug` is no more. NULL is nothing to abort.
#[unsafe(no_mangle)]
pub extern "C" fn dk_hotplug_abort(hotplug: Option<Box<Hotplug>>) {
    guarded(|| drop(hotplug));
}

impl From<BeginError> for Problem {
    fn from(error: BeginError) -> Self {
        Self::of(of_begin(&error), &error)
    }
}

pub(crate) fn of_begin(error: &BeginError) -> Status {
    match error {
        BeginError::Lock(error) => of_lock(error),
        BeginError::Load(LoadError::Locked { .. }) => Status::Busy,
        BeginError::NoTemplate { .. } => Status::NotFound,
        BeginError::Load(_) => Status::Unreachable,
        _ => Status::InvalidData,
    }
}

impl From<CommitError> for Problem {
    fn from(error: CommitError) -> Self {
        let status = match &error {
            CommitError::Change(error) => of_begin(error),
            CommitError::Write(WriteError::LockLost { .. }) => Status::Busy,
            _ => Status::Io,
        };
        Self::of(status, &error)
    }
}

impl From<DomainError> for Problem {
    fn from(error: DomainError) -> Self {
        Self::of(of_domain(&error), &error)
    }
}

pub(crate) fn of_domain(error: &DomainError) -> Status {
    match error {
        DomainError::NoSuchDomain { .. } | DomainError::NoTemplate { .. } => Status::NotFound,
        error => status_of(error).unwrap_or(Status::Unreachable),
    }
}
