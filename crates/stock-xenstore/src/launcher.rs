//! Starting a child that dies with this process, where needed in a mount namespace of its own.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, mkdir, open};
use rustix::io::{Errno, dup2, write};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    move_mount, open_tree,
};
use rustix::process::{Signal, getegid, geteuid, getpid, getppid, set_parent_process_death_signal};
use rustix::thread::UnshareFlags;

/// What a failed step before exec is introduced with, in what the child prints to standard error.
pub(crate) const STEP_FAILED: &str = "before exec: cannot ";

/// A mount namespace in which one directory is seen at a path below /var/run, where nothing else is.
pub(crate) struct OwnRunDirectory {
    shown: CString,
    run: CString,
    at: CString,
    /// The files that make a process root in its new user namespace, with what to write there.
    root_maps: [(&'static CStr, Vec<u8>); 3],
}

/// A descriptor that the child has at a number of the caller's choice.
pub(crate) struct Descriptor {
    /// Its number here is none that the child should have.
    pub(crate) held: OwnedFd,
    pub(crate) number: RawFd,
}

/// Starts `command`; the kernel kills the child when this process ends.
pub fn spawn_bound(command: Command) -> io::Result<Child> {
    spawn(command, None, Vec::new())
}

/// Starts `command` with `descriptors`; the kernel kills the child when this process ends.
///
/// The kernel means the thread that started the child. A thread of a test may end long before the daemon it started is
/// no longer wanted, so one thread, which lives as long as the process, starts them all.
pub(crate) fn spawn(
    mut command: Command,
    place: Option<OwnRunDirectory>,
    descriptors: Vec<Descriptor>,
) -> io::Result<Child> {
    let parent = getpid();
    let prepare = move || {
        if let Some(place) = &place {
            place.enter()?;
        }
        // Last, because a change of credentials, as in a new user namespace, may undo it.
        set_parent_process_death_signal(Some(Signal::KILL))?;
        if getppid() != Some(parent) {
            return Err(Errno::SRCH.into()); // it died before that call
        }
        // Where that covers the descriptor by which the child tells why exec failed, it ends without saying so.
        descriptors.iter().try_for_each(Descriptor::give)
    };
    #[expect(unsafe_code, reason = "no other way to act between fork and exec")]
    // SAFETY: the closure only makes system calls, on memory allocated before the fork; rustix makes them directly and
    // neither takes locks nor allocates, and an errno becomes an io::Error without allocation.
    unsafe {
        command.pre_exec(prepare);
    }
    let (answer, answered) = mpsc::channel();
    launcher()?.send((command, answer)).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    answered.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?
}

impl Descriptor {
    /// Runs in the child between fork and exec: no allocation.
    fn give(&self) -> io::Result<()> {
        #[expect(
            unsafe_code,
            reason = "a descriptor that may not be open cannot be had as an owned one"
        )]
        // SAFETY: dup2 only needs the number. What was open there belongs to nobody in the child, which executes
        // another program next, and it is never closed through this value.
        let mut number = ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(self.number) });
        Ok(dup2(&self.held, &mut number)?)
    }
}

impl OwnRunDirectory {
    /// Shows the directory `shown` as /var/run/`name`.
    pub(crate) fn new(shown: &Path, name: &str) -> io::Result<OwnRunDirectory> {
        let run = fs::canonicalize("/var/run")?; // a link to /run, mostly
        let map = |id: u32| format!("0 {id} 1").into_bytes();
        let root_maps = [
            (c"/proc/self/setgroups", b"deny".to_vec()),
            (c"/proc/self/uid_map", map(geteuid().as_raw())),
            (c"/proc/self/gid_map", map(getegid().as_raw())),
        ];
        Ok(OwnRunDirectory {
            shown: c_string(shown)?,
            at: c_string(&run.join(name))?,
            run: c_string(&run)?,
            root_maps,
        })
    }

    /// Runs between fork and exec: no allocation.
    fn enter(&self) -> io::Result<()> {
        match unshare(UnshareFlags::NEWNS) {
            Err(Errno::PERM) => self.enter_as_root_of_a_user_namespace()?,
            unshared => step(c"unshare the mount namespace", unshared)?,
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        step(c"make the mounts private", mount_change(c"/", private))?;
        // Taken before /run is covered, in case it lies there.
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let shown = step(c"find the scratch directory", open_tree(CWD, &*self.shown, clone))?;
        let covered = mount(c"tmpfs", &*self.run, c"tmpfs", MountFlags::empty(), None);
        step(c"mount a tmpfs on /var/run", covered)?;
        step(c"make a directory in /var/run", mkdir(&*self.at, Mode::from_raw_mode(0o755)))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        let moved = move_mount(shown, c"", CWD, &*self.at, flags);
        step(c"mount the scratch directory", moved)
    }

    /// For a process without the right to unshare its mounts: not root, or root in a container.
    fn enter_as_root_of_a_user_namespace(&self) -> io::Result<()> {
        let unshared = unshare(UnshareFlags::NEWNS | UnshareFlags::NEWUSER);
        step(c"unshare the user namespace", unshared)?;
        for (file, content) in &self.root_maps {
            let written = open(*file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
                .and_then(|file| write(file, content));
            step(file, written)?;
        }
        Ok(())
    }
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    #[expect(unsafe_code, reason = "unshare is unsafe for the sake of CLONE_FILES")]
    // SAFETY: no caller asks to unshare the table of file descriptors.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

type Order = (Command, Sender<io::Result<Child>>);

fn launcher() -> io::Result<Sender<Order>> {
    static LAUNCHER: Mutex<Option<Sender<Order>>> = Mutex::new(None);
    let mut launcher = LAUNCHER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(orders) = &*launcher {
        return Ok(orders.clone());
    }
    let (orders, received) = mpsc::channel::<Order>();
    thread::Builder::new().name("stock-xenstore launcher".to_owned()).spawn(move || {
        for (mut command, answer) in received {
            // Nobody waits for the answer only if the asking thread is gone, and then the child is not wanted.
            if let Err(mpsc::SendError(Ok(mut child))) = answer.send(command.spawn()) {
                let _ = child.kill().and_then(|()| child.wait());
            }
        }
    })?;
    Ok(launcher.insert(orders).clone())
}

/// Names the failed step on standard error: of an error between fork and exec, only the errno reaches the parent.
fn step<T>(name: &CStr, result: Result<T, Errno>) -> io::Result<T> {
    if result.is_err() {
        for part in [STEP_FAILED.as_bytes(), name.to_bytes(), b"\n"] {
            // Not std's, which another thread may have locked at the time of the fork.
            let _ = write(rustix::stdio::stderr(), part);
        }
    }
    result.map_err(io::Error::from)
}

fn c_string(path: &Path) -> io::Result<CString> {
    let text: &OsStr = path.as_os_str();
    Ok(CString::new(text.as_bytes())?)
}
