//! Reading the view of one or many domains so that all of it is of one moment, in at most four round trips.
//!
//! Two ways, by what the transport promises:
//!
//! * **Watch fence**, where events are in order with replies (a socket): WATCH goes ahead of the first level, UNWATCH behind
//!   the last, and if no event came in between that touches what was read, nothing has changed. The watches stand on
//!   `/local/domain` and `/libxl`, which nobody changes themselves, so that no event can be merged with a watch's first;
//!   they cover backends in driver domains too. Events about other domains are sorted out here.
//! * **Transaction**, where a kernel hands events over separately (the xenbus device): started together with the first level
//!   outside of it, which tells what the second level is; inside, both levels are read together. It commits together with
//!   the last level, and a conflict says that something changed.
//!
//! Behind a fence, what the guest itself can write does not count: it could keep every read from being consistent. In a
//! transaction it does count, since the server does not say what the conflict was about.

use std::collections::BTreeMap;

use xsclient::{
    Batch, Client, Commit, Event, EventOrder, Name, Nodes, OperationError, Path, PathOrSpecial,
    Replies, Slot, Watch,
};

use super::observed::{Answer, Ask, Observed};
use super::plan::{self, LEVELS, Trees};

/// How to make a read consistent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Means {
    /// By what the transport promises: a watch fence if it can, else a transaction.
    #[default]
    Transport,
    /// A watch fence; fails on transports whose events are not in order with replies.
    Fence,
    /// A transaction. Writes of the guest's to its own end of a device are conflicts, too.
    Transaction,
}

/// What another level would have had to read: nothing, unless a tree changed its shape while it was read.
fn note_unread(trees: &Trees, read: &mut Read) {
    read.unread = plan::wanted(trees, &read.seen).into_iter().map(Ask::into_path).collect();
}

/// What was read of one domain.
pub(super) struct Read {
    pub(super) seen: Observed,
    /// What changed while it was read; empty if all of it is of one moment.
    pub(super) changed: Vec<String>,
    /// What another level would have had to read.
    pub(super) unread: Vec<Path>,
}

/// Reads all domains in lockstep: level by level, each level of all of them in one round trip.
pub(super) fn read(
    client: &mut Client,
    domains: &[Trees],
    means: Means,
) -> Result<Vec<Read>, OperationError> {
    let ordered = client.manner().event_order == EventOrder::WithReplies;
    match means {
        Means::Fence => read_fenced(client, domains),
        Means::Transport if ordered => read_fenced(client, domains),
        Means::Transport | Means::Transaction => read_in_transaction(client, domains),
    }
}

fn read_fenced(client: &mut Client, domains: &[Trees]) -> Result<Vec<Read>, OperationError> {
    let mut reading = Reading::new(domains);
    let mut batch = Batch::new();
    let set = fence_paths().map(|path| batch.watch(path, None));
    let level = reading.next_level(&mut batch);
    let mut replies = client.run(batch)?;
    let watches: Vec<Watch> =
        set.into_iter().map(|slot| replies.take_watch(slot)).collect::<Result<_, _>>()?;
    let outcome = read_inside_fence(client, &mut reading, level, replies, &watches);
    if outcome.is_err() {
        for watch in &watches {
            // The first error says more than a second would.
            let _ = client.unwatch(watch);
        }
    }
    let events = outcome?;
    let mut reads = reading.finish();
    for event in &events {
        let PathOrSpecial::Node(path) = event else { continue };
        for (trees, read) in domains.iter().zip(&mut reads) {
            if !trees.is_guests(path, &read.seen) && read.seen.is_touched_by(path) {
                read.changed.push(path.to_string());
            }
        }
    }
    // What did not change has no more than four levels.
    let changed = domains.iter().zip(&mut reads).filter(|(_, read)| !read.changed.is_empty());
    changed.for_each(|(trees, read)| note_unread(trees, read));
    Ok(reads)
}

/// Nobody changes these two nodes themselves, only what is below.
fn fence_paths() -> [Path; 2] {
    ["/local/domain", "/libxl"].map(|path| path.parse().expect("written out here"))
}

/// The levels after the first, and the paths of what happened meanwhile.
fn read_inside_fence(
    client: &mut Client,
    reading: &mut Reading<'_>,
    first: Level,
    replies: Replies,
    watches: &[Watch],
) -> Result<Vec<PathOrSpecial>, OperationError> {
    reading.take(first, replies)?;
    for number in 1..LEVELS {
        let mut batch = Batch::new();
        let level = reading.next_level(&mut batch);
        let last = level.is_empty() || number + 1 == LEVELS;
        if last {
            for watch in watches {
                batch.unwatch(watch);
            }
        }
        let replies = client.run(batch)?;
        if last {
            let happened = watches.iter().flat_map(|watch| {
                // Where events were lost, anything below the watch may have changed.
                replies.events(watch).iter().filter_map(|event| match event {
                    Event { lost_before: true, .. } => Some(watch.path().clone()),
                    Event { first: true, .. } => None,
                    Event { path, .. } => Some(path.clone()),
                })
            });
            let happened = happened.collect();
            reading.take(level, replies)?;
            return Ok(happened);
        }
        reading.take(level, replies)?;
    }
    Ok(Vec::new())
}

