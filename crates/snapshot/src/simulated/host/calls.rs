//! What a host does for a request.

use std::io::BufReader;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use libxl_config::model::{Disk, DiskFormat, DomainType};
use libxl_config::{DomainConfig, Mode};
use rustix::event::PollFlags;
use xsclient::DomId;

use super::channel::{Channel, Ended};
use super::domain::{Asked, Domain, Making};
use super::orphans::OpenCall;
use super::restored::Restored;
use super::templates::{self, Templates};
use super::xenstore::HostXenstore;
use super::{Cancel, Host};
use crate::control::{DomainIdentity, DomainKind, DomainState, DomainView};
use crate::simulated::check;
use crate::simulated::faults::Effect;
use crate::simulated::protocol::{Failure, HostView, Reply, Request};
use crate::simulated::spec::{ACKNOWLEDGE_MS_DEFAULT, DISKS_MAX, DiskImage, DiskSpec, DomainSpec};
use crate::simulated::stream::{self, StreamError};
use crate::simulated::wire::wait;

/// Carries a request out; `None` if the connection is to end without a reply.
pub(super) fn perform(
    host: &Host,
    request: Request,
    fd: Option<OwnedFd>,
    cancel: &Cancel,
    call: &OpenCall,
) -> Option<Reply> {
    if call.is_orphaned() {
        return None;
    }
    // These wait for others, or change nothing.
    let shows = matches!(
        request,
        Request::Settle { .. } | Request::Resume { .. } | Request::AwaitTick { .. } | Request::List
    );
    let effect = request.call().and_then(|call| host.strikes(call));
    if shows || matches!(effect, Some(Effect::HangBefore)) {
        call.shows();
    }
    match effect {
        Some(Effect::FailBefore) => return Some(Reply::Failed(on_command())),
        Some(Effect::HangBefore) => return Some(Reply::Failed(hang(cancel))),
        Some(Effect::LoseBefore) => return None,
        _ => {}
    }
    let reply = carry_out(host, request, fd, cancel, call, effect).unwrap_or_else(Reply::Failed);
    call.shows();
    match effect {
        Some(Effect::FailAfter) => Some(Reply::Failed(on_command())),
        Some(Effect::HangAfter) => Some(Reply::Failed(hang(cancel))),
        Some(Effect::LoseAfter) => None,
        _ => Some(reply),
    }
}

fn on_command() -> Failure {
    Failure::Other { problem: "it failed on command".into() }
}

fn hang(cancel: &Cancel) -> Failure {
    match wait(cancel.token.as_fd(), PollFlags::IN, None, None) {
        Ok(_) => Failure::Cancelled,
        Err(error) => other(error),
    }
}

pub(super) fn other(error: impl std::error::Error) -> Failure {
    Failure::Other { problem: error.to_string() }
}

