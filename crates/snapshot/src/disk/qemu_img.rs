//! `qemu-img`, with types.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use super::image::ImageFormat;

/// Most octets that are kept of what the program prints: a list of some ten thousand snapshots.
const OUTPUT_MAX: usize = 4 << 20;
/// Most octets of its error text that an error quotes.
const QUOTED_MAX: usize = 1000;

/// The program `qemu-img`.
///
/// Every image is named with its format and the driver `file`, so that nothing is guessed from its content or name. The program runs
/// with an empty environment but for `PATH` and `LC_ALL=C`, and is killed at the deadline.
#[derive(Clone, Debug)]
pub struct QemuImg {
    program: PathBuf,
}

/// An internal snapshot that an image has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct InternalSnapshot {
    /// Given by QEMU: a number as text.
    pub id: String,
    /// Given by who made it.
    pub name: String,
    /// Octets of memory that it carries.
    #[serde(rename = "vm-state-size")]
    pub vm_state_size: u64,
}

/// What `qemu-img info` tells of one image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ImageInfo {
    /// The format it was opened as.
    pub format: String,
    /// Octets that the guest sees.
    #[serde(rename = "virtual-size")]
    pub virtual_size: u64,
    /// The backing file as it is recorded.
    #[serde(rename = "backing-filename")]
    pub backing: Option<PathBuf>,
    /// The recorded format of the backing file.
    #[serde(rename = "backing-filename-format")]
    pub backing_format: Option<String>,
    /// Internal snapshots.
    #[serde(default)]
    pub snapshots: Vec<InternalSnapshot>,
}

/// What `qemu-img check` found.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ImageCheck {
    /// Errors that make the content wrong.
    #[serde(default)]
    pub corruptions: u64,
    /// Clusters that nothing refers to.
    #[serde(default)]
    pub leaks: u64,
    /// What could not be checked.
    #[serde(rename = "check-errors", default)]
    pub check_errors: u64,
}

impl Default for QemuImg {
    /// `qemu-img` wherever `PATH` has it.
    fn default() -> Self {
        Self { program: PathBuf::from("qemu-img") }
    }
}

impl QemuImg {
    /// This program: an absolute path, or a name that is looked for in `PATH`.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into() }
    }

    /// Writes an empty overlay into `file`, whatever is in it: the caller has just created it.
    ///
    /// The program gets the file as its standard input and opens it as such, so that no other file can be meant. The backing file is
    /// recorded and not opened.
    ///
    /// # Errors
    ///
    /// See [`QemuImgError`].
    pub fn create_overlay(
        &self,
        file: OwnedFd,
        backing: &Path,
        backing_format: ImageFormat,
        virtual_size: u64,
        deadline: Instant,
    ) -> Result<(), QemuImgError> {
        let size = virtual_size.to_string();
        let arguments: [&OsStr; 11] = [
            "create".as_ref(),
            "-q".as_ref(),
            "-u".as_ref(),
            "-f".as_ref(),
            "qcow2".as_ref(),
            "-F".as_ref(),
            backing_format.name().as_ref(),
            "-b".as_ref(),
            backing.as_os_str(),
            "/proc/self/fd/0".as_ref(),
            size.as_ref(),
        ];
        self.run("create", &arguments, Some(file), deadline).map(drop)
    }

    /// What is in an image's header. With `in_use`, also if somebody writes the image.
    ///
    /// # Errors
    ///
    /// See [`QemuImgError`].
    pub fn info(
        &self,
        image: &Path,
        format: ImageFormat,
        in_use: bool,
        deadline: Instant,
    ) -> Result<ImageInfo, QemuImgError> {
        let image = image_options(image, format);
        let mut arguments: Vec<&OsStr> =
            ["info", "--output=json", "--image-opts"].map(OsStr::new).into();
        if in_use {
            arguments.push("-U".as_ref());
        }
        arguments.push(&image);
        self.parsed("info", &arguments, deadline)
    }

    /// Checks the tables of a qcow2 image that nobody writes. That nobody has changed the file it rests on, it does not check.
    ///
    /// # Errors
    ///
    /// See [`QemuImgError`]. Errors in the image are not errors of the check.
    pub fn check(&self, image: &Path, deadline: Instant) -> Result<ImageCheck, QemuImgError> {
        let image = image_options(image, ImageFormat::Qcow2);
        let arguments =
            [OsStr::new("check"), "--output=json".as_ref(), "--image-opts".as_ref(), &image];
        self.parsed("check", &arguments, deadline)
    }

    /// Makes an internal snapshot in a qcow2 image that nobody uses.
    ///
    /// # Errors
    ///
    /// See [`QemuImgError`].
    pub fn snapshot(&self, image: &Path, tag: &str, deadline: Instant) -> Result<(), QemuImgError> {
        self.snapshot_command("snapshot -c", "-c", image, tag, deadline)
    }

    /// Deletes the internal snapshot that has this id or tag from a qcow2 image that nobody uses.
    ///
    /// # Errors
    ///
    /// See [`QemuImgError`].
    pub fn delete_snapshot(
        &self,
        image: &Path,
        id_or_tag: &str,
        deadline: Instant,
    ) -> Result<(), QemuImgError> {
        self.snapshot_command("snapshot -d", "-d", image, id_or_tag, deadline)
    }

    fn snapshot_command(
        &self,
        command: &'static str,
        option: &str,
        image: &Path,
        tag: &str,
        deadline: Instant,
    ) -> Result<(), QemuImgError> {
        let image = image_options(image, ImageFormat::Qcow2);
        let arguments: [&OsStr; 6] = [
            "snapshot".as_ref(),
            "-q".as_ref(),
            option.as_ref(),
            tag.as_ref(),
            "--image-opts".as_ref(),
            &image,
        ];
        self.run(command, &arguments, None, deadline).map(drop)
    }

    fn parsed<T: for<'de> Deserialize<'de>>(
        &self,
        command: &'static str,
        arguments: &[&OsStr],
        deadline: Instant,
    ) -> Result<T, QemuImgError> {
        let output = self.run(command, arguments, None, deadline)?;
        serde_json::from_slice(&output).map_err(|source| QemuImgError::Output { command, source })
    }

    fn run(
        &self,
        command: &'static str,
        arguments: &[&OsStr],
        stdin: Option<OwnedFd>,
        deadline: Instant,
    ) -> Result<Vec<u8>, QemuImgError> {
        let program = &self.program;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("LC_ALL", "C")
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| QemuImgError::Start { program: program.clone(), source })?;
        let ended = run_to_end(&mut child, deadline);
        if !matches!(ended, Ok(Some(_))) {
            // Also when waiting itself failed: it must not go on behind the caller's back.
            let killed = child.kill().and_then(|()| child.wait());
            killed.map_err(|source| QemuImgError::Wait { command, source })?;
        }
        match ended {
            Err(source) => Err(QemuImgError::Wait { command, source }),
            Ok(None) => Err(QemuImgError::TooSlow { command }),
            // `check` tells with 2 and 3 what is in its output as well.
            Ok(Some(Ended { status, stdout, .. }))
                if status.success()
                    || (command == "check" && matches!(status.code(), Some(2 | 3))) =>
            {
                Ok(stdout)
            }
            Ok(Some(Ended { status, stderr, .. })) => {
                let text = String::from_utf8_lossy(&stderr[..stderr.len().min(QUOTED_MAX)]);
                let text = text.trim().strip_prefix("qemu-img: ").unwrap_or(text.trim()).to_owned();
                Err(QemuImgError::Failed { command, status, stderr: text })
            }
        }
    }
}

