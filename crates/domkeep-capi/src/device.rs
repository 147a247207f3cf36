//! Devices plugged into running domains and unplugged, in Xenstore and in the template together.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use libxl_config::hotplug::spec::{self, SpecError};
use libxl_config::hotplug::{
    AttachError, DetachError, Device, DeviceId, DeviceName, Hotplug, Left, Mend, RepairOutcome,
    Repaired, StepError, Timeouts,
};
use libxl_config::model::Nic;
use libxl_config::retrieve::DeviceClass as Class;
use serde::Serialize;
use serde_json::{Value, json};

use crate::arguments::{HasSize, domid, empty, milliseconds, optional_text, required, sized, text};
use crate::boundary::call;
use crate::context::Ctx;
use crate::hotplug::{of_begin, of_domain};
use crate::outcome::give_json;
use crate::problem::{Error, Problem, status_of};
use crate::status::Status;

/// What kind of device.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceClass {
    /// A disk.
    Disk = 0,
    /// A network card.
    Nic = 1,
    /// A 9pfs share.
    P9 = 2,
}

/// How a device is plugged. Zeroes are the defaults, and so is NULL in place of all of it.
#[repr(C)]
pub struct Plugging {
    /// sizeof(dk_plugging), so that later versions can have more.
    pub size: usize,
    /// How long both ends may take to connect, or to let go, in milliseconds; 0 for 10 seconds, as libxl.
    pub wait_ms: u32,
    /// How long a hotplug script may take, in milliseconds; 0 for 40 seconds, as libxl.
    pub script_ms: u32,
    /// Where scripts are that are given without a path; NULL for /etc/xen/scripts.
    pub scripts: *const c_char,
    /// Takes devices away from guests that do not let them go.
    pub force: bool,
}

// SAFETY: `size` is its first.
unsafe impl HasSize for Plugging {}

/// Attaches a device to a running domain: all its nodes in one Xenstore transaction, the template with it, then the hotplug script.
///
/// `class` is one of DK_DEVICE_CLASS_DISK, DK_DEVICE_CLASS_NIC and DK_DEVICE_CLASS_P9. `device` is the device's entry in a
/// configuration, as JSON, or what is typed for xl ("format=raw,vdev=xvdb,access=rw,target=/srv/data.img").
///
/// It returns when both ends are connected, or when the guest has not answered for as long as it may take: a guest without a driver
/// is no error, but is said. `*attached`, which may be left out, becomes a JSON object with "id", "attachment", "replaced_entry" and
/// "revision". It is freed with free().
///
/// DK_STATUS_REFUSED: dk_error_details() has a JSON array of everything that speaks against it. DK_STATUS_EXISTS: there is such a
/// device. DK_STATUS_BUSY: somebody else is plugging it, or held the lock. After these and other errors nothing has changed, but after
/// DK_STATUS_FAILED and DK_STATUS_TIMED_OUT: then dk_error_details() has a JSON object whose "left" is null if it was undone, and says
/// why not if the device is left half attached, for dk_repair_devices().
///
/// # Safety
///
/// Texts end with a NUL; `plugging` is NULL or has its size. `attached` and `error` are NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_attach_device(
    ctx: Option<&Ctx>,
    domid: u32,
    class: i32,
    device: *const c_char,
    plugging: *const Plugging,
    attached: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_attach_device", error, || {
        let attached = attached.map(|attached| attached.write(ptr::null_mut()));
        let ctx = required(ctx, "ctx")?;
        let domid = self::domid(domid)?;
        // SAFETY: as this function's own contract.
        let (device, how) = unsafe { (text(device, "device")?, How::of(plugging)?) };
        let device = device_of(class, device)?;
        let done = how.run(ctx, |hotplug| hotplug.attach(domid, &device).map_err(Problem::from));
        let done = done.map_err(|problem| problem.about(domid))?;
        attached.map_or(Ok(()), |place| give_json(place, &done))
    })
}

