//! Descriptors that a predecessor has left open.

#![expect(unsafe_code, reason = "a number becomes a descriptor that is owned")]

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{FileType, fstat};
use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

/// The descriptors that this process was executed with, each of which can be taken once.
#[derive(Debug, Default)]
pub(crate) struct Inherited {
    taken: HashSet<i32>,
}

impl Inherited {
    /// A descriptor that a predecessor has named. It is not handed on any further unless that is asked for.
    ///
    /// # Errors
    ///
    /// If there is none of this number, or it is another kind of file, one of this process's own, or taken already.
    pub(crate) fn take(&mut self, number: i32, kind: FileType) -> io::Result<OwnedFd> {
        self.take_if(number, |found| found == kind)
    }

    /// As [`Inherited::take`], of any kind.
    pub(crate) fn take_any(&mut self, number: i32) -> io::Result<OwnedFd> {
        self.take_if(number, |_| true)
    }

    fn take_if(&mut self, number: i32, fits: impl Fn(FileType) -> bool) -> io::Result<OwnedFd> {
        if number <= 2 || self.taken.contains(&number) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the borrow ends before anything can close the descriptor, and the calls fail if there is none.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        // What this process has opened itself is closed when it executes another program; what was handed over is not.
        if fcntl_getfd(borrowed)?.contains(FdFlags::CLOEXEC) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !fits(FileType::from_raw_mode(fstat(borrowed)?.st_mode)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
        self.taken.insert(borrowed.as_raw_fd());
        // SAFETY: it is open, was left by the predecessor for this process alone, is no standard one, and was not taken before:
        // nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }
}
