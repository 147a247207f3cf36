//! Reading the trees of a domain so that all of it is of one moment.
//!
//! Two ways, by what the transport promises:
//!
//! * **Watch fence**, where events are in order with replies (a socket). A watch on each root goes ahead of the first request
//!   about it. A last batch ends the watches; if no event came until then, nothing has changed. A server may merge a change of a
//!   watched node itself with the watch's first event, while that one waits to be sent (C xenstored does), so the last batch also
//!   reads value and permissions of the roots once more. Removing or changing what is below a root cannot be
//!   merged: those events have other paths.
//! * **Transaction**, where a kernel hands events over separately (the xenbus device). Its start shares a round trip with a
//!   look outside of it, whose only use is to tell what the first two levels are. A conflict at its end says that something
//!   changed.
//!
//! One change is in no event of C xenstored and so escapes a fence: that it drops the permission entries of a domain which has
//! died.

use std::collections::BTreeSet;

use xsclient::{
    Batch, Client, Commit, DomId, DomainStatePage, Event, EventOrder, Nodes, OperationError, Path,
    PathOrSpecial, Replies, Slot, Watch,
};

use super::connection::{ConnectionSource, ConnectionSourceError};
use super::levels::{Level, ReadError, Reading, Seen, answer};
use super::limits::Limits;
use super::missing::MissingReason;
use super::of_server::{self, AskError, Told};
use super::questions::{Asked, Questions};
use super::trees::Trees;

/// How to read so that all of it is of one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Means {
    /// By what the transport promises: a watch fence if it can, else a transaction.
    #[default]
    Transport,
    /// A watch fence; fails on transports whose events are not in order with replies.
    Fence,
    /// A transaction.
    Transaction,
}

/// Who tells of the connection, if not the server.
type Source<'a, 's> = Option<&'a mut (dyn ConnectionSource + 's)>;

/// What to read.
pub(super) struct Task<'t> {
    pub(super) domid: DomId,
    pub(super) extra: &'t [Path],
    pub(super) limits: Limits,
    pub(super) means: Means,
}

/// What was read once.
pub(super) struct Attempt {
    pub(super) trees: Trees,
    pub(super) reading: Reading,
    pub(super) questions: Questions,
    pub(super) told: Told,
    pub(super) change: Option<Change>,
}

/// Something changed meanwhile.
pub(super) enum Change {
    /// At these paths or below.
    At(BTreeSet<Path>),
    /// The server does not say where.
    Somewhere,
}

/// Why nothing was read.
pub(super) enum AttemptError {
    UnorderedEvents,
    NoSuchDomain,
    Read(ReadError),
    Source(ConnectionSourceError),
}

/// Reads once.
pub(super) fn attempt(
    client: &mut Client,
    task: &Task<'_>,
    source: Source<'_, '_>,
) -> Result<Attempt, AttemptError> {
    let ordered = client.manner().event_order == EventOrder::WithReplies;
    match task.means {
        Means::Fence if !ordered => Err(AttemptError::UnorderedEvents),
        Means::Fence => fenced(client, task, source),
        Means::Transport if ordered => fenced(client, task, source),
        Means::Transport | Means::Transaction => in_transaction(client, task, source),
    }
}

impl Attempt {
    fn new(task: &Task<'_>) -> Self {
        let trees = Trees::new(task.domid, task.extra);
        let reading = trees.reading(task.limits);
        let questions = Questions::new(task.domid);
        Self {
            trees,
            reading,
            questions,
            told: Told::Nothing(MissingReason::NotInProtocol),
            change: None,
        }
    }

    /// Adds to a batch what is to be read next.
    fn ask(&mut self, batch: &mut Batch) -> (Level, Asked) {
        (self.reading.next_level(batch), self.questions.ask(batch))
    }

    /// Takes the replies in; gives the root of the VM's tree if it has come to light.
    fn take(
        &mut self,
        (level, asked): (Level, Asked),
        replies: &mut Replies,
    ) -> Result<Option<Path>, AttemptError> {
        self.reading.take(level, replies)?;
        self.questions.take(asked, replies)?;
        if let Some(Seen::Absent { .. }) = self.reading.seen(&self.trees.domain) {
            return Err(AttemptError::NoSuchDomain);
        }
        Ok(self.trees.find_vm(&mut self.reading))
    }

    fn is_done(&self) -> bool {
        self.reading.is_done() && self.questions.is_done()
    }

    /// Asks who tells of the connection. Without a source of the caller's that is the server, which is asked in the last
    /// batch; the answer is for [`Attempt::take_told`].
    fn ask_source(
        &mut self,
        domid: DomId,
        source: Source<'_, '_>,
        last: &mut Batch,
    ) -> Result<Option<Slot<DomainStatePage>>, AttemptError> {
        let Some(source) = source else { return Ok(Some(last.domain_state(domid))) };
        self.told = match source.connection(domid).map_err(AttemptError::Source)? {
            Some(connection) => Told::BySource(connection),
            None => Told::Nothing(MissingReason::NoConnection),
        };
        Ok(None)
    }

