//! Removing what a call that died has created.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, fsync, statat, unlinkat};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::creation::{CreatedFile, CreationLog, LeftReason, RollbackReport, temporary_name};
use crate::journal::{Journal, steps};

/// How long a program that still has a file open may take to end: the QEMU of a domain that was just destroyed.
const HOLDER_LIMIT: Duration = Duration::from_secs(10);

/// Removes every file that the journal's call has created, under its temporary and under its final name, but for those that are
/// open. Whatever else has such a name is left.
pub(super) fn remove(
    targets: &[PathBuf],
    journal: &Journal,
    open: &[PathBuf],
    report: &mut RollbackReport,
) {
    let created = journal.created();
    let untold = targets.iter().filter(|&path| !created.iter().any(|file| file.path == **path));
    for path in untold {
        remove_temporary(path, None, journal.prefix(), report);
    }
    for file in created {
        remove_temporary(&file.path, Some(file), journal.prefix(), report);
        if !open.contains(&file.path) && file.path.symlink_metadata().is_ok() {
            steps::reached("before removal");
            remove_final(file, report);
            steps::reached("after removal");
        }
    }
}

/// A temporary name is the call's own: no other has its id.
fn remove_temporary(
    path: &Path,
    created: Option<&CreatedFile>,
    prefix: &str,
    report: &mut RollbackReport,
) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    let name = temporary_name(prefix, name);
    let temporary = parent.join(&name);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let removed = rustix::fs::open(parent, flags, Mode::empty()).and_then(|directory| {
        let stat = statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let other = created.is_some_and(|file| (file.dev, file.ino) != (stat.st_dev, stat.st_ino));
        if other || !is_file {
            return Ok(false);
        }
        steps::reached("before removal");
        unlinkat(&directory, &name, AtFlags::empty())?;
        fsync(&directory)?;
        steps::reached("after removal");
        Ok(true)
    });
    match removed {
        Ok(true) => report.removed.push(temporary),
        Ok(false) => report.leave(&temporary, LeftReason::OtherFile),
        Err(Errno::NOENT | Errno::NOTDIR) => {}
        Err(errno) => report.leave(&temporary, LeftReason::Io(errno.into())),
    }
}

fn remove_final(file: &CreatedFile, report: &mut RollbackReport) {
    let give_up = Instant::now() + HOLDER_LIMIT;
    loop {
        match file.remove() {
            Ok(()) => return report.removed.push(file.path.clone()),
            Err(LeftReason::Open { pid }) if has_ended(pid, give_up) => {}
            Err(reason) => return report.leave(&file.path, reason),
        }
    }
}

/// Waits for a process to end.
fn has_ended(pid: u32, give_up: Instant) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pidfd = match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
        Some(Ok(pidfd)) => pidfd,
        Some(Err(Errno::SRCH)) => return Instant::now() < give_up,
        _ => return false,
    };
    loop {
        let left = give_up.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else { return false };
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(1) => return true,
            Err(Errno::INTR) => {}
            _ => return false,
        }
    }
}
