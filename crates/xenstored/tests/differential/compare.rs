//! One step of a sequence, asked of both and compared.

use std::collections::{BTreeMap, BTreeSet};

use xenstore_proto::{DomId, Message, MessageType, Path, TxId};

use crate::differences::{Difference, avoided, is_of_special_perms, of_replies, told_of_the_way};
use crate::links::{Heard, Side};
use crate::pair::{Logged, OpenTransaction, Pair};
use crate::steps::{DOM0_CLIENTS, GUESTS, Place, Step, shown};

/// What the two did otherwise.
pub(crate) type Unlike = String;

impl Pair {
    /// Asks both the same.
    pub(crate) fn step(&mut self, step: &Step) -> Result<(), Unlike> {
        let Step { client, ty, ref payload, place } = *step;
        if let Some(difference) = avoided(step) {
            self.tally.count(difference);
            return Ok(());
        }
        if self.targeted[client] {
            return self.step_with_target(step);
        }
        let open = &self.open[client];
        let inside = match place {
            // Permissions of special names are of no transaction with us.
            _ if is_of_special_perms(ty, payload) => None,
            Place::Inside(n) if !open.is_empty() => Some(n % open.len()),
            _ => None,
        };
        if ty == MessageType::TRANSACTION_END
            && matches!(payload.as_slice(), b"T\0" | b"F\0")
            && let Some(at) = inside
        {
            let transaction = self.open[client].remove(at);
            return self.end(client, &transaction, payload);
        }
        let unknown = if matches!(place, Place::Unknown) { TxId(9999) } else { TxId::NONE };
        let (theirs_tx, ours_tx) =
            inside.map_or((unknown, unknown), |at| (open[at].theirs, open[at].ours));
        let theirs = self.theirs.ask(client, ty, payload, theirs_tx);
        let ours = self.ours.ask(client, ty, payload, ours_tx);
        let (their_events, our_events) = (self.theirs.settle(), self.ours.settle());
        let same = self.is_same_reply(&theirs, &ours) || self.is_known(step, &theirs, &ours);
        match inside {
            Some(at) if is_transactional(ty) => {
                let open = &mut self.open[client][at];
                if !same {
                    if !open.overtaken {
                        return Err(unlike_replies(&theirs, &ours));
                    }
                    self.tally.count(Difference::ReadsAtTheStart);
                    open.apart = true;
                }
                open.log.push(Logged { ty, payload: payload.clone(), theirs, ours });
            }
            _ if !same => return Err(unlike_replies(&theirs, &ours)),
            _ => self.note_outside(client, &theirs, &ours, payload),
        }
        self.are_same_events(Some(client), false, &their_events, &our_events)
    }

    /// A domain with a target has its own rights and the target's with us; with the stock daemon, an entry for one of the
    /// two may hide that for the other. Only reads: after any other request the stores would not be the same.
    fn step_with_target(&mut self, step: &Step) -> Result<(), Unlike> {
        if !matches!(step.ty, MessageType::READ | MessageType::DIRECTORY | MessageType::GET_PERMS) {
            return Ok(());
        }
        let theirs = self.theirs.ask(step.client, step.ty, &step.payload, TxId::NONE);
        let ours = self.ours.ask(step.client, step.ty, &step.payload, TxId::NONE);
        if self.is_same_reply(&theirs, &ours) {
            return Ok(());
        }
        self.tally.count(Difference::TargetsAdd);
        let refused = |reply: &Message| reply.payload == b"EACCES\0";
        if refused(&theirs) && !refused(&ours) {
            Ok(())
        } else {
            Err(unlike_replies(&theirs, &ours))
        }
    }

    fn is_known(&mut self, step: &Step, theirs: &Message, ours: &Message) -> bool {
        let known = of_replies(step, theirs, ours);
        known.into_iter().for_each(|difference| self.tally.count(difference));
        known.is_some()
    }