/// Detaches a device from a running domain, in both views. One that only one view has is taken out of that.
///
/// `name` is a vdev or its number for a disk, a devid or a MAC address for a nic, a devid or a tag for a share. `*detached`, which
/// may be left out, becomes a JSON object with "id", "was_in_xenstore", "was_in_template", "revision", and "script_error" if the
/// hotplug script failed: then a loop device or a port of a bridge may be left on the host. It is freed with free().
///
/// DK_STATUS_NOT_FOUND: there is no such device. DK_STATUS_TIMED_OUT: the guest has not let it go; it is reported half detached, and
/// the call can be made again, or with `force`.
///
/// # Safety
///
/// As dk_attach_device().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_detach_device(
    ctx: Option<&Ctx>,
    domid: u32,
    class: i32,
    name: *const c_char,
    plugging: *const Plugging,
    detached: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_detach_device", error, || {
        let detached = detached.map(|detached| detached.write(ptr::null_mut()));
        let ctx = required(ctx, "ctx")?;
        let domid = self::domid(domid)?;
        // SAFETY: as this function's own contract.
        let (name, how) = unsafe { (text(name, "name")?, How::of(plugging)?) };
        let name = DeviceName::parse(class_of(class)?, name)
            .map_err(|error| Problem::of(Status::InvalidArgument, &error))?;
        let done = how.run(ctx, |hotplug| hotplug.detach(domid, &name).map_err(Problem::from));
        let done = done.map_err(|problem| problem.about(domid))?;
        detached.map_or(Ok(()), |place| give_json(place, &done))
    })
}

/// What became of one device.
#[derive(Serialize)]
#[serde(untagged)]
enum OneRepaired {
    Done(Repaired),
    Not { id: DeviceId, error: String },
}

/// Finishes, or with `undo` undoes, what is left half attached or half detached of a domain's devices, whoever began it. Safe to
/// repeat, and beside a running attach or detach of this library, which is waited for.
///
/// `*repaired` becomes a JSON array with an object a device: "id", and either "mended" with what was found, or "error". It is freed
/// with free(). The call succeeds also if single devices could not be repaired.
///
/// # Safety
///
/// `plugging` is NULL or has its size. `repaired` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_repair_devices(
    ctx: Option<&Ctx>,
    domid: u32,
    undo: bool,
    plugging: *const Plugging,
    repaired: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_repair_devices", error, || {
        let place = empty(repaired, "repaired")?;
        let ctx = required(ctx, "ctx")?;
        let domid = self::domid(domid)?;
        // SAFETY: as this function's own contract.
        let how = unsafe { How::of(plugging) }?;
        let mend = if undo { Mend::Undo } else { Mend::Finish };
        let done = how.run(ctx, |hotplug| hotplug.repair_all(domid, mend).map_err(Problem::from));
        let done: Vec<_> =
            done.map_err(|problem| problem.about(domid))?.into_iter().map(one).collect();
        give_json(place, &done)
    })
}

fn one((id, outcome): RepairOutcome) -> OneRepaired {
    match outcome {
        Ok(repaired) => OneRepaired::Done(repaired),
        Err(error) => OneRepaired::Not { id, error: Problem::from(error).in_words() },
    }
}

pub(crate) fn class_of(class: i32) -> Result<Class, Problem> {
    chosen!(class, "dk_device_class", {
        DeviceClass::Disk => Class::Disk,
        DeviceClass::Nic => Class::Nic,
        DeviceClass::P9 => Class::P9,
    })
}

/// A device from its entry or from what is typed for xl.
pub(crate) fn device_of(class: i32, text: &str) -> Result<Device, Problem> {
    let class = class_of(class)?;
    if text.trim_start().starts_with('{') {
        let read = match class {
            Class::Disk => serde_json::from_str(text).map(Device::Disk),
            Class::Nic => serde_json::from_str(text).map(|nic: Nic| nic.into()),
            _ => serde_json::from_str(text).map(Device::P9),
        };
        return read.map_err(|error| Problem::of(Status::InvalidData, &error));
    }
    let read: Result<Device, SpecError> = match class {
        Class::Disk => spec::disk(text).map(Device::from),
        Class::Nic => spec::nic(text).map(Device::from),
        _ => spec::p9(text).map(Device::from),
    };
    read.map_err(|error| Problem::of(Status::InvalidData, &error))
}

