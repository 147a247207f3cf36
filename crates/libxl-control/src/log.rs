//! What libxl logs, kept for the error that it may explain: a memory file that libxl's own logger writes to.

#![expect(unsafe_code, reason = "libxl's logger writes to a FILE of the C library")]

use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io;
use std::os::fd::IntoRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, OFlags, fcntl_getfl, fcntl_setfl, ftruncate, memfd_create};

/// `XTL_NOTICE`: no progress, no details.
const LEVEL: c_int = 6;
/// More than that of a log explains nothing more.
const KEPT_OCTETS: usize = 16 << 10;

/// A log of one context.
pub(crate) struct Log {
    file: File,
    /// Of a duplicate, closed with it.
    stream: NonNull<libc::FILE>,
}

/// What a logger is made from.
pub(crate) struct Logger {
    pub(crate) file: *mut libc::FILE,
    pub(crate) level: c_int,
    pub(crate) flags: c_uint,
}

impl Log {
    pub(crate) fn new() -> io::Result<Self> {
        let file = File::from(memfd_create("libxl log", MemfdFlags::CLOEXEC)?);
        // Written at its end always, also after it was cut.
        fcntl_setfl(&file, fcntl_getfl(&file)? | OFlags::APPEND)?;
        let fd = file.try_clone()?.into_raw_fd();
        // SAFETY: a descriptor of ours that nobody else closes, and a constant mode.
        let stream = unsafe { libc::fdopen(fd, c"a".as_ptr()) };
        let Some(stream) = NonNull::new(stream) else {
            let error = io::Error::last_os_error();
            // SAFETY: no stream has taken the descriptor over.
            unsafe { libc::close(fd) };
            return Err(error);
        };
        Ok(Self { file, stream })
    }

    pub(crate) fn logger(&self) -> Logger {
        Logger { file: self.stream.as_ptr(), level: LEVEL, flags: 0 }
    }

    /// The end of what was logged, on one line; nothing of it is told again.
    pub(crate) fn take(&self) -> String {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let kept = length.min(KEPT_OCTETS as u64);
        let mut octets = vec![0; usize::try_from(kept).unwrap_or(KEPT_OCTETS)];
        if self.file.read_exact_at(&mut octets, length - kept).is_err() {
            octets.clear();
        }
        // A log that is not cut is told twice, which is all.
        let _ = ftruncate(&self.file, 0);
        let text = String::from_utf8_lossy(&octets);
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: it was opened by `new`, and no logger uses it any more: the context that has both is being dropped.
        unsafe { libc::fclose(self.stream.as_ptr()) };
    }
}