fn carry_out(
    host: &Host,
    request: Request,
    fd: Option<OwnedFd>,
    cancel: &Cancel,
    call: &OpenCall,
    effect: Option<Effect>,
) -> Result<Reply, Failure> {
    let really = effect != Some(Effect::FalseSuccess);
    match request {
        Request::Find { domid } => {
            Ok(Reply::Found(host.lock().domains.get(&domid).map(|domain| domain.view())))
        }
        Request::List => {
            if !host.calls.settle(&cancel.token) {
                return Err(Failure::Cancelled);
            }
            Ok(Reply::Domains(host.lock().domains.values().map(|domain| domain.view()).collect()))
        }
        Request::Host => {
            let xenstore = host.xenstore.as_ref().map(HostXenstore::socket);
            let templates = host.templates.as_ref().map(Templates::path);
            Ok(Reply::Host(HostView { pid: std::process::id(), xenstore, templates }))
        }
        Request::SuspendTo { domain, live } => {
            let domain = host.domain(&domain)?;
            let fd = fd.ok_or(Failure::Other { problem: "no descriptor came with it".into() })?;
            if live {
                // As on a hypervisor without shadow paging.
                domain.change(|state| state == DomainState::Running, |_| ())?;
                return Err(Failure::LiveUnsupported);
            }
            suspend(&domain, Some(fd), cancel, call, effect)
        }
        Request::SuspendOnly { domain } => {
            suspend(&host.domain(&domain)?, None, cancel, call, effect)
        }
        Request::Resume { domain } => {
            let domain = host.domain(&domain)?;
            cancel.wakes(&domain);
            domain.resume(&cancel.token, really)?;
            if let Some(xenstore) = &host.xenstore {
                xenstore.resume(domain.identity.domid).map_err(other)?;
            }
            Ok(Reply::Done)
        }
        Request::Settle { domain } => {
            let domain = host.domain(&domain)?;
            cancel.wakes(&domain);
            if !host.calls.settle(&cancel.token) {
                return Err(Failure::StillStreaming);
            }
            domain.settle(&cancel.token)?;
            Ok(Reply::Found(Some(domain.view())))
        }
        Request::Pause { domain } => {
            let domain = host.domain(&domain)?;
            let may = |state| !matches!(state, DomainState::ShutDown(_));
            domain.change(may, |core| core.paused |= really)?;
            Ok(Reply::Done)
        }
        Request::Unpause { domain } => {
            let domain = host.domain(&domain)?;
            let may = |state| matches!(state, DomainState::Running | DomainState::Paused);
            domain.change(may, |core| core.paused &= !really)?;
            Ok(Reply::Done)
        }
        Request::Destroy { domain } => {
            let found = host.domain(&domain);
            if found.is_err() {
                // Somebody who is dead may be at it.
                call.shows();
                host.calls.settle(&cancel.token);
            }
            let domain = found?;
            if really { host.destroy(&domain) } else { Ok(Reply::Done) }
        }
        Request::Rename { domain, name } => {
            let domain = host.domain(&domain)?;
            if really { host.rename(&domain, name) } else { Ok(Reply::Done) }
        }
        Request::BuildFrom { configuration } => {
            let fd = fd.ok_or(Failure::Other { problem: "no descriptor came with it".into() })?;
            build(host, &configuration, fd, cancel, call, effect)
        }
        Request::Create { spec } => create(host, *spec),
        Request::Inspect { domain, check } => inspect(host.domain(&domain)?.as_ref(), check),
        Request::AwaitTick { domain, tick } => {
            let domain = host.domain(&domain)?;
            cancel.wakes(&domain);
            domain.await_tick(tick, &cancel.token)?;
            inspect(&domain, false)
        }
        Request::SwitchDisk { domain, vdev, image } => {
            let domain = host.domain(&domain)?;
            let mut core = domain.lock();
            let disk = core.disks.iter_mut().find(|disk| disk.spec.vdev == vdev);
            let disk =
                disk.ok_or(Failure::Other { problem: format!("there is no disk {vdev}") })?;
            disk.switch(image).map_err(other)?;
            Ok(Reply::Done)
        }
        Request::Spoil { domain, pfn } => {
            let domain = host.domain(&domain)?;
            if pfn >= domain.spec.pages {
                return Err(Failure::Other { problem: format!("there is no page {pfn}") });
            }
            let mut page = domain.memory.read(pfn).map_err(other)?;
            page[8] ^= 1;
            domain.memory.write(pfn, &page).map_err(other)?;
            Ok(Reply::Done)
        }
        Request::Fail { call, effect } if effect.applies_to(call) => {
            host.lock().effects.push_back((call, effect));
            Ok(Reply::Done)
        }
        Request::Fail { call, effect } => {
            Err(Failure::Other { problem: format!("{effect:?} cannot strike in {call:?}") })
        }
        // What the connection itself does.
        Request::Tie | Request::End => Ok(Reply::Done),
    }
}

fn suspend(
    domain: &Arc<Domain>,
    fd: Option<OwnedFd>,
    cancel: &Cancel,
    call: &OpenCall,
    effect: Option<Effect>,
) -> Result<Reply, Failure> {
    cancel.wakes(domain);
    if effect != Some(Effect::FalseSuccess) {
        let asked = match effect {
            Some(Effect::GuestIgnores) => None,
            Some(Effect::GuestCrashes) => Some(Asked::Crash),
            _ => Some(Asked::Suspend),
        };
        domain.suspend(asked, &cancel.token)?;
    }
    // That it streams is known of the domain.
    call.shows();
    let written = match fd {
        Some(fd) => write_stream(domain, fd, cancel, effect),
        None => Ok(()),
    };
    domain.streamed();
    written.map(|()| Reply::Done)
}

fn write_stream(
    domain: &Domain,
    fd: OwnedFd,
    cancel: &Cancel,
    effect: Option<Effect>,
) -> Result<(), Failure> {
    let mut channel = Channel::new(fd, &cancel.token, effect).map_err(other)?;
    let tick = || domain.lock().tick;
    let written = stream::write(&mut channel, &domain.spec, &domain.memory, &tick);
    match (written, channel.ended) {
        (_, Some(ended)) => Err(ended.into()),
        (Err(error), None) => Err(stream_failure(&error)),
        (Ok(()), None) if domain.lock().gone => Err(Failure::NoSuchDomain),
        (Ok(()), None) => Ok(()),
    }
}

impl From<Ended> for Failure {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Cancelled => Self::Cancelled,
            Ended::HelperDied => Self::HelperDied,
        }
    }
}

fn stream_failure(error: &std::io::Error) -> Failure {
    Failure::Stream { errno: error.raw_os_error(), problem: error.to_string() }
}