fn read_in_transaction(
    client: &mut Client,
    domains: &[Trees],
) -> Result<Vec<Read>, OperationError> {
    let mut outside = Reading::new(domains);
    let mut batch = Batch::new();
    let level = outside.next_level(&mut batch);
    let (mut transaction, replies) = client.transaction_with(batch)?;
    outside.take(level, replies)?;

    let mut reading = Reading::new(domains);
    let mut batch = Batch::new();
    let level = reading.level_like(&outside, &mut batch);
    let replies = transaction.run(batch)?;
    reading.take(level, replies)?;
    let mut batch = Batch::new();
    let level = reading.next_level(&mut batch);
    let replies = transaction.run(batch)?;
    reading.take(level, replies)?;
    let mut batch = Batch::new();
    let level = reading.next_level(&mut batch);
    let (commit, replies) = transaction.commit_with(batch)?;
    reading.take(level, replies)?;

    let mut reads = reading.finish();
    // Between the look outside and the start of the transaction there may have been changes that are no conflict, and for
    // what they added a level is missing.
    for (trees, read) in domains.iter().zip(&mut reads) {
        note_unread(trees, read);
        read.changed.extend(read.unread.iter().map(Path::to_string));
    }
    if commit == Commit::Conflict {
        for read in &mut reads {
            read.changed.push("what the transaction read".to_owned());
        }
    }
    Ok(reads)
}

/// Several domains being read in lockstep.
struct Reading<'t> {
    domains: &'t [Trees],
    seen: Vec<Observed>,
}

/// What one batch asks: for which domain, what, and where in the batch.
type Level = Vec<(usize, Ask, Asked)>;

enum Asked {
    Value(Slot<Vec<u8>>),
    Children(Slot<Vec<Name>>),
    /// The domain of that number asks the same in this batch.
    Same(usize),
}

impl<'t> Reading<'t> {
    fn new(domains: &'t [Trees]) -> Self {
        Self { domains, seen: vec![Observed::default(); domains.len()] }
    }

    /// Adds to a batch what is wanted next.
    fn next_level(&self, batch: &mut Batch) -> Level {
        let wanted =
            self.domains.iter().zip(&self.seen).map(|(trees, seen)| plan::wanted(trees, seen));
        ask(self.domains, wanted, batch)
    }

    /// Adds to a batch what somebody else has read so far, and what is wanted after that.
    fn level_like(&self, other: &Self, batch: &mut Batch) -> Level {
        let wanted = self
            .domains
            .iter()
            .zip(&other.seen)
            .map(|(trees, seen)| seen.asked().chain(plan::wanted(trees, seen)));
        ask(self.domains, wanted, batch)
    }

    /// Takes the replies to a level in.
    fn take(&mut self, level: Level, mut replies: Replies) -> Result<(), OperationError> {
        for (domain, ask, asked) in level {
            let answer = match asked {
                Asked::Value(slot) => Answer::Value(refused(replies.take(slot))?),
                Asked::Children(slot) => Answer::Children(refused(replies.take(slot))?),
                // The domain that asked first stands before this one.
                Asked::Same(first) => match self.seen[first].answer(&ask) {
                    Some(answer) => answer,
                    None => continue,
                },
            };
            self.seen[domain].insert(ask.into_path(), answer);
        }
        Ok(())
    }

    fn finish(self) -> Vec<Read> {
        let read = |seen| Read { seen, changed: Vec::new(), unread: Vec::new() };
        self.seen.into_iter().map(read).collect()
    }
}

fn ask(
    domains: &[Trees],
    wanted: impl Iterator<Item = impl IntoIterator<Item = Ask>>,
    batch: &mut Batch,
) -> Level {
    let mut level = Level::new();
    let mut shared: BTreeMap<Ask, usize> = BTreeMap::new();
    for ((domain, trees), asks) in domains.iter().enumerate().zip(wanted) {
        for ask in asks {
            // All else that is asked has the domain's id in its path.
            let is_shared = *ask.path() == trees.backends;
            let asked = match shared.get(&ask).filter(|_| is_shared) {
                Some(first) => Asked::Same(*first),
                None => match &ask {
                    Ask::Value(path) => Asked::Value(batch.read(path.clone())),
                    Ask::Children(path) => Asked::Children(batch.directory(path.clone())),
                },
            };
            if is_shared {
                shared.entry(ask.clone()).or_insert(domain);
            }
            level.push((domain, ask, asked));
        }
    }
    level
}

/// What the server refuses is an answer; what keeps it from answering is an error.
fn refused<T>(
    reply: Result<T, OperationError>,
) -> Result<Result<T, xsclient::Errno>, OperationError> {
    match reply {
        Ok(value) => Ok(Ok(value)),
        Err(error) => match error.errno() {
            Some(errno) => Ok(Err(errno.clone())),
            None => Err(error),
        },
    }
}
