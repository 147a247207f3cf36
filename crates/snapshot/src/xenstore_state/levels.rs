//! Reading trees level by level: the nodes of one level of all trees together are one batch.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_migration::domain_state::NodeState;
use xsclient::{Batch, Failure, FromReply, Name, OperationError, Path, Perms, Replies, Slot};

use super::limits::{LimitExceeded, Limits};
use super::missing::{Missing, MissingReason, StatePart};

/// Most nodes that are asked for in one batch: four times what C xenstored lets a guest own, so that a level is one round trip,
/// and few enough that the replies, at most 12 KiB a node, fit in memory at once.
const NODES_PER_BATCH: usize = 4096;

/// Trees being read. Nodes are asked for once each, whoever named them: a root, a directory, or a hint.
#[derive(Debug)]
pub(super) struct Reading {
    limits: Limits,
    nodes: BTreeMap<Path, Seen>,
    wanted: BTreeSet<Path>,
    /// Of those not answered yet, which a directory has shown.
    listed: BTreeSet<Path>,
    /// Directories with children whose paths are longer than a path may be.
    too_deep: BTreeSet<Path>,
    octets: usize,
}

/// What was found at a path.
#[derive(Clone, Debug)]
pub(super) enum Seen {
    Node(NodeState),
    /// There is none; whether its directory shows one even so.
    Absent {
        listed: bool,
    },
    Unreadable(OperationError),
}

/// What one batch asks.
#[derive(Debug)]
pub(super) struct Level(Vec<Asked>);

#[derive(Debug)]
struct Asked {
    path: Path,
    children: Slot<Vec<Name>>,
    value: Slot<Vec<u8>>,
    perms: Slot<Perms>,
}

/// Why trees could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Operation(OperationError),
    Limit(LimitExceeded),
}

impl Reading {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            nodes: BTreeMap::new(),
            wanted: BTreeSet::new(),
            listed: BTreeSet::new(),
            too_deep: BTreeSet::new(),
            octets: 0,
        }
    }

    /// Asks for a node and all below it. A root, or a hint at what a directory will show: a hint that turns out wrong costs
    /// three requests, a right one saves the wait for its directory.
    pub(super) fn want(&mut self, path: Path) {
        if !self.nodes.contains_key(&path) {
            self.wanted.insert(path);
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.wanted.is_empty()
    }

    pub(super) fn seen(&self, path: &Path) -> Option<&Seen> {
        self.nodes.get(path)
    }

    /// Every path that was asked for or is to be.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.nodes.keys().chain(&self.wanted)
    }

    /// Adds the next level to a batch, or a part of it.
    pub(super) fn next_level(&mut self, batch: &mut Batch) -> Level {
        let mut level = Vec::new();
        while level.len() < NODES_PER_BATCH {
            let Some(path) = self.wanted.pop_first() else { break };
            level.push(Asked {
                children: batch.directory(path.clone()),
                value: batch.read(path.clone()),
                perms: batch.get_perms(path.clone()),
                path,
            });
        }
        Level(level)
    }

    /// Takes the replies to a level in. What a server refuses is an answer; what keeps it from answering is an error.
    pub(super) fn take(&mut self, level: Level, replies: &mut Replies) -> Result<(), ReadError> {
        let mut listings = Vec::with_capacity(level.0.len());
        for asked in level.0 {
            let (seen, names) = asked.answer(replies, self.listed.remove(&asked.path))?;
            self.octets += octets(&asked.path, &seen, &names);
            if self.octets > self.limits.octets {
                return Err(LimitExceeded::Octets { max: self.limits.octets }.into());
            }
            listings.push((asked.path.clone(), names));
            self.nodes.insert(asked.path, seen);
        }
        for (directory, names) in listings {
            for name in names {
                match directory.child(&name) {
                    Ok(child) => self.list(child)?,
                    Err(_) => drop(self.too_deep.insert(directory.clone())),
                }
            }
        }
        self.check_nodes()
    }

    /// What was read at and below the roots, and what could not be. A node that could not be read is left out with all below
    /// it, so that whatever is not a root has the node above it.
    pub(super) fn finish(
        self,
        roots: &BTreeSet<Path>,
    ) -> (BTreeMap<Path, NodeState>, Vec<Missing>) {
        let mut nodes: BTreeMap<Path, NodeState> = BTreeMap::new();
        let mut missing = Vec::new();
        // A path sorts behind those above it.
        for (path, seen) in self.nodes {
            let above = |path: &Path| path.parent().is_some_and(|above| nodes.contains_key(&above));
            if !roots.contains(&path) && !above(&path) {
                continue;
            }
            let reason = match seen {
                Seen::Node(node) => {
                    nodes.insert(path, node);
                    continue;
                }
                Seen::Absent { listed: true } => MissingReason::Vanished,
                Seen::Absent { listed: false } => continue,
                Seen::Unreadable(source) => MissingReason::Unreadable(source),
            };
            missing.push(Missing { part: StatePart::Node(path), reason });
        }
        let too_deep = self.too_deep.into_iter().filter(|path| nodes.contains_key(path));
        missing.extend(too_deep.map(|path| Missing {
            part: StatePart::Children(path),
            reason: MissingReason::PathTooLong,
        }));
        (nodes, missing)
    }

    fn list(&mut self, child: Path) -> Result<(), ReadError> {
        match self.nodes.get_mut(&child) {
            Some(Seen::Absent { listed }) => *listed = true,
            Some(_) => {}
            None => {
                self.listed.insert(child.clone());
                self.wanted.insert(child);
            }
        }
        self.check_nodes()
    }

    fn check_nodes(&self) -> Result<(), ReadError> {
        if self.nodes.len() + self.wanted.len() > self.limits.nodes {
            return Err(LimitExceeded::Nodes { max: self.limits.nodes }.into());
        }
        Ok(())
    }
}