fn create(host: &Host, spec: DomainSpec) -> Result<Reply, Failure> {
    let DomainSpec { name, uuid, domid, guest, disks, acknowledge_ms } = spec;
    if !guest.is_possible() || disks.len() > DISKS_MAX {
        return Err(Failure::Configuration { problem: "there can be no such guest".into() });
    }
    let memory = Making::memory_of(&host.directory, &guest, disks.len()).map_err(other)?;
    let acknowledge = std::time::Duration::from_millis(acknowledge_ms);
    let config = templates::created(&name, uuid, &guest, &disks);
    host.add(domid, true, &config, |domid| Making {
        identity: DomainIdentity::new(domid, uuid),
        name,
        spec: guest,
        memory,
        tick: 0,
        disks: disks.clone(),
        acknowledge,
        paused: true,
    })
    .map(Reply::Domain)
}

fn build(
    host: &Host,
    configuration: &str,
    fd: OwnedFd,
    cancel: &Cancel,
    call: &OpenCall,
    effect: Option<Effect>,
) -> Result<Reply, Failure> {
    let problem = |problem: &str| Failure::Configuration { problem: problem.to_owned() };
    let read = DomainConfig::read(configuration.as_bytes(), Mode::Lenient)
        .map_err(|error| problem(&error.to_string()))?;
    let config = read.config;
    let DomainConfig { c_info, b_info, .. } = &config;
    if c_info.domain_type != DomainType::Pv {
        return Err(problem("simulated domains are PV"));
    }
    let name =
        c_info.name.clone().filter(|name| !name.is_empty()).ok_or(problem("it has no name"))?;
    let memory_kib = b_info.max_memkb.get().ok_or(problem("it has no max_memkb"))?;
    let disks = config.disks.iter().map(disk_of).collect::<Result<Vec<_>, _>>().map_err(problem)?;
    let uuid = c_info.uuid;
    if effect == Some(Effect::FalseSuccess) {
        let identity = DomainIdentity::new(DomId::new(host.lock().next_domid), uuid);
        let (kind, state) = (DomainKind::Pv, DomainState::Paused);
        return Ok(Reply::Domain(DomainView {
            identity,
            name: Some(name),
            kind,
            state,
            paused: true,
        }));
    }
    // Before the stream is read, as libxl does it, and again when the domain is added.
    host.lock().name_is_free(&name)?;

    let channel = Channel::new(fd, &cancel.token, effect).map_err(other)?;
    let mut input = BufReader::with_capacity(1 << 16, channel);
    let mut restored = Restored::new(&host.directory, memory_kib / 4);
    let read = stream::read(&mut input, &mut restored);
    if let Some(ended) = input.get_ref().ended {
        return Err(ended.into());
    }
    match read {
        Ok(()) => {}
        Err(StreamError::Read { source }) => return Err(stream_failure(&source)),
        Err(StreamError::Keep { source }) => return Err(other(source)),
        Err(error) => return Err(Failure::InvalidStream { problem: error.to_string() }),
    }
    let (memory, head, tick) =
        restored.finish().map_err(|problem| Failure::InvalidStream { problem })?;
    if head.disks != disks.len() as u64 {
        return Err(problem("it has another number of disks than the guest"));
    }
    let config = templates::filled(config, &head.spec);
    let view = host.add(None, false, &config, |domid| Making {
        identity: DomainIdentity::new(domid, uuid),
        name,
        spec: head.spec,
        memory,
        tick,
        disks: disks.clone(),
        acknowledge: std::time::Duration::from_millis(ACKNOWLEDGE_MS_DEFAULT),
        paused: true,
    })?;
    if call.is_orphaned() {
        // As where the toolstack is in the process that died: nobody builds any more.
        host.destroy(&host.domain(&view.identity)?)?;
        return Err(Failure::Cancelled);
    }
    Ok(Reply::Domain(view))
}

fn disk_of(disk: &Disk) -> Result<DiskSpec, &'static str> {
    let (Some(vdev), Some(path)) = (&disk.vdev, &disk.pdev_path) else {
        return Err("a disk has no vdev or no pdev_path");
    };
    let image = match disk.format {
        DiskFormat::Qcow2 => DiskImage::Qcow2 { path: path.into() },
        DiskFormat::Unknown | DiskFormat::Raw => DiskImage::Raw { path: path.into() },
        _ => return Err("a disk is neither raw nor qcow2"),
    };
    Ok(DiskSpec { read_only: disk.readwrite == 0, ..DiskSpec::new(vdev, image) })
}

fn inspect(domain: &Domain, check: bool) -> Result<Reply, Failure> {
    let mut inspection = domain.inspect().map_err(other)?;
    if check {
        // Held, so that the guest does nothing meanwhile.
        let core = domain.lock();
        inspection.tick = core.tick;
        let disks = core.disks.len() as u64;
        let checked = check::memory(&domain.memory, &domain.spec, disks, core.tick, core.step);
        inspection.wrong = inspection.wrong.or(checked.err().map(|error| error.to_string()));
    }
    Ok(Reply::Inspection(Box::new(inspection)))
}
