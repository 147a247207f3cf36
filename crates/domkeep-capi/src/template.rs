//! The life of templates: created with their domains, forgotten with them. Between, they change by hotplug alone.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use libxl_config::template::{
    CreateError, ForgetError, LockError, TemplateKey, TemplateText, create, forget,
};

use crate::arguments::{domid, required, text, uuid};
use crate::boundary::call;
use crate::config;
use crate::context::Ctx;
use crate::problem::{Error, Problem};
use crate::status::Status;

/// Stores the template of a new domain. When the call has succeeded, it is durable.
///
/// `json` is what libxl_domain_config_to_json() gives, or dk_config_print(). DK_STATUS_EXISTS if the domain has a template:
/// creating never replaces. DK_STATUS_INVALID_DATA if it is no configuration.
///
/// # Safety
///
/// Texts end with a NUL. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_template_create(
    ctx: Option<&Ctx>,
    domid: u32,
    uuid: *const c_char,
    json: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_template_create", error, || {
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let (uuid, json) = unsafe { (text(uuid, "uuid")?, text(json, "json")?) };
        let key = key(domid, uuid)?;
        config::read(json).map_err(|problem| problem.about(key.domid))?;
        let text = TemplateText::new(json.as_bytes().to_vec())
            .map_err(|error| Problem::of(Status::InvalidData, &error).about(key.domid))?;
        create(ctx.templates().as_ref(), &key, &text, ctx.deadline())
            .map_err(|error| Problem::from(error).about(key.domid))?;
        Ok(())
    })
}

/// Removes the template of a domain that is gone. DK_STATUS_NOT_FOUND if there was none.
///
/// # Safety
///
/// `uuid` ends with a NUL. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_template_forget(
    ctx: Option<&Ctx>,
    domid: u32,
    uuid: *const c_char,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_template_forget", error, || {
        let ctx = required(ctx, "ctx")?;
        // SAFETY: as this function's own contract.
        let key = key(domid, unsafe { text(uuid, "uuid") }?)?;
        let was_there = forget(ctx.templates().as_ref(), &key, ctx.deadline())
            .map_err(|error| Problem::from(error).about(key.domid))?;
        if was_there {
            Ok(())
        } else {
            let message = format!("{key}: the store has no template");
            Err(Problem::new(Status::NotFound, message).about(key.domid))
        }
    })
}

/// Whose template it is.
pub(crate) fn key(number: u32, uuid: &str) -> Result<TemplateKey, Problem> {
    Ok(TemplateKey::new(domid(number)?, self::uuid(uuid)?))
}

pub(crate) fn of_lock(error: &LockError) -> Status {
    match error {
        LockError::Locked { .. } => Status::Busy,
        _ => Status::Unreachable,
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let status = match &error {
            CreateError::Exists { .. } => Status::Exists,
            CreateError::Lock(error) => of_lock(error),
            _ => Status::Io,
        };
        Self::of(status, &error)
    }
}

impl From<ForgetError> for Problem {
    fn from(error: ForgetError) -> Self {
        let status = match &error {
            ForgetError::Lock(error) => of_lock(error),
            _ => Status::Io,
        };
        Self::of(status, &error)
    }
}
