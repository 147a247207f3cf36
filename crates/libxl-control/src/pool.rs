//! Calling libxl with a deadline.
//!
//! A call of libxl waits for its end in the calling thread. So each has a thread of its own, and a context that nobody else uses
//! meanwhile: whoever aborts what is waited for in it aborts that call and no other. Contexts are kept, since making one takes up
//! to an eighth of a second.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use snapshot::control::Until;

use crate::ffi::{Context, ContextError, Library};

/// How long a call may take to end after it was told to. What does not end by then is left to itself.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// The same for a question, which nothing can abort and which changes nothing.
const QUESTION_STOP_LIMIT: Duration = Duration::from_secs(1);
/// An abort that came before the operation had begun was for nothing: it is repeated.
const ABORT_AGAIN: Duration = Duration::from_millis(100);
/// More contexts than calls that usually go on at a time are not kept.
const IDLE_MAX: usize = 4;

/// The contexts of one library.
pub(crate) struct Pool {
    library: Library,
    idle: Mutex<Vec<Arc<Context>>>,
}

/// Why a call was told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    Cancelled,
    DeadlinePassed,
}

/// A call that was made.
pub(crate) struct Ran<T> {
    /// Whether it was told to end, which it may have done of itself at that moment.
    pub(crate) stopped: Option<Stop>,
    pub(crate) end: End<T>,
}

/// How a call ended.
pub(crate) enum End<T> {
    /// With a value, and with what libxl has logged.
    Done {
        value: T,
        log: String,
    },
    /// There was nothing to make it with.
    NoContext(ContextError),
    NoThread(io::Error),
    /// It panicked.
    Broken,
    /// It has not. It goes on for as long as it likes, with the context, which nobody else uses.
    Hung,
}

/// A call on its way: what it leaves, and what it runs in.
struct Call<T> {
    result: Mutex<Option<Result<(T, String), ContextError>>>,
    /// What may be aborted now.
    running: Mutex<Option<Arc<Context>>>,
    /// Readable once it has ended.
    ended: OwnedFd,
}

impl<T> Call<T> {
    fn has_ended(&self) -> bool {
        wait(&[PollFd::new(&self.ended, PollFlags::IN)], Some(Instant::now()))
    }
}

/// Says that a call has ended, also if it panicked.
struct Ending<T>(Arc<Call<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        // Adding 1 to a counter that nobody else adds to cannot fail.
        let _ = rustix::io::write(&self.0.ended, &1_u64.to_ne_bytes());
    }
}

impl Pool {
    pub(crate) fn new(library: Library) -> Self {
        Self { library, idle: Mutex::new(Vec::new()) }
    }

    /// A context, so that there is one, or why there is none.
    pub(crate) fn warm_up(self: &Arc<Self>, until: Until<'_>) -> End<()> {
        self.run(until, |_| ()).end
    }

    /// Asks something. When the time is over, nobody waits for the answer any more.
    pub(crate) fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        until: Until<'_>,
        question: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Ran<T> {
        self.run_stopping(until, QUESTION_STOP_LIMIT, question)
    }

    /// Makes a call. When its time is over, or it is cancelled, what it waits for in libxl is aborted.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        until: Until<'_>,
        work: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Ran<T> {
        self.run_stopping(until, STOP_LIMIT, work)
    }

    fn run_stopping<T: Send + 'static>(
        self: &Arc<Self>,
        until: Until<'_>,
        stop_limit: Duration,
        work: impl FnOnce(&Context) -> T + Send + 'static,
    ) -> Ran<T> {
        let ended = match eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK) {
            Ok(ended) => ended,
            Err(errno) => return Ran { stopped: None, end: End::NoThread(errno.into()) },
        };
        let call = Arc::new(Call { result: Mutex::new(None), running: Mutex::new(None), ended });
        let (pool, theirs) = (Arc::clone(self), Arc::clone(&call));
        let body = move || {
            let _ending = Ending(Arc::clone(&theirs));
            let outcome = pool.carry_out(&theirs, work);
            *lock(&theirs.result) = Some(outcome);
        };
        if let Err(error) = thread::Builder::new().name("libxl".into()).spawn(body) {
            return Ran { stopped: None, end: End::NoThread(error) };
        }
        let stopped = wait_until_stopped(&call.ended, until);
        let in_time = match stopped {
            None => true,
            Some(_) => stop(&call, stop_limit),
        };
        let end = match lock(&call.result).take() {
            Some(Ok((value, log))) => End::Done { value, log },
            Some(Err(error)) => End::NoContext(error),
            None if in_time => End::Broken,
            None => End::Hung,
        };
        Ran { stopped, end }
    }

    fn carry_out<T>(
        &self,
        call: &Call<T>,
        work: impl FnOnce(&Context) -> T,
    ) -> Result<(T, String), ContextError> {
        let idle = lock(&self.idle).pop();
        let context = match idle {
            Some(context) => context,
            None => Arc::new(Context::new(self.library)?),
        };
        // What came in late from the call before belongs to none.
        let _ = context.take_log();
        *lock(&call.running) = Some(Arc::clone(&context));
        let value = work(&context);
        // From here on nobody aborts anything in it on behalf of this call.
        *lock(&call.running) = None;
        let log = context.take_log();
        if !log.is_empty() {
            tracing::debug!(log, "libxl");
        }
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_MAX {
            idle.push(context);
        }
        Ok((value, log))
    }
}

/// Waits for the end of a call, at most until it is to be stopped.
pub(crate) fn wait_until_stopped(ended: &OwnedFd, until: Until<'_>) -> Option<Stop> {
    loop {
        let mut fds = vec![PollFd::new(ended, PollFlags::IN)];
        fds.extend(until.cancel.map(|cancel| PollFd::new(cancel, PollFlags::IN)));
        wait(&fds, Some(until.deadline));
        if wait(&fds[..1], Some(Instant::now())) {
            return None;
        }
        if until.cancel.is_some_and(snapshot::control::CancelToken::is_cancelled) {
            return Some(Stop::Cancelled);
        }
        if Instant::now() >= until.deadline {
            return Some(Stop::DeadlinePassed);
        }
    }
}

/// Aborts until the call has ended; whether it has.
fn stop<T: Send + 'static>(call: &Arc<Call<T>>, limit: Duration) -> bool {
    let theirs = Arc::clone(call);
    // Aborting takes the context's lock, which an operation that hangs may hold.
    let abort = move || {
        while !theirs.has_ended() {
            if let Some(context) = &*lock(&theirs.running) {
                let rc = context.abort();
                tracing::debug!(rc, "told libxl to abort");
            }
            wait(&[PollFd::new(&theirs.ended, PollFlags::IN)], Some(Instant::now() + ABORT_AGAIN));
        }
    };
    if let Err(error) = thread::Builder::new().name("libxl abort".into()).spawn(abort) {
        tracing::warn!(%error, "libxl cannot be told to abort");
    }
    wait(&[PollFd::new(&call.ended, PollFlags::IN)], Some(Instant::now() + limit))
}

/// Whether one of them became readable before a deadline.
pub(crate) fn wait(fds: &[PollFd<'_>], deadline: Option<Instant>) -> bool {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds.to_vec(), left.as_ref()) {
            Ok(0) | Err(Errno::INTR) if deadline.is_some_and(|at| Instant::now() < at) => {}
            Ok(ready) => return ready > 0,
            Err(_) => return false,
        }
    }
}

/// What a lock protects here is whole at any moment.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