impl Asked {
    fn answer(
        &self,
        replies: &mut Replies,
        listed: bool,
    ) -> Result<(Seen, Vec<Name>), OperationError> {
        let children = answer(replies, self.children)?;
        let value = answer(replies, self.value)?;
        let perms = answer(replies, self.perms)?;
        let (names, value, perms) = match (children, value, perms) {
            (Ok(names), Ok(value), Ok(perms)) => (names, value, perms),
            (children, value, perms) => {
                let refusals = [children.err(), value.err(), perms.err()].into_iter().flatten();
                let mut refusals: Vec<OperationError> = refusals.collect();
                let seen = if refusals.iter().any(OperationError::is_not_found) {
                    Seen::Absent { listed }
                } else {
                    Seen::Unreadable(refusals.swap_remove(0))
                };
                return Ok((seen, Vec::new()));
            }
        };
        Ok((Seen::Node(NodeState { value, perms }), names))
    }
}

/// What one request was answered; an error is one of the connection, or of the client.
pub(super) fn answer<T: FromReply>(
    replies: &mut Replies,
    slot: Slot<T>,
) -> Result<Result<T, OperationError>, OperationError> {
    match replies.take(slot) {
        Err(error) if is_answer(&error) => Ok(Err(error)),
        taken => taken.map(Ok),
    }
}

/// Whether the server has answered, if only with something that is no use.
fn is_answer(error: &OperationError) -> bool {
    matches!(
        error.failure(),
        Failure::Refused(_)
            | Failure::TooLong(_)
            | Failure::NoParts
            | Failure::DirectoryChanging { .. }
            | Failure::DirectoryTooLong { .. }
            | Failure::UnexpectedReply { .. }
    )
}

fn octets(path: &Path, seen: &Seen, names: &[Name]) -> usize {
    let names: usize = names.iter().map(|name| name.as_str().len()).sum();
    let node = match seen {
        Seen::Node(node) => node.value.len() + size_of_val(node.perms.entries()),
        Seen::Absent { .. } | Seen::Unreadable(_) => 0,
    };
    path.as_str().len() + names + node
}

impl From<OperationError> for ReadError {
    fn from(error: OperationError) -> Self {
        Self::Operation(error)
    }
}

impl From<LimitExceeded> for ReadError {
    fn from(exceeded: LimitExceeded) -> Self {
        Self::Limit(exceeded)
    }
}