/// A device's entry in a configuration.
pub(crate) fn entry_of(device: &Device) -> Result<Value, Problem> {
    let entry = match device {
        Device::Disk(disk) => serde_json::to_value(disk),
        Device::Nic(nic) => serde_json::to_value(nic),
        Device::P9(p9) => serde_json::to_value(p9),
        _ => return Err(Problem::new(Status::Internal, "a device of an unknown class")),
    };
    entry.map_err(|error| Problem::of(Status::Internal, &error))
}

/// How a device is plugged, checked.
struct How {
    timeouts: Timeouts,
    scripts: Option<String>,
    force: bool,
}

impl How {
    /// # Safety
    ///
    /// NULL, or a `dk_plugging` whose text ends with a NUL.
    unsafe fn of(plugging: *const Plugging) -> Result<Self, Problem> {
        let mut how = Self { timeouts: Timeouts::default(), scripts: None, force: false };
        // SAFETY: as this function's own contract.
        let Some(plugging) = unsafe { sized(plugging, "plugging") }? else { return Ok(how) };
        if plugging.wait_ms > 0 {
            how.timeouts.connect = milliseconds(plugging.wait_ms);
            how.timeouts.let_go = milliseconds(plugging.wait_ms);
        }
        if plugging.script_ms > 0 {
            how.timeouts.script = milliseconds(plugging.script_ms);
        }
        // SAFETY: as this function's own contract.
        let scripts = unsafe { optional_text(plugging.scripts, "plugging->scripts") }?;
        how.scripts = scripts.map(str::to_owned);
        how.force = plugging.force;
        Ok(how)
    }

    fn run<T>(
        mut self,
        ctx: &Ctx,
        act: impl FnOnce(&mut Hotplug<'_>) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.timeouts.lock = ctx.timeout();
        let xenctrl = ctx.hypervisor()?;
        let mut client = ctx.client()?;
        let mut hotplug = Hotplug::new(&mut client, ctx.templates().as_ref())
            .timeouts(self.timeouts)
            .force(self.force);
        if let Some(xenctrl) = &xenctrl {
            hotplug = hotplug.hypervisor(xenctrl.as_ref());
        }
        if let Some(scripts) = self.scripts {
            hotplug = hotplug.script_directory(scripts);
        }
        act(&mut hotplug)
    }
}

impl From<AttachError> for Problem {
    fn from(error: AttachError) -> Self {
        let status = match &error {
            AttachError::Domain(error) => of_domain(error),
            AttachError::Begin(error) => of_begin(error),
            AttachError::Refused { .. } => Status::Refused,
            AttachError::Exists { .. } => Status::Exists,
            AttachError::Occupied { .. }
            | AttachError::Claimed { .. }
            | AttachError::Conflict { .. } => Status::Busy,
            AttachError::Xenstore { source, .. } => {
                status_of(source).unwrap_or(Status::Unreachable)
            }
            AttachError::Failed { source, .. } => of_step(source),
            _ => Status::Failed,
        };
        let problem = Self::of(status, &error);
        match &error {
            AttachError::Refused { refusals, .. } => {
                let words: Vec<_> = refusals.iter().map(ToString::to_string).collect();
                problem.details(&words)
            }
            AttachError::Occupied { path, .. } => problem.at(path),
            AttachError::Failed { id, left, .. } => {
                let why = match left {
                    Left::Some { why } => Some(why),
                    _ => None,
                };
                problem.details(&json!({ "id": id, "left": why }))
            }
            _ => problem,
        }
    }
}

impl From<DetachError> for Problem {
    fn from(error: DetachError) -> Self {
        let status = match &error {
            DetachError::Domain(error) => of_domain(error),
            DetachError::Begin(error) => of_begin(error),
            DetachError::NoSuchDevice { .. } => Status::NotFound,
            DetachError::Claimed { .. } => Status::Busy,
            DetachError::Failed { source, .. } => of_step(source),
            DetachError::Xenstore { source, .. } => {
                status_of(source).unwrap_or(Status::Unreachable)
            }
            error => status_of(error).unwrap_or(Status::Failed),
        };
        Self::of(status, &error)
    }
}

fn of_step(step: &StepError) -> Status {
    match step {
        StepError::NoBackend { .. }
        | StepError::NotConnected { .. }
        | StepError::NotLetGo { .. } => Status::TimedOut,
        _ => Status::Failed,
    }
}