    /// Keeps account of what is open, and of what a change outside transactions means to those.
    fn note_outside(&mut self, client: usize, theirs: &Message, ours: &Message, payload: &[u8]) {
        let is_guest = |domid: &u16| payload.starts_with(format!("{domid}\0").as_bytes());
        match ours.ty {
            MessageType::TRANSACTION_START => {
                let id =
                    |reply: &Message| TxId::from_octets(&reply.payload[..reply.payload.len() - 1]);
                self.open[client].push(OpenTransaction {
                    theirs: id(theirs).unwrap(),
                    ours: id(ours).unwrap(),
                    log: Vec::new(),
                    overtaken: false,
                    removed: false,
                    apart: false,
                });
            }
            MessageType::RESET_WATCHES => self.open[client].clear(),
            MessageType::INTRODUCE | MessageType::RELEASE | MessageType::SET_TARGET => {
                self.domains_changed = true;
                // Its watches and transactions would depend on what it may do.
                if let Some(at) =
                    GUESTS.iter().position(is_guest).filter(|_| ours.ty == MessageType::SET_TARGET)
                {
                    let guest = DOM0_CLIENTS + at;
                    for side in [&mut self.theirs, &mut self.ours] {
                        side.ask(guest, MessageType::RESET_WATCHES, b"\0", TxId::NONE);
                        side.settle();
                    }
                    self.open[guest].clear();
                    self.targeted[guest] = true;
                }
                // A new kernel in an old domain knows no transactions.
                if let Some(at) =
                    GUESTS.iter().position(is_guest).filter(|_| ours.ty == MessageType::INTRODUCE)
                {
                    self.open[DOM0_CLIENTS + at].clear();
                }
                self.overtake(false);
            }
            MessageType::RM => self.overtake(true),
            MessageType::WRITE | MessageType::MKDIR | MessageType::SET_PERMS => {
                self.overtake(false)
            }
            _ => {}
        }
    }

    fn overtake(&mut self, removed: bool) {
        for open in self.open.iter_mut().flatten() {
            open.overtaken = true;
            open.removed |= removed;
        }
    }

    /// Commits or aborts. What was overtaken may end otherwise with the stock daemon; then the one that could not commit
    /// does it all again at once, as a client would, and must come to the same.
    fn end(
        &mut self,
        client: usize,
        transaction: &OpenTransaction,
        payload: &[u8],
    ) -> Result<(), Unlike> {
        let commits = payload == b"T\0";
        let before = self.our_store();
        let ours = self.ours.ask(client, MessageType::TRANSACTION_END, payload, transaction.ours);
        let our_events = self.ours.settle();
        let changed = transaction.log.iter().any(Logged::changes) || self.our_store() != before;
        // With us, RM and MKDIR have found nothing to do in what the store was at the start.
        let idle = transaction.overtaken
            && ours.ty != MessageType::ERROR
            && !changed
            && !transaction.log.iter().all(Logged::reads);
        // What has answered otherwise cannot come to the same.
        let payload = if transaction.apart || idle { b"F\0" } else { payload };
        let mut theirs =
            self.theirs.ask(client, MessageType::TRANSACTION_END, payload, transaction.theirs);
        let their_events = self.theirs.settle();
        if commits && transaction.apart {
            theirs.ty = MessageType::ERROR;
            theirs.payload = b"EAGAIN\0".to_vec();
        }
        let conflict = |reply: &Message| reply.payload == b"EAGAIN\0";
        match (conflict(&theirs), conflict(&ours)) {
            _ if !commits || !transaction.overtaken => {
                if !self.is_same_reply(&theirs, &ours) {
                    return Err(unlike_replies(&theirs, &ours));
                }
                self.are_same_events(Some(client), true, &their_events, &our_events)?;
            }
            (false, false) => {
                if !self.is_same_reply(&theirs, &ours) {
                    return Err(unlike_replies(&theirs, &ours));
                }
                self.are_same_events(Some(client), true, &their_events, &our_events)?;
            }
            (true, false) if !changed => self.tally.count(Difference::ReadOnlyCommits),
            (true, false) => {
                self.tally.count(Difference::NoConflict);
                let (again, events) = rerun(&mut self.theirs, client, transaction, b"T\0");
                self.are_same_runs(transaction, &again, |logged| &logged.ours)?;
                self.are_same_events(None, true, &events, &our_events)?;
            }
            (false, true) => {
                if !transaction.removed && !changed {
                    return Err("we see a conflict where the stock daemon sees none".into());
                }
                self.tally.count(Difference::LateFirstAccess);
                let (again, events) = rerun(&mut self.ours, client, transaction, b"T\0");
                self.are_same_runs(transaction, &again, |logged| &logged.theirs)?;
                self.are_same_events(None, true, &their_events, &events)?;
            }
            (true, true) if !transaction.apart => {}
            (true, true) => {
                // With reason: what was read is no longer so, or what was written to is gone.
                let (again, _) = rerun(&mut self.theirs, client, transaction, b"F\0");
                let same = self.are_same_runs(transaction, &again, |logged| &logged.ours);
                if same.is_ok() && !transaction.removed && !transaction.removes() {
                    return Err("we see a conflict, but nothing that was read has changed".into());
                }
            }
        }
        if commits && changed {
            self.overtake(transaction.removes());
        }
        Ok(())
    }

