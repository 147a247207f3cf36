//! Threads that compress frames, and the frames in order.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Scope;

use super::codec::{Codec, Encoder};
use super::frame::Frame;

/// Frames that a worker has at a time: the one that it compresses, and enough behind it to go on while the others' are waited for.
const DEPTH: usize = 4;

/// Threads that compress frames. The frames come back in the order in which they were given.
pub(super) struct Workers {
    workers: Vec<Worker>,
    given: usize,
    taken: usize,
}

struct Worker {
    frames: Sender<Frame>,
    done: Receiver<io::Result<Frame>>,
}

impl Workers {
    /// Starts some threads, which end when this is dropped.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        codec: Codec,
        threads: usize,
    ) -> io::Result<Self> {
        let workers = (0..threads.max(1)).map(|_| {
            let mut encoder = Encoder::new(codec)?;
            let (frames, to_encode) = channel::<Frame>();
            let (encoded, done) = channel();
            std::thread::Builder::new().name("packed-image".to_owned()).spawn_scoped(
                scope,
                move || {
                    for mut frame in to_encode {
                        let done = frame.encode(&mut encoder).map(|()| frame);
                        if encoded.send(done).is_err() {
                            break;
                        }
                    }
                },
            )?;
            Ok(Worker { frames, done })
        });
        Ok(Self { workers: workers.collect::<io::Result<_>>()?, given: 0, taken: 0 })
    }

    /// Whether a frame has to be taken before another can be given.
    pub(super) fn is_full(&self) -> bool {
        self.given - self.taken >= self.workers.len() * DEPTH
    }

    pub(super) fn give(&mut self, frame: Frame) -> io::Result<()> {
        let worker = &self.workers[self.given % self.workers.len()];
        self.given += 1;
        worker
            .frames
            .send(frame)
            .map_err(|_| io::Error::other("a thread that compresses has ended"))
    }

    /// The oldest frame that was given and not taken, as soon as it is done; `None` if there is none.
    pub(super) fn take(&mut self) -> io::Result<Option<Frame>> {
        if self.taken == self.given {
            return Ok(None);
        }
        let worker = &self.workers[self.taken % self.workers.len()];
        self.taken += 1;
        match worker.done.recv() {
            Ok(frame) => frame.map(Some),
            Err(_) => Err(io::Error::other("a thread that compresses has ended")),
        }
    }
}
