//! What the configurations of a host's domains are now.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use libxl_config::Layout;
use libxl_config::json::{Object, Value};
use libxl_config::retrieve::{
    ConfigurationRevision, Policy as Merge, Report, RetrieveError, Retrieved, Retriever,
    TemplateSource,
};
use libxl_config::template::LoadError;
use serde::Serialize;
use xsclient::OperationError;

use crate::arguments::{empty, required, text};
use crate::boundary::call;
use crate::context::Ctx;
use crate::outcome::{give_json, give_text, give_values};
use crate::problem::{Error, Problem, status_of};
use crate::status::Status;

/// Which view decides, where template and Xenstore say differently.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Xenstore. A device that is in the template only is left out in the classes that libxl compares, and kept in the others.
    Live = 0,
    /// Both: every device that either knows.
    Union = 1,
    /// The template alone. The report still says what Xenstore has otherwise.
    Template = 2,
}

/// What goes with a configuration.
#[derive(Serialize)]
struct Reported<'r> {
    domid: u16,
    revision: ConfigurationRevision,
    #[serde(flatten)]
    report: &'r Report,
}

/// What the configuration of a domain is now: its template, with the live Xenstore laid over it.
///
/// `policy` is one of DK_POLICY_LIVE, DK_POLICY_UNION and DK_POLICY_TEMPLATE.
///
/// `*configuration` becomes the configuration, as libxl with yajl prints it. `*report` becomes a JSON object: "domid", "revision",
/// which changes when template or view change, and where every value came from, what the views say differently, what is half
/// attached, and what could not be seen; `report` may be NULL. Both are freed with free(), and are NULL unless the call succeeds.
///
/// What is wrong with single values, devices or the template's text is in the report, and no error. A caller that must not act
/// on part of the truth looks at "template" and "unseen" there.
///
/// DK_STATUS_NOT_FOUND: there is no such domain. DK_STATUS_BUSY: somebody held its template until the deadline.
/// DK_STATUS_UNREACHABLE: Xenstore or the template store cannot be read.
#[unsafe(no_mangle)]
pub extern "C" fn dk_retrieve_domain_configuration(
    ctx: Option<&Ctx>,
    domid: u32,
    policy: i32,
    configuration: Option<&mut MaybeUninit<*mut c_char>>,
    report: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_retrieve_domain_configuration", error, || {
        let report = report.map(|report| report.write(std::ptr::null_mut()));
        let place = empty(configuration, "configuration")?;
        let ctx = required(ctx, "ctx")?;
        let domid = crate::arguments::domid(domid)?;
        let policy = merge_of(policy)?;
        let hypervisor = ctx.hypervisor()?;
        let retrieved = ctx.read(|client| {
            let mut retriever = Retriever::new(client, ctx.templates().as_ref())
                .policy(policy)
                .attachments(report.is_some())
                .timeout(ctx.timeout());
            if let Some(hypervisor) = &hypervisor {
                retriever = retriever.hypervisor(hypervisor.as_ref());
            }
            retriever.retrieve(domid)
        });
        let retrieved = retrieved.map_err(|problem| problem.about(domid))?;
        if let Some(report) = report {
            let (domid, revision) = (domid.get(), retrieved.revision);
            give_json(report, &Reported { domid, revision, report: &retrieved.report })?;
        }
        give_text(place, &retrieved.config.to_json(Layout::Yajl))
    })
}

/// The ids of all domains that Xenstore has, domain 0 among them, ascending.
///
/// `*domids` becomes an array of `*count` ids, or NULL if there are none. It is freed with free().
#[unsafe(no_mangle)]
pub extern "C" fn dk_list_domains(
    ctx: Option<&Ctx>,
    domids: Option<&mut MaybeUninit<*mut u32>>,
    count: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_list_domains", error, || {
        let place = empty(domids, "domids")?;
        let count = required(count, "count")?.write(0);
        let ctx = required(ctx, "ctx")?;
        let found = ctx.read(|client| {
            Retriever::new(client, ctx.templates().as_ref()).timeout(ctx.timeout()).domains()
        })?;
        let found: Vec<u32> = found.into_iter().map(|domid| domid.get().into()).collect();
        give_values(place, count, &found)
    })
}