/// A comma in a value is doubled.
fn image_options(image: &Path, format: ImageFormat) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut options = format!("driver={format},file.driver=file,file.filename=").into_bytes();
    for octet in image.as_os_str().as_bytes() {
        options.extend(std::iter::repeat_n(*octet, if *octet == b',' { 2 } else { 1 }));
    }
    OsString::from_vec(options)
}

struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Reads what a program prints until it ends; `None` at the deadline.
fn run_to_end(child: &mut Child, deadline: Instant) -> io::Result<Option<Ended>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut watched = vec![PollFd::new(&pidfd, PollFlags::IN)];
        watched.extend(stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        watched.extend(stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut watched, Some(&Timespec::try_from(left).map_err(|_| Errno::INVAL)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<_> = watched.iter().map(|fd| !fd.revents().is_empty()).collect();
        let stdout_at = 1;
        let stderr_at = stdout_at + usize::from(stdout.is_some());
        if stdout.is_some() && ready[stdout_at] {
            take_some(&mut stdout, &mut output)?;
        }
        if stderr.is_some() && ready.get(stderr_at) == Some(&true) {
            take_some(&mut stderr, &mut errors)?;
        }
        if stdout.is_none() && stderr.is_none() && ready[0] {
            let status = child.wait()?;
            return Ok(Some(Ended { status, stdout: output, stderr: errors }));
        }
    }
}

/// Reads what is there; at the end the pipe is dropped.
fn take_some(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 16 << 10];
    let read = pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut piece))?;
    if read == 0 {
        *pipe = None;
    }
    // What is more is read, so that the program can end, and not kept.
    let room = OUTPUT_MAX.saturating_sub(into.len());
    into.extend_from_slice(&piece[..read.min(room)]);
    Ok(())
}

/// Why a `qemu-img` command gave no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QemuImgError {
    /// It could not be started.
    #[error("cannot start {}", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It could not be waited for, and was killed.
    #[error("cannot follow qemu-img {command}")]
    Wait {
        /// The command.
        command: &'static str,
        /// Why.
        source: io::Error,
    },
    /// It was killed at the deadline.
    #[error("qemu-img {command} did not end before the deadline")]
    TooSlow {
        /// The command.
        command: &'static str,
    },
    /// It failed.
    #[error("qemu-img {command} failed ({status}): {stderr}")]
    Failed {
        /// The command.
        command: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it printed as errors.
        stderr: String,
    },
    /// It printed what is not expected of it.
    #[error("qemu-img {command} printed something else than expected")]
    Output {
        /// The command.
        command: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}
