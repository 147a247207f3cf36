//! A descriptor's file, opened once more.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Opens the file behind a descriptor again: with a position of its own, and for what the descriptor is not open for. It is that
/// file, whatever its name means by now.
pub(crate) fn open_again(descriptor: impl AsFd, options: &OpenOptions) -> io::Result<File> {
    options.open(format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()))
}