/// The configurations of all domains, as `xl list -l` prints them: a JSON array of objects with "domid" and either "config" or
/// "error", in words. A domain whose template cannot be used has an error: what is left would be taken for its configuration.
///
/// `*list` is freed with free(). Domains that come or go meanwhile may be in it or not.
#[unsafe(no_mangle)]
pub extern "C" fn dk_list_domain_configurations(
    ctx: Option<&Ctx>,
    policy: i32,
    list: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_list_domain_configurations", error, || {
        let place = empty(list, "list")?;
        let ctx = required(ctx, "ctx")?;
        let policy = merge_of(policy)?;
        let hypervisor = ctx.hypervisor()?;
        let answers = ctx.read(|client| {
            let mut retriever = Retriever::new(client, ctx.templates().as_ref())
                .policy(policy)
                .attachments(false)
                .timeout(ctx.timeout());
            if let Some(hypervisor) = &hypervisor {
                retriever = retriever.hypervisor(hypervisor.as_ref());
            }
            let domids = retriever.domains()?;
            Ok::<_, OperationError>(retriever.retrieve_all(&domids))
        })?;
        let entries: Value = answers
            .into_iter()
            .map(|(domid, answer)| {
                let mut entry = Object::new();
                entry.push("domid", u64::from(domid.get()));
                match usable(answer) {
                    Ok(config) => entry.push("config", config),
                    Err(error) => entry.push("error", error.as_str()),
                }
                Value::from(entry)
            })
            .collect();
        give_text(place, &entries.to_text(Layout::Yajl))
    })
}

/// The id of the domain with this name. DK_STATUS_NOT_FOUND if there is none, DK_STATUS_REFUSED if there are several, whose ids
/// dk_error_details() has as a JSON array.
///
/// # Safety
///
/// `name` ends with a NUL. `domid` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_find_domain(
    ctx: Option<&Ctx>,
    name: *const c_char,
    domid: Option<&mut MaybeUninit<u32>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_find_domain", error, || {
        let ctx = required(ctx, "ctx")?;
        let place = required(domid, "domid")?;
        // SAFETY: as this function's own contract.
        let name = unsafe { text(name, "name") }?;
        let found = ctx.read(|client| {
            Retriever::new(client, ctx.templates().as_ref()).timeout(ctx.timeout()).named(name)
        })?;
        match found[..] {
            [domid] => {
                place.write(domid.get().into());
                Ok(())
            }
            [] => Err(Problem::new(Status::NotFound, format!("no domain is called \"{name}\""))),
            _ => {
                let message = format!("{} domains are called \"{name}\"", found.len());
                let domids: Vec<_> = found.iter().map(|domid| domid.get()).collect();
                Err(Problem::new(Status::Refused, message).details(&domids))
            }
        }
    })
}

/// A template that cannot be used fails its domain.
fn usable(answer: Result<Retrieved, RetrieveError>) -> Result<Value, String> {
    let retrieved = answer.map_err(|error| Problem::from(error).in_words())?;
    match &retrieved.report.template {
        TemplateSource::Unreadable { error } => {
            Err(format!("domain {}: its template cannot be used: {error}", retrieved.domid))
        }
        _ => Ok(retrieved.config.to_value()),
    }
}

fn merge_of(policy: i32) -> Result<Merge, Problem> {
    chosen!(policy, "dk_policy", {
        Policy::Live => Merge::LiveWins,
        Policy::Union => Merge::Union,
        Policy::Template => Merge::Template,
    })
}

impl From<RetrieveError> for Problem {
    fn from(error: RetrieveError) -> Self {
        let status = match &error {
            RetrieveError::NoSuchDomain { .. } => Status::NotFound,
            RetrieveError::ReservedDomId { .. } => Status::InvalidArgument,
            RetrieveError::Refused { .. } => Status::Refused,
            RetrieveError::Template { source: LoadError::Locked { .. }, .. } => Status::Busy,
            RetrieveError::Template { .. } | RetrieveError::Templates { .. } => Status::Unreachable,
            _ => status_of(&error).unwrap_or(Status::Unreachable),
        };
        Self::of(status, &error)
    }
}