    fn are_same_runs<'l>(
        &mut self,
        transaction: &'l OpenTransaction,
        again: &[Message],
        first: impl Fn(&'l Logged) -> &'l Message,
    ) -> Result<(), Unlike> {
        let firsts = transaction.log.iter().map(first);
        for (first, again) in firsts.zip(&again[..transaction.log.len()]) {
            if !self.is_same_reply(again, first) {
                return Err(format!("when done again: {}", unlike_replies(again, first)));
            }
        }
        match again.last() {
            Some(end) if end.ty == MessageType::TRANSACTION_END => Ok(()),
            end => Err(format!("when done again, it ended with {end:?}")),
        }
    }

    /// Whether both stores hold the same nodes, in the same order.
    pub(crate) fn same_stores(&mut self) -> Result<(), Unlike> {
        let mut paths = vec!["/".to_owned()];
        while let Some(path) = paths.pop() {
            let payload = format!("{path}\0").into_bytes();
            for ty in [MessageType::READ, MessageType::GET_PERMS, MessageType::DIRECTORY] {
                let theirs = self.theirs.ask(0, ty, &payload, TxId::NONE);
                let ours = self.ours.ask(0, ty, &payload, TxId::NONE);
                if !self.is_same_reply(&theirs, &ours) {
                    return Err(format!("{path}: {}", unlike_replies(&theirs, &ours)));
                }
                if ours.ty == MessageType::DIRECTORY {
                    let names = ours.payload.split(|&c| c == 0).filter(|name| !name.is_empty());
                    let above = if path == "/" { "" } else { &*path };
                    paths.extend(
                        names.map(|name| format!("{above}/{}", String::from_utf8_lossy(name))),
                    );
                }
            }
        }
        Ok(())
    }

    /// Whether two replies are the same, apart from numbers that each server makes up.
    pub(crate) fn is_same_reply(&mut self, theirs: &Message, ours: &Message) -> bool {
        if theirs.ty != ours.ty {
            return false;
        }
        match ours.ty {
            MessageType::TRANSACTION_START => true,
            MessageType::DIRECTORY_PART => {
                // The generation is a number of the server's own.
                let names = |reply: &Message| {
                    let nul = reply.payload.iter().position(|&c| c == 0)?;
                    reply.payload.get(nul + 1..).map(<[u8]>::to_vec)
                };
                let (theirs, ours) = (names(theirs), names(ours));
                let prefix = |(a, b): (&Vec<u8>, &Vec<u8>)| a.starts_with(b) || b.starts_with(a);
                // How many whole names fit depends on how long that number is.
                theirs == ours
                    || theirs
                        .as_ref()
                        .zip(ours.as_ref())
                        .is_some_and(|(a, b)| a.len().max(b.len()) > 3000 && prefix((a, b)))
            }
            _ => theirs.payload == ours.payload,
        }
    }

    /// Whether the same was told: to each client and of each watch (tokens are of one watch) the same events in the
    /// same order, and those of a request before or after its reply as the other has it.
    fn are_same_events(
        &mut self,
        asking: Option<usize>,
        ends_transaction: bool,
        theirs: &[Heard],
        ours: &[Heard],
    ) -> Result<(), Unlike> {
        for (client, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
            let (their_watches, our_watches) = (by_watch(theirs), by_watch(ours));
            let tokens: BTreeSet<_> = their_watches.keys().chain(our_watches.keys()).collect();
            for token in tokens {
                let none = Vec::new();
                let mut theirs = their_watches.get(token).unwrap_or(&none).clone();
                let mut ours = our_watches.get(token).unwrap_or(&none).clone();
                if ends_transaction {
                    let heard = ours.len();
                    ours.retain(|path| theirs.contains(path) || !self.is_unreadable(client, path));
                    if heard != ours.len() {
                        self.tally.count(Difference::ParentReadable);
                    }
                }
                let ours = &ours;
                if theirs != *ours {
                    let told = theirs.len();
                    theirs.retain(|path| ours.contains(path) || !told_of_the_way(path, ours));
                    if told != theirs.len() {
                        self.tally.count(Difference::ToldOfTheWay);
                    }
                }
                if theirs != *ours && ends_transaction && sorted(&theirs) == sorted(ours) {
                    self.tally.count(Difference::OrderInACommit);
                    continue;
                }
                if theirs != *ours {
                    let list = |paths: &[Vec<u8>]| {
                        let text: Vec<_> = paths.iter().map(|path| shown(path)).collect();
                        text.join(" ")
                    };
                    return Err(format!(
                        "client {client} with token {} hears of [{}] from the stock daemon and of [{}] from us",
                        shown(token),
                        list(&theirs),
                        list(ours)
                    ));
                }
            }
            let before = |heard: &Heard| heard.before_reply > 0;
            if asking == Some(client) && before(theirs) != before(ours) {
                return Err(format!(
                    "{} of {} events came before the reply of the stock daemon, {} of {} before ours",
                    theirs.before_reply,
                    theirs.events.len(),
                    ours.before_reply,
                    ours.events.len()
                ));
            }
        }
        Ok(())
    }
}

