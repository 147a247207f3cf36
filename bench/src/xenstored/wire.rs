//! The load: requests encoded beforehand, many in flight, and replies that are looked at for errors only. It costs the
//! same whoever answers, and less than answering does.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use xenstore_proto::{Header, MessageType, Request, RequestId, TxId, limits};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Far longer than anything measured here takes; but stock C xenstored blocks for minutes on a busy machine.
const SILENCE_LIMIT: Duration = Duration::from_secs(600);

const BUFFER: usize = 256 << 10;

/// Requests as they stand on the wire, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    /// Appends a request outside of transactions.
    pub(crate) fn push(&mut self, request: &Request) -> Outcome<()> {
        request.encode(RequestId(0), TxId::NONE, limits::PAYLOAD_MAX, &mut self.octets)?;
        self.ends.push(self.octets.len());
        Ok(())
    }

    pub(crate) fn of(requests: impl IntoIterator<Item = Request>) -> Outcome<Self> {
        let mut batch = Self::default();
        requests.into_iter().try_for_each(|request| batch.push(&request))?;
        Ok(batch)
    }

    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Puts every request into a transaction.
    pub(crate) fn set_transaction(&mut self, tx: TxId) {
        const AT: usize = 8;
        let mut start = 0;
        for end in &self.ends {
            self.octets[start + AT..start + AT + 4].copy_from_slice(&tx.0.to_ne_bytes());
            start = *end;
        }
    }

    /// Those from the first to before the second.
    fn part(&self, from: usize, to: usize) -> &[u8] {
        let end = |count: usize| if count == 0 { 0 } else { self.ends[count - 1] };
        &self.octets[end(from)..end(to)]
    }

    fn all(&self) -> &[u8] {
        &self.octets
    }
}

/// What a server answered, or told.
pub(crate) struct Answer<'a> {
    pub(crate) ty: MessageType,
    pub(crate) payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The payload, unless the request was refused.
    pub(crate) fn granted(&self) -> Outcome<&'a [u8]> {
        if self.ty == MessageType::ERROR {
            return Err(format!("refused: {}", self.payload.escape_ascii()).into());
        }
        Ok(self.payload)
    }
}

/// A connection.
pub(crate) struct Client {
    stream: UnixStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(SILENCE_LIMIT))?;
        stream.set_write_timeout(Some(SILENCE_LIMIT))?;
        Ok(Self { stream, buffer: vec![0; BUFFER], start: 0, end: 0 })
    }

    /// Sends all requests of a batch, and one reply each is to come.
    pub(crate) fn send(&mut self, batch: &Batch) -> io::Result<()> {
        self.stream.write_all(batch.all())
    }

    /// A request and its reply, which is not an error.
    pub(crate) fn ask(&mut self, batch: &Batch) -> Outcome<Vec<u8>> {
        self.send(batch)?;
        self.answer(|answer| Ok(answer.granted()?.to_vec()))
    }

    /// The next reply. Events before it are passed over.
    pub(crate) fn answer<T>(&mut self, take: impl FnOnce(&Answer<'_>) -> Outcome<T>) -> Outcome<T> {
        let mut take = Some(take);
        loop {
            let taken = self.next(|answer| {
                if answer.ty == MessageType::WATCH_EVENT {
                    None
                } else {
                    take.take().map(|take| take(answer))
                }
            })?;
            if let Some(taken) = taken {
                return taken;
            }
        }
    }

    /// The next reply or event.
    pub(crate) fn next<T>(&mut self, take: impl FnOnce(&Answer<'_>) -> T) -> io::Result<T> {
        loop {
            if let Some(len) = self.whole() {
                let (answer, after) = self.message(len);
                let taken = take(&answer);
                self.start = after;
                return Ok(taken);
            }
            self.read()?;
        }
    }

    /// Sends the first octets of a batch, or all, and does not wait for an answer.
    pub(crate) fn abandon(mut self, batch: &Batch, octets: usize) -> io::Result<()> {
        self.stream.write_all(&batch.octets[..octets.min(batch.octets.len())])
    }

    /// Waits for a reply or event, then counts all replies that are here. None of them is an error.
    pub(crate) fn replies(&mut self) -> Outcome<usize> {
        let mut count = 0;
        if self.whole().is_none() {
            self.read()?;
        }
        while let Some(len) = self.whole() {
            let (answer, after) = self.message(len);
            if answer.ty != MessageType::WATCH_EVENT {
                answer.granted()?;
                count += 1;
            }
            self.start = after;
        }
        Ok(count)
    }

    /// Has all of a batch answered, so many in flight at a time.
    pub(crate) fn pipeline(&mut self, batch: &Batch, in_flight: usize) -> Outcome<()> {
        let mut run = Run::new(batch, in_flight, batch.len());
        while !run.is_done() {
            run.step(self)?;
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => {
                self.end += len;
                Ok(())
            }
        }
    }

    /// Octets of the message at the start of the buffer, if all of it is here.
    fn whole(&self) -> Option<usize> {
        let here = &self.buffer[self.start..self.end];
        let header = Header::from_octets(here.first_chunk()?);
        let len = limits::HEADER_LEN + usize::try_from(header.len).ok()?;
        (len <= here.len()).then_some(len)
    }

    /// The message of so many octets, and where the next one starts.
    fn message(&self, len: usize) -> (Answer<'_>, usize) {
        let after = self.start + len;
        let (header, payload) = self.buffer[self.start..after].split_at(limits::HEADER_LEN);
        let ty = header
            .first_chunk()
            .map_or(MessageType::ERROR, |four| MessageType(u32::from_ne_bytes(*four)));
        (Answer { ty, payload }, after)
    }
}

/// A batch on its way, over and over until so many requests are answered.
pub(crate) struct Run<'b> {
    batch: &'b Batch,
    in_flight: usize,
    total: usize,
    sent: usize,
    answered: usize,
}

impl<'b> Run<'b> {
    pub(crate) fn new(batch: &'b Batch, in_flight: usize, total: usize) -> Self {
        Self { batch, in_flight, total, sent: 0, answered: 0 }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.answered == self.total
    }

    /// Fills up what is in flight, then waits for one reply at least.
    pub(crate) fn step(&mut self, client: &mut Client) -> Outcome<()> {
        let until = self.total.min(self.answered + self.in_flight);
        while self.sent < until {
            let from = self.sent % self.batch.len();
            let count = (until - self.sent).min(self.batch.len() - from);
            client.stream.write_all(self.batch.part(from, from + count))?;
            self.sent += count;
        }
        self.answered += client.replies()?;
        Ok(())
    }
}
