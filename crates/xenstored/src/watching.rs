//! The watches of connections: how they are set and go.

use xenstore_proto::{Errno, Features, Path, PathOrSpecial, Reply, Token};

use crate::access::Subject;
use crate::backend::{KeptWatch, WatchChange};
use crate::limits::WATCHES_MAX_PRIVILEGED;
use crate::quota::Quota;
use crate::server::{ConnectionId, Server};
use crate::watches::Watch;

impl Server {
    /// Sets a watch; its first event is the caller's.
    pub(crate) fn watch(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        path: &PathOrSpecial,
        token: Token,
        depth: Option<u32>,
    ) -> Result<(), Errno> {
        if depth.is_some() && !self.domains.features(subject.domid).contains(Features::WATCH_DEPTH)
        {
            return Err(Errno::EINVAL);
        }
        let (key, left_out) = self.watched(subject, path)?;
        let octets = octets(&key, &token);
        let account = self.accounts.of_domain(subject.domid);
        let quotas = &account.quotas;
        let within = if subject.privileged {
            self.watches.count_of(connection) < WATCHES_MAX_PRIVILEGED
        } else {
            quotas.allow(Quota::Watches, account.watches.count + 1)
                && quotas.allow(Quota::Memory, account.memory() + octets)
        };
        if !within {
            return Err(Errno::ENOSPC);
        }
        if self.watches.has(connection, &key, &token) {
            return Err(Errno::EEXIST);
        }
        let kept = |domid| {
            let (path, token) = (path.clone(), token.clone());
            WatchChange::Put(KeptWatch { domid, path, token, depth })
        };
        self.keep_watch(connection, kept)?;
        self.watches.add(&key, Watch { connection, token, depth, left_out });
        self.accounts.of_domain(subject.domid).watches.add(octets);
        Ok(())
    }

    /// Sets a watch that a predecessor had: its event has been told, and its limits were looked at, by that one.
    pub(crate) fn watch_again(
        &mut self,
        connection: ConnectionId,
        path: &PathOrSpecial,
        token: Token,
        depth: Option<u32>,
    ) {
        let Some(state) = self.connections.get(&connection) else { return };
        // A path that is too long by now was not when it was watched.
        let subject = Subject { privileged: true, ..self.domains.subject(state.domid) };
        let Ok((key, left_out)) = self.watched(&subject, path) else { return };
        let octets = octets(&key, &token);
        if self.watches.add(&key, Watch { connection, token, depth, left_out }) {
            self.accounts.of_domain(subject.domid).watches.add(octets);
        }
    }

    pub(crate) fn unwatch(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        path: &PathOrSpecial,
        token: &Token,
    ) -> Result<Reply, Errno> {
        let (key, _) = self.watched(subject, path)?;
        if !self.watches.has(connection, &key, token) {
            return Err(Errno::ENOENT);
        }
        // It may have been given as another path.
        let set = |watch: &&Watch| watch.connection == connection && watch.token == *token;
        let left_out = self.watches.on(&key).iter().find(set).map_or(0, |watch| watch.left_out);
        if let Ok(path) = key[left_out..].parse() {
            let token = token.clone();
            let gone = |domid| WatchChange::Remove(KeptWatch { domid, path, token, depth: None });
            self.keep_watch(connection, gone)?;
        }
        self.watches.remove(connection, &key, token);
        self.accounts.of_domain(subject.domid).watches.remove(octets(&key, token));
        Ok(Reply::Ok)
    }

    pub(crate) fn drop_watches(&mut self, connection: ConnectionId) {
        // What is not forgotten is a watch too many after a crash, no more.
        let _ = self.keep_watch(connection, WatchChange::RemoveAll);
        let gone = self.watches.remove_connection(connection);
        let Some(state) = self.connections.get(&connection) else { return };
        let tally = &mut self.accounts.of_domain(state.domid).watches;
        for (path, token) in gone {
            tally.remove(octets(&path, &token));
        }
    }

    /// The absolute path that a path of this subject means.
    pub(crate) fn absolute(&self, subject: &Subject, path: Path) -> Result<Path, Errno> {
        let path = if path.is_absolute() {
            path
        } else {
            path.resolve(&Path::of_domain(subject.domid)).map_err(|_| Errno::EINVAL)?
        };
        let quotas = self.accounts.quotas(subject.domid);
        let fits =
            subject.privileged || quotas.allow(Quota::PathMax, own_part(path.as_str()).len());
        if fits { Ok(path) } else { Err(Errno::EINVAL) }
    }

    /// The path or name that a watch is found by, and how much its events leave out.
    fn watched(&self, subject: &Subject, path: &PathOrSpecial) -> Result<(Box<str>, usize), Errno> {
        match path {
            PathOrSpecial::Special(name) => Ok((name.as_str().into(), 0)),
            PathOrSpecial::Node(path) => {
                let key = self.absolute(subject, path.clone())?;
                let left_out = key.as_str().len() - path.as_str().len();
                Ok((key.as_str().into(), left_out))
            }
        }
    }
}

/// What a watch costs.
pub(crate) fn octets(path: &str, token: &Token) -> usize {
    path.len() + token.as_octets().len()
}

/// What of an absolute path does not depend on the number of the domain under which it lies.
fn own_part(path: &str) -> &str {
    let inside = path.strip_prefix("/local/domain/").and_then(|rest| rest.split_once('/'));
    match inside {
        Some((domid, rest)) if domid.bytes().all(|c| c.is_ascii_digit()) => rest,
        _ => path,
    }
}