impl Pair {
    /// Whether the node is gone, or its own permissions do not let the client's domain read it.
    fn is_unreadable(&self, client: usize, path: &[u8]) -> bool {
        let path: Path = str::from_utf8(path).unwrap().parse().unwrap();
        let domid = client.checked_sub(DOM0_CLIENTS).map_or(0, |guest| GUESTS[guest]);
        let path = path.resolve(&Path::of_domain(DomId::new(domid))).unwrap();
        let store = self.our_store();
        let Some(perms) = store.perms(&path) else { return true };
        let domid = DomId::new(domid);
        let entry = perms.entries()[1..].iter().find(|entry| entry.domid == domid);
        let access = entry.map_or(perms.others(), |entry| entry.access);
        domid != DomId::DOM0 && domid != perms.owner() && !access.can_read()
    }
}

impl OpenTransaction {
    fn removes(&self) -> bool {
        self.log.iter().any(|logged| logged.ty == MessageType::RM)
    }
}

impl Logged {
    fn reads(&self) -> bool {
        !matches!(
            self.ty,
            MessageType::WRITE | MessageType::MKDIR | MessageType::RM | MessageType::SET_PERMS
        )
    }

    /// Whether it changed something for sure. MKDIR and RM may have found nothing to do.
    fn changes(&self) -> bool {
        matches!(self.ours.ty, MessageType::WRITE | MessageType::SET_PERMS)
    }
}

/// Does all of a transaction again in a new one, and ends that. Gives the replies, the last that of the end, and what
/// came of it.
fn rerun(
    side: &mut Side,
    client: usize,
    transaction: &OpenTransaction,
    end: &[u8],
) -> (Vec<Message>, Vec<Heard>) {
    let started = side.ask(client, MessageType::TRANSACTION_START, b"\0", TxId::NONE);
    let tx = TxId::from_octets(&started.payload[..started.payload.len() - 1]).unwrap();
    let mut replies: Vec<_> = (transaction.log.iter())
        .map(|logged| side.ask(client, logged.ty, &logged.payload, tx))
        .collect();
    replies.push(side.ask(client, MessageType::TRANSACTION_END, end, tx));
    (replies, side.settle())
}

fn sorted(paths: &[Vec<u8>]) -> Vec<&Vec<u8>> {
    let mut sorted: Vec<_> = paths.iter().collect();
    sorted.sort();
    sorted
}

/// Paths by token, in order.
fn by_watch(heard: &Heard) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut watches: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in &heard.events {
        let mut strings = event.split(|&c| c == 0);
        let (path, token) = (strings.next().unwrap_or(&[]), strings.next().unwrap_or(&[]));
        watches.entry(token.to_vec()).or_default().push(path.to_vec());
    }
    watches
}

/// Whether the operation reads or changes nodes.
fn is_transactional(ty: MessageType) -> bool {
    matches!(
        ty,
        MessageType::READ
            | MessageType::DIRECTORY
            | MessageType::DIRECTORY_PART
            | MessageType::GET_PERMS
            | MessageType::WRITE
            | MessageType::MKDIR
            | MessageType::RM
            | MessageType::SET_PERMS
    )
}

fn unlike_replies(theirs: &Message, ours: &Message) -> Unlike {
    let text = |reply: &Message| format!("{:?} \"{}\"", reply.ty, shown(&reply.payload));
    format!("the stock daemon answers {}, we {}", text(theirs), text(ours))
}
