//! Comparing what was saved with what is there, before anything is made of it.

use std::ops::ControlFlow;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::error::RestoreCause;
use super::plan::RestorePlan;
use super::request::{Depth, DiskRestore};
use super::run::not_used;
use crate::control::CancelToken;
use crate::disk::image::{Chain, ChainRefusal, ChainRules, DEPTH_DEFAULT, ImageRef, Writers};
use crate::disk::{DiskFailure, digest_image};
use crate::manifest::NamedImage;
use crate::verify::{Parts, Sources, VerifyError, verify_parts};
use crate::{Observer, Progress};

/// Compares everything that the restore makes use of. Gives what could not be compared, in words.
pub(super) fn verify(
    plan: &RestorePlan,
    deadline: Instant,
    observer: &mut Observer<'_>,
) -> Result<Vec<String>, RestoreCause> {
    let request = &plan.request;
    let sources = Sources { memory: request.memory.clone(), xenstore: request.xenstore.clone() };
    let but = not_used(plan);
    let parts = Parts { memory: Depth::Full, disks: request.verify, but: &but };
    let verified = until(deadline, observer, |observer| {
        verify_parts(&request.snapshot, &sources, parts, observer)
    })?;
    let mut words: Vec<String> = match verified {
        Ok(verified) => {
            let uncovered = verified.uncovered.iter();
            uncovered.map(|it| format!("{}: {}", it.artifact, it.reason)).collect()
        }
        Err(VerifyError::Cancelled) => return Err(RestoreCause::Cancelled),
        Err(source) => return Err(RestoreCause::Verify { source }),
    };
    for (vdev, restore) in &request.disks {
        if let DiskRestore::Image { path, format, verify } = restore {
            if *verify {
                let image = ImageRef::read(path, *format).map_err(|source| RestoreCause::Disk {
                    vdev: vdev.clone(),
                    source: source.into(),
                })?;
                compare(plan, vdev, &image, deadline, observer)?;
            } else {
                words.push(format!("disk {vdev}: whether {} is as it was saved", path.display()));
            }
        }
    }
    Ok(words)
}

/// An image of the caller's has to have the digest of the frozen one.
fn compare(
    plan: &RestorePlan,
    vdev: &str,
    image: &ImageRef,
    deadline: Instant,
    observer: &mut Observer<'_>,
) -> Result<(), RestoreCause> {
    let saved = plan.request.snapshot.disks.iter().find(|disk| disk.vdev == vdev);
    // The plan is refused if there is none.
    let Some(saved) = saved.and_then(|disk| disk.digest) else { return Ok(()) };
    let mut progress = |done| {
        observer.advance(done, Some(image.size));
        if observer.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match digest_image(&image.path, image, deadline, &mut progress) {
        Ok(has) if has == saved => Ok(()),
        Ok(has) => Err(RestoreCause::OtherContent {
            vdev: vdev.to_owned(),
            image: image.path.clone(),
            has,
            saved,
        }),
        Err(DiskFailure::Stopped { .. }) => Err(RestoreCause::Cancelled),
        Err(DiskFailure::Deadline { .. }) => Err(RestoreCause::DeadlinePassed),
        Err(source) => Err(RestoreCause::Disk { vdev: vdev.to_owned(), source }),
    }
}

/// Does something that can only be cancelled, until a deadline.
fn until<T>(
    deadline: Instant,
    outer: &mut Observer<'_>,
    work: impl FnOnce(&mut Observer<'_>) -> T,
) -> Result<T, RestoreCause> {
    let token = CancelToken::new().map_err(|source| RestoreCause::Pipe { source })?;
    let mut tell = |progress: &Progress| {
        outer.advance(progress.done, progress.total);
        if outer.is_cancelled() || Instant::now() >= deadline {
            token.cancel();
        }
    };
    let mut inner = Observer::none().progress(&mut tell).cancel(&token);
    let done = work(&mut inner);
    if outer.is_cancelled() {
        Err(RestoreCause::Cancelled)
    } else if Instant::now() >= deadline {
        Err(RestoreCause::DeadlinePassed)
    } else {
        Ok(done)
    }
}

/// Waits until nobody writes the images that the new domain will write: the replaced domain's are closed a moment after it is gone.
pub(super) fn images_are_free(plan: &RestorePlan, deadline: Instant) -> Result<(), RestoreCause> {
    let rules = ChainRules { depth: DEPTH_DEFAULT, writers: Writers::Nobody };
    for disk in plan.disks.iter().filter(|disk| disk.writable && disk.over.is_none()) {
        let NamedImage { path, format } = &disk.image;
        while let Err(refusals) = Chain::read(path, *format, rules) {
            let Some(source) = refusals.into_iter().next() else { break };
            let pid = match &source {
                ChainRefusal::Written { pid, .. } => *pid,
                _ => None,
            };
            if !pid.is_some_and(|pid| ends(pid, deadline)) {
                return Err(RestoreCause::DiskInUse { vdev: disk.vdev.clone(), source });
            }
        }
    }
    Ok(())
}

/// Waits until a process has ended; whether it has, and is another one than this.
pub(super) fn ends(pid: u32, deadline: Instant) -> bool {
    if pid == std::process::id() {
        return false;
    }
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // It has ended meanwhile.
        Err(Errno::SRCH) => return Instant::now() < deadline,
        Err(_) => return false,
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
            Ok(0) => return false,
            Err(Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}
