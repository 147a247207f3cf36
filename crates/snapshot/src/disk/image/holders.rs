//! Who has an image open.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// The octet of an image file that a QEMU program holds a lock on while it may write the image: it locks octet 100 + n for
/// a permission n that it has, and writing is permission 1.
const WRITE_LOCK_AT: u64 = 101;

/// Most octets of `/proc/locks` that are read: some ten thousand locks.
const LOCKS_MAX: u64 = 4 << 20;
/// Most octets of an entry in `fdinfo`: some lines are enough, but an epoll descriptor lists all it watches.
const FDINFO_MAX: u64 = 4096;

/// Who has an image open, at this moment and as far as this process may see.
///
/// There are two views, for each is blind to something. QEMU's programs lock what they write, but not if they were
/// told not to, as Xen's block backend in QEMU tells them. `/proc` shows every descriptor, but not of processes that this one may
/// not look into, nor what the kernel itself has open for a loop device or a block backend of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// Processes that have it open for writing, ascending.
    pub writing: Vec<u32>,
    /// Processes that have it open for reading only, ascending.
    pub reading: Vec<u32>,
    /// A QEMU program holds the lock that says that it may write it.
    pub write_locked: bool,
    /// Processes whose descriptors cannot be seen.
    pub unseen: usize,
}

impl Holders {
    /// Looks for those who have `file` open; this process counts if it has it open for writing, and its children that execute no
    /// other program do not.
    ///
    /// # Errors
    ///
    /// If the file or `/proc` cannot be looked at.
    pub fn of(file: &File) -> io::Result<Self> {
        OpenFiles::look()?.holders(file)
    }

    /// Whether a process has it open, for reading or writing.
    pub fn is_held_by(&self, pid: u32) -> bool {
        self.writing.contains(&pid) || self.reading.contains(&pid)
    }
}

/// What all processes have open, at one moment and as far as this process may see.
///
/// Looking is a system call for every descriptor on the host: while a guest waits, it is done once for all images.
#[derive(Debug)]
pub(in crate::disk) struct OpenFiles {
    open: HashMap<Identity, Vec<Descriptor>>,
    unseen: usize,
    locks: String,
}

/// A descriptor of a process.
#[derive(Debug)]
struct Descriptor {
    pid: u32,
    number: OsString,
}

/// A file by device and inode; a block device is the same under every node that has its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Identity {
    File { dev: u64, ino: u64 },
    BlockDevice { rdev: u64 },
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::BlockDevice { rdev: metadata.rdev() }
        } else {
            Self::File { dev: metadata.dev(), ino: metadata.ino() }
        }
    }
}

impl OpenFiles {
    /// Looks.
    ///
    /// # Errors
    ///
    /// If `/proc` cannot be looked at.
    pub(in crate::disk) fn look() -> io::Result<Self> {
        let locks = read_at_most(Path::new("/proc/locks"), LOCKS_MAX)?;
        let mut files = Self { open: HashMap::new(), unseen: 0, locks };
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match files.note(pid, &entry.path()) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => files.unseen += 1,
                // Or it has ended meanwhile.
                _ => {}
            }
        }
        Ok(files)
    }

    /// Notes the files and block devices that a process has open.
    fn note(&mut self, pid: u32, process: &Path) -> io::Result<()> {
        for entry in fs::read_dir(process.join("fd"))? {
            let entry = entry?;
            // Descriptors come and go while they are looked at.
            let Ok(open) = fs::metadata(entry.path()) else { continue };
            if open.is_file() || open.file_type().is_block_device() {
                let descriptor = Descriptor { pid, number: entry.file_name() };
                self.open.entry(Identity::of(&open)).or_default().push(descriptor);
            }
        }
        Ok(())
    }

    /// Who has `file` open, as [`Holders::of`].
    ///
    /// # Errors
    ///
    /// If the file cannot be looked at.
    pub(in crate::disk) fn holders(&self, file: &File) -> io::Result<Holders> {
        let image = file.metadata()?;
        let own_program = fs::read_link("/proc/self/exe").ok();
        let (mut writing, mut reading) = (BTreeSet::new(), BTreeSet::new());
        for Descriptor { pid, number } in self.open.get(&Identity::of(&image)).into_iter().flatten()
        {
            let process = Path::new("/proc").join(pid.to_string());
            if is_own_fork(&process, own_program.as_deref()) {
                continue;
            }
            let flags = process.join("fdinfo").join(number);
            if opened_for_writing(&flags).unwrap_or(false) {
                writing.insert(*pid);
            } else {
                reading.insert(*pid);
            }
        }
        reading.remove(&std::process::id());
        Ok(Holders {
            reading: reading.difference(&writing).copied().collect(),
            writing: writing.into_iter().collect(),
            write_locked: is_write_locked(&self.locks, &image),
            unseen: self.unseen,
        })
    }
}

