//! What the libraries log, for the caller's own log.

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::sync::RwLock;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::arguments::invalid;
use crate::boundary::call;
use crate::problem::{Error, Problem};
use crate::status::Status;

/// How much is logged.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// What went wrong.
    Error = 0,
    /// And what may be.
    Warn = 1,
    /// And what was done.
    Info = 2,
    /// And how.
    Debug = 3,
    /// And everything else.
    Trace = 4,
}

type Callback = unsafe extern "C" fn(user: *mut c_void, line: *const c_char);

#[derive(Clone, Copy)]
struct Logger {
    log: Callback,
    user: *mut c_void,
}

// SAFETY: the header says that the callback may be called by several threads at the same time, with the same `user`.
unsafe impl Send for Logger {}
// SAFETY: as above.
unsafe impl Sync for Logger {}

static LOGGER: RwLock<Option<Logger>> = RwLock::new(None);

/// Has `log` called with each line that the library logs, of this level (a dk_log_level) and above. The line is valid during the
/// callback, which may come from any thread, also at the same time, and must not call this library.
///
/// Once for a process: the level stays, and a later call only changes callback and `user`. NULL for `log` ends it; a callback that
/// is under way in another thread may still be running then. DK_STATUS_EXISTS: this process has a logger for `tracing` already.
///
/// # Safety
///
/// `log` and `user` can be used until they are replaced. `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_set_logger(
    level: c_int,
    log: Option<unsafe extern "C" fn(user: *mut c_void, line: *const c_char)>,
    user: *mut c_void,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_set_logger", error, || {
        let level = chosen!(level, "dk_log_level", {
            LogLevel::Error => LevelFilter::ERROR,
            LogLevel::Warn => LevelFilter::WARN,
            LogLevel::Info => LevelFilter::INFO,
            LogLevel::Debug => LevelFilter::DEBUG,
            LogLevel::Trace => LevelFilter::TRACE,
        })?;
        let mut logger = LOGGER.write().map_err(|_| invalid("a logger has failed"))?;
        *logger = log.map(|log| Logger { log, user });
        drop(logger);
        if log.is_some() && !IS_SET.swap(true, std::sync::atomic::Ordering::AcqRel) {
            tracing_subscriber::fmt()
                .with_max_level(level)
                .with_ansi(false)
                .without_time()
                .with_writer(Lines)
                .try_init()
                .map_err(|error| Problem::of(Status::Exists, error.as_ref()))?;
        }
        Ok(())
    })
}

static IS_SET: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Hands over what is written at once, which is a line.
struct Lines;

impl<'w> MakeWriter<'w> for Lines {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        Self
    }
}

impl io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let logger = LOGGER.read().map(|logger| *logger).unwrap_or_default();
        if let Some(Logger { log, user }) = logger {
            let text = String::from_utf8_lossy(line);
            if let Ok(text) = CString::new(text.trim_end().replace('\0', "\\0")) {
                // SAFETY: as the header says of the callback; the line lives until it returns.
                unsafe { log(user, text.as_ptr()) };
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