    /// Takes what the server tells. Pages that did not fit the last batch come after it; that they are of the same state as
    /// the first is seen by their number.
    fn take_told(
        &mut self,
        client: &mut Client,
        domid: DomId,
        asked: Option<Slot<DomainStatePage>>,
        replies: &mut Replies,
    ) -> Result<(), AttemptError> {
        if let Some(slot) = asked {
            let first = replies.take(slot);
            self.told = of_server::told(client, domid, first)?;
        }
        Ok(())
    }
}

fn fenced(
    client: &mut Client,
    task: &Task<'_>,
    source: Source<'_, '_>,
) -> Result<Attempt, AttemptError> {
    let mut watches = Vec::new();
    let read = read_inside_fence(client, task, source, &mut watches);
    if read.is_err() {
        for watch in &watches {
            // The first error says more than a second would.
            let _ = client.unwatch(watch);
        }
    }
    read
}

fn read_inside_fence(
    client: &mut Client,
    task: &Task<'_>,
    source: Source<'_, '_>,
    watches: &mut Vec<Watch>,
) -> Result<Attempt, AttemptError> {
    let mut attempt = Attempt::new(task);
    let mut unwatched: Vec<Path> = attempt.trees.roots().into_iter().collect();
    while !attempt.is_done() {
        let mut batch = Batch::new();
        let set: Vec<_> = unwatched.drain(..).map(|root| batch.watch(root, None)).collect();
        let asked = attempt.ask(&mut batch);
        let mut replies = client.run(batch)?;
        let (set, refused): (Vec<_>, Vec<_>) =
            set.into_iter().map(|slot| replies.take_watch(slot)).partition(Result::is_ok);
        watches.extend(set.into_iter().flatten());
        refused.into_iter().collect::<Result<Vec<_>, _>>()?;
        unwatched.extend(attempt.take(asked, &mut replies)?);
    }
    let mut last = Batch::new();
    let asked = attempt.ask_source(task.domid, source, &mut last)?;
    let (changed, mut replies) = end_fence(client, &attempt, watches, last)?;
    attempt.take_told(client, task.domid, asked, &mut replies)?;
    attempt.change = (!changed.is_empty()).then_some(Change::At(changed));
    Ok(attempt)
}

/// Ends the watches with a last batch, and gives what changed while they stood.
fn end_fence(
    client: &mut Client,
    attempt: &Attempt,
    watches: &[Watch],
    mut batch: Batch,
) -> Result<(BTreeSet<Path>, Replies), OperationError> {
    let ask = |root: Path| (batch.read(root.clone()), batch.get_perms(root.clone()), root);
    let again: Vec<_> = attempt.trees.roots().into_iter().map(ask).collect();
    for watch in watches {
        batch.unwatch(watch);
    }
    let mut replies = client.run(batch)?;
    let mut changed = BTreeSet::new();
    for event in watches.iter().flat_map(|watch| replies.events(watch)) {
        match event {
            // Where events were lost, anything may have changed.
            Event { lost_before: true, .. } => changed.extend(attempt.trees.roots()),
            Event { first: true, .. } => {}
            Event { path: PathOrSpecial::Node(path), .. } => drop(changed.insert(path.clone())),
            Event { path: PathOrSpecial::Special(_), .. } => {}
        }
    }
    for (value, perms, root) in again {
        let now = (answer(&mut replies, value)?.ok(), answer(&mut replies, perms)?.ok());
        let then = match attempt.reading.seen(&root) {
            Some(Seen::Node(node)) => (Some(node.value.clone()), Some(node.perms.clone())),
            // Why it cannot be read is no matter; if that changed, there is an event below.
            Some(Seen::Unreadable(_)) => continue,
            Some(Seen::Absent { .. }) | None => (None, None),
        };
        if now != then {
            changed.insert(root);
        }
    }
    Ok((changed, replies))
}

fn in_transaction(
    client: &mut Client,
    task: &Task<'_>,
    source: Source<'_, '_>,
) -> Result<Attempt, AttemptError> {
    let mut outside = Attempt::new(task);
    let mut batch = Batch::new();
    let asked = outside.ask(&mut batch);
    let (mut transaction, mut replies) = client.transaction_with(batch)?;
    outside.take(asked, &mut replies)?;

    let mut attempt = Attempt::new(task);
    outside.reading.paths().for_each(|path| attempt.reading.want(path.clone()));
    attempt.questions = outside.questions;
    while !attempt.is_done() {
        let mut batch = Batch::new();
        let asked = attempt.ask(&mut batch);
        let mut replies = transaction.run(batch)?;
        attempt.take(asked, &mut replies)?;
    }
    let mut last = Batch::new();
    let asked = attempt.ask_source(task.domid, source, &mut last)?;
    let (ended, mut replies) = transaction.commit_with(last)?;
    attempt.take_told(client, task.domid, asked, &mut replies)?;
    if ended == Commit::Conflict {
        attempt.change = Some(Change::Somewhere);
    }
    Ok(attempt)
}

impl From<OperationError> for AttemptError {
    fn from(error: OperationError) -> Self {
        Self::Read(error.into())
    }
}

impl From<AskError> for AttemptError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Operation(error) => error.into(),
            AskError::Answer(error) => Self::Source(error.into()),
        }
    }
}

impl From<ReadError> for AttemptError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}