/// A child of this process that has not executed its program yet has all our descriptors for a moment, whatever it will be.
fn is_own_fork(process: &Path, own_program: Option<&Path>) -> bool {
    let status = read_at_most(&process.join("status"), FDINFO_MAX).unwrap_or_default();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let is_child = parent.and_then(|pid| pid.trim().parse().ok()) == Some(std::process::id());
    is_child
        && own_program.is_some()
        && fs::read_link(process.join("exe")).ok().as_deref() == own_program
}

fn opened_for_writing(fdinfo: &Path) -> io::Result<bool> {
    let text = read_at_most(fdinfo, FDINFO_MAX)?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u64::from_str_radix(flags.trim(), 8).ok());
    // The access mode: 0 is reading, 1 writing, 2 both. With O_PATH (0o10000000) it is neither.
    Ok(flags.is_some_and(|flags| flags & 0o3 != 0 && flags & 0o10_000_000 == 0))
}

/// Asking for a conflicting lock with F_GETLK would be simpler, but rustix's form of it takes the kernel's -1, as whose an open
/// file description's lock is shown, for a process and panics.
fn is_write_locked(locks: &str, image: &Metadata) -> bool {
    let (major, minor) = (rustix::fs::major(image.dev()), rustix::fs::minor(image.dev()));
    let inode = format!("{major:02x}:{minor:02x}:{}", image.ino());
    shows_write_lock(locks, &inode)
}

/// A line: `7: OFDLCK ADVISORY  READ -1 fe:00:10018901 100 101`; one that waits has `->` behind its number.
fn shows_write_lock(locks: &str, inode: &str) -> bool {
    locks.lines().any(|line| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, "OFDLCK" | "POSIX", _, _, _, locked, start, end] = words[..] else { return false };
        let start = start.parse().unwrap_or(u64::MAX);
        let end = if end == "EOF" { u64::MAX } else { end.parse().unwrap_or(0) };
        locked == inode && (start..=end).contains(&WRITE_LOCK_AT)
    })
}

fn read_at_most(path: &Path, max: u64) -> io::Result<String> {
    let mut octets = Vec::new();
    File::open(path)?.take(max).read_to_end(&mut octets)?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_writer_is_told_from_others() {
        let locks = "1: OFDLCK ADVISORY  READ -1 fe:00:12 203 203\n\
                     2: OFDLCK ADVISORY  READ -1 fe:00:12 100 100\n\
                     3: OFDLCK ADVISORY  READ -1 fe:00:13 100 101\n\
                     4: FLOCK  ADVISORY  WRITE 1 fe:00:14 0 EOF\n\
                     5: POSIX  ADVISORY  WRITE 1 fe:00:15 0 EOF\n\
                     5: -> OFDLCK ADVISORY  READ -1 fe:00:12 101 101\nrubbish";
        for (inode, locked) in
            [("fe:00:12", false), ("fe:00:13", true), ("fe:00:14", false), ("fe:00:15", true)]
        {
            assert_eq!(shows_write_lock(locks, inode), locked, "{inode}");
        }
    }

    #[test]
    fn a_descriptor_for_writing_is_seen_and_one_for_reading_of_this_process_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reading = File::open(file.path()).unwrap();
        let holders = Holders::of(&reading).unwrap();
        assert_eq!(holders.writing, [std::process::id()]);
        let path = file.into_temp_path();
        let holders = Holders::of(&File::open(&path).unwrap()).unwrap();
        assert_eq!(holders, Holders { unseen: holders.unseen, ..Holders::default() });
    }
}
