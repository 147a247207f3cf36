//! A stream's descriptor, which can be waited for, cancelled and made to fail.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::fs::{FileType, fstat};

use crate::control::CancelToken;
use crate::simulated::faults::Effect;
use crate::simulated::wire::{Woken, wait};

/// As much as a pipe or socket that is ready takes without blocking: the least of what POSIX lets a pipe be ready for.
const READY_OCTETS: usize = 4096;

/// What the process ends with when it is told to die.
const HOST_DIED: i32 = 70;

/// Why a stream has ended early, other than by an error of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Cancelled,
    HelperDied,
}

/// One end of a stream. The flags of the descriptor are left alone, since they are the client's as well: it is polled instead.
pub(super) struct Channel<'a> {
    file: File,
    is_regular: bool,
    cancel: &'a CancelToken,
    effect: Option<Effect>,
    passed: u64,
    pub(super) ended: Option<Ended>,
}

impl<'a> Channel<'a> {
    pub(super) fn new(
        fd: OwnedFd,
        cancel: &'a CancelToken,
        effect: Option<Effect>,
    ) -> io::Result<Self> {
        let is_regular = FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::RegularFile;
        let effect = effect.filter(|effect| effect.stream_octets().is_some());
        Ok(Self { file: fd.into(), is_regular, cancel, effect, passed: 0, ended: None })
    }

    /// How many of `wanted` octets may pass now, at least 1; carries out the effect if none may.
    fn allow(&mut self, wanted: usize, flags: PollFlags) -> io::Result<usize> {
        let mut allowed = wanted as u64;
        if let Some(effect) = self.effect
            && let Some(at) = effect.stream_octets()
        {
            allowed = allowed.min(at.saturating_sub(self.passed));
            if allowed == 0 {
                return Err(self.strike(effect, flags)?);
            }
        }
        if self.cancel.is_cancelled() {
            return Err(self.end(Ended::Cancelled));
        }
        if !self.is_regular {
            allowed = allowed.min(READY_OCTETS as u64);
            if wait(self.file.as_fd(), flags, Some(self.cancel.as_fd()), None)? == Woken::Cancelled
            {
                return Err(self.end(Ended::Cancelled));
            }
        }
        Ok(usize::try_from(allowed).unwrap_or(wanted))
    }

    fn strike(&mut self, effect: Effect, flags: PollFlags) -> io::Result<io::Error> {
        Ok(match effect {
            // Nobody who writes hangs longer than there is somebody who reads: that ends with an error of the pipe.
            Effect::StreamHangs { .. } if flags == PollFlags::OUT && !self.is_regular => {
                let (pipe, cancel) = (self.file.as_fd(), Some(self.cancel.as_fd()));
                match wait(pipe, PollFlags::empty(), cancel, None)? {
                    Woken::Cancelled => self.end(Ended::Cancelled),
                    _ => rustix::io::Errno::PIPE.into(),
                }
            }
            Effect::StreamHangs { .. } => {
                wait(self.cancel.as_fd(), PollFlags::IN, None, None)?;
                self.end(Ended::Cancelled)
            }
            Effect::HelperDies { .. } => self.end(Ended::HelperDied),
            Effect::HostDies { .. } => std::process::exit(HOST_DIED),
            _ => rustix::io::Errno::IO.into(),
        })
    }

    fn end(&mut self, ended: Ended) -> io::Error {
        self.ended = Some(ended);
        io::Error::other("the stream was ended")
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        if octets.is_empty() {
            return Ok(0);
        }
        let allowed = self.allow(octets.len(), PollFlags::OUT)?;
        let written = self.file.write(&octets[..allowed])?;
        self.passed += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Channel<'_> {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        if octets.is_empty() {
            return Ok(0);
        }
        let allowed = self.allow(octets.len(), PollFlags::IN)?;
        let read = self.file.read(&mut octets[..allowed])?;
        self.passed += read as u64;
        Ok(read)
    }
}
