//! The program that libxl streams a domain's memory with. It outlives a saver that is killed.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use snapshot::control::DomainIdentity;
use xsclient::DomId;

use crate::pool::wait;

/// The name of the program's file.
const PROGRAM: &[u8] = b"libxl-save-helper";
/// What it is told when it saves; then follow the numbers of two descriptors, the stream's and that of an answer, and the domid.
const SAVES: &[u8] = b"--save-domain";

/// A helper that streams a domain's memory now.
pub(crate) struct Helper {
    pidfd: OwnedFd,
}

impl Helper {
    /// One that streams that domain's memory, whoever has started it.
    pub(crate) fn of(domain: &DomainIdentity) -> Option<Self> {
        Self::among(Path::new("/proc"), domain.domid)
    }

    fn among(proc: &Path, domid: DomId) -> Option<Self> {
        let processes = fs::read_dir(proc).ok()?;
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.filter_map(|pid: i32| {
            let saves =
                || saves(&fs::read(proc.join(pid.to_string()).join("cmdline")).ok()?, domid);
            saves()?;
            let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            // The number may have been given to another process before it was opened.
            saves()?;
            Some(Self { pidfd })
        })
        .next()
    }

    /// Whether it has ended before the deadline.
    pub(crate) fn ends(&self, deadline: Instant) -> bool {
        wait(&[PollFd::new(&self.pidfd, PollFlags::IN)], Some(deadline))
    }
}

/// `Some` if that is the command line of a helper which saves that domain. A process that has ended has none.
fn saves(command_line: &[u8], domid: DomId) -> Option<()> {
    let mut words = command_line.split(|octet| *octet == 0);
    let program = words.next()?;
    let is_helper = program.rsplit(|octet| *octet == b'/').next() == Some(PROGRAM);
    let saves = words.next() == Some(SAVES);
    let _descriptors = (words.next()?, words.next()?);
    let of = str::from_utf8(words.next()?).ok()?.parse() == Ok(domid.get());
    (is_helper && saves && of).then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_known_by_what_it_does_with_which_domain() {
        let line = |text: &str| text.replace(' ', "\0").into_bytes();
        let helper = "/usr/lib/xen-4.17/bin/libxl-save-helper";
        let seven = |text: &str| saves(&line(text), DomId::new(7)).is_some();
        assert!(seven(&format!("{helper} --save-domain 24 14 7 0 136 0 ")));
        assert!(!seven(&format!("{helper} --save-domain 7 7 8 0 136 0 ")));
        assert!(!seven(&format!("{helper} --restore-domain 24 14 7 0 136 0 ")));
        assert!(!seven(&format!("{helper}-2 --save-domain 24 14 7 ")));
        assert!(!seven(""));
        assert!(!seven(&format!("{helper} --save-domain 24 14")));
    }
}
