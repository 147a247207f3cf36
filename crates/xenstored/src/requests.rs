//! What each request does.

use std::collections::BTreeMap;
use std::sync::Arc;

use xenstore_proto::{DomId, Errno, Name, Path, PathOrSpecial, Reply, Request, TxId};

use crate::access::{Actor, Object, Subject};
use crate::change::{Change, check_perms, readable};
use crate::charges::Charges;
use crate::domains::DomainEvent;
use crate::events::Was;
use crate::limits::{PAYLOAD_MAX, VALUE_MAX};
use crate::server::{Connection, ConnectionId, Server};
use crate::transaction::{Aspects, Transaction};
use crate::tree::Node;

/// The names of a big directory as they stand in DIRECTORY_PART replies: kept from one part to the next.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Says which directory, and in which state: no two share one.
    generation: u64,
    octets: Vec<u8>,
}

/// Where a request reads and writes.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) connection: ConnectionId,
    pub(crate) tx: TxId,
}

impl Server {
    pub(crate) fn execute(
        &mut self,
        connection: ConnectionId,
        subject: &Subject,
        tx: TxId,
        request: Request,
    ) -> Result<Reply, Errno> {
        let place = Some(Place { connection, tx });
        match request {
            Request::Unwatch { path, token } => self.unwatch(connection, subject, &path, &token),
            Request::ResetWatches => {
                self.reset(connection);
                Ok(Reply::Ok)
            }
            Request::TransactionStart => self.start_transaction(connection, subject, tx),
            Request::TransactionEnd { commit } => {
                self.end_transaction(connection, subject, tx, commit)
            }
            request => self.execute_anywhere(place, subject, request),
        }
    }

    pub(crate) fn execute_for_control(&mut self, request: Request) -> Result<Reply, Errno> {
        match request {
            Request::Watch { .. }
            | Request::Unwatch { .. }
            | Request::ResetWatches
            | Request::TransactionStart
            | Request::TransactionEnd { .. } => Err(Errno::EINVAL),
            request => self.execute_anywhere(None, &Subject::CONTROL, request),
        }
    }

    fn execute_anywhere(
        &mut self,
        place: Option<Place>,
        subject: &Subject,
        request: Request,
    ) -> Result<Reply, Errno> {
        match request {
            Request::Read(path) => {
                let path = self.absolute(subject, path)?;
                let node = self.node(place, subject, &path, Aspects::VALUE)?;
                Ok(Reply::Value(node.value().to_vec()))
            }
            Request::Directory(path) => {
                let path = self.absolute(subject, path)?;
                let node = self.node(place, subject, &path, Aspects::CHILDREN)?;
                if node.child_names_octets() > PAYLOAD_MAX {
                    return Err(Errno::E2BIG);
                }
                let names = node
                    .children()
                    .into_iter()
                    .map(|child| Name::from_octets(child.name().as_bytes()));
                Ok(Reply::Names(names.collect::<Result<_, _>>().map_err(|_| Errno::EIO)?))
            }
            Request::DirectoryPart { path, offset } => {
                let path = self.absolute(subject, path)?;
                self.directory_part(place, subject, &path, offset)
            }
            Request::GetPerms(PathOrSpecial::Node(path)) => {
                let path = self.absolute(subject, path)?;
                let node = self.node(place, subject, &path, Aspects::PERMS)?;
                Ok(Reply::Perms((**node.perms()).clone()))
            }
            Request::GetPerms(PathOrSpecial::Special(name)) => {
                let perms = self.domains.special_perms(&name).ok_or(Errno::ENOENT)?;
                let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
                if !actor.reads(Object { path: name.as_str(), perms }) {
                    return Err(Errno::EACCES);
                }
                Ok(Reply::Perms((**perms).clone()))
            }
            // From a connection it would not have fitted the request either.
            Request::Write { value, .. } if value.len() > VALUE_MAX => Err(Errno::E2BIG),
            Request::Write { path, value } => {
                let path = self.absolute(subject, path)?;
                self.change(place, subject, Change::Write { path, value })
            }
            Request::Mkdir(path) => {
                let path = self.absolute(subject, path)?;
                self.change(place, subject, Change::Mkdir { path })
            }
            Request::Rm(path) => {
                let path = self.absolute(subject, path)?;
                self.change(place, subject, Change::Remove { path })
            }
            Request::SetPerms { perms, .. } if !self.domains.may_name(subject.domid, &perms) => {
                Err(Errno::EINVAL)
            }
            Request::SetPerms { path: PathOrSpecial::Node(path), perms } => {
                let path = self.absolute(subject, path)?;
                let perms = self.interner.intern(perms);
                self.change(place, subject, Change::SetPerms { path, perms })
            }
            // Not part of the tree, and so of no transaction.
            Request::SetPerms { path: PathOrSpecial::Special(name), perms } => {
                let old = self.domains.special_perms(&name).ok_or(Errno::ENOENT)?;
                let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
                check_perms(actor, Object { path: name.as_str(), perms: old }, &perms)?;
                *old = Arc::new(perms);
                Ok(Reply::Ok)
            }
            Request::GetDomainPath(domid) => Ok(Reply::DomainPath(Path::of_domain(domid))),
            Request::GetFeature(None) => Ok(Reply::Features(self.domains.features(subject.domid))),
            request => self.execute_privileged(place, subject, &request),
        }
    }

    /// What only a privileged domain may do.
    fn execute_privileged(
        &mut self,
        place: Option<Place>,
        subject: &Subject,
        request: &Request,
    ) -> Result<Reply, Errno> {
        let privileged = || if subject.privileged { Ok(()) } else { Err(Errno::EACCES) };
        let known = |known: bool| if known { Ok(()) } else { Err(Errno::ENOENT) };
        match *request {
            Request::Introduce { domid, event_channel, .. } => {
                privileged()?;
                if !domid.is_real() || event_channel == 0 {
                    return Err(Errno::EINVAL);
                }
                self.introduce_ring(domid, event_channel)?;
                if self.domains.introduce(domid) {
                    self.accounts.of_domain(domid);
                    self.fire_special(DomainEvent::Introduced, domid);
                } else if domid != DomId::DOM0 {
                    // A new kernel in an old domain: it does not know what the one before it had asked for.
                    self.connections_of(domid)
                        .into_iter()
                        .for_each(|connection| self.reset(connection));
                }
                Ok(Reply::Ok)
            }
            Request::Release(domid) => {
                privileged()?;
                if domid == DomId::DOM0 {
                    return Err(Errno::EINVAL);
                }
                known(self.domains.is_introduced(domid))?;
                self.release(domid)?;
                Ok(Reply::Ok)
            }
            Request::Resume(domid) => {
                privileged()?;
                if domid == DomId::DOM0 {
                    return Err(Errno::EINVAL);
                }
                known(self.domains.resume(domid))?;
                Ok(Reply::Ok)
            }
            Request::SetTarget { domid, target } => {
                privileged()?;
                known(self.domains.set_target(domid, target))?;
                Ok(Reply::Ok)
            }
            Request::IsDomainIntroduced(domid) => {
                privileged()?;
                Ok(Reply::Introduced(domid == DomId::SELF || self.domains.is_introduced(domid)))
            }
            Request::GetQuota(ref query) => {
                privileged()?;
                self.get_quota(query)
            }
            Request::SetQuota { domid, ref quota, value } => {
                privileged()?;
                self.set_quota_named(domid, quota, value)
            }
            Request::GetFeature(Some(domid)) => {
                privileged()?;
                known(self.domains.is_known(domid))?;
                Ok(Reply::Features(self.domains.features(domid)))
            }
            Request::SetFeature { domid, features } => {
                privileged()?;
                self.domains.set_features(domid, features)?;
                Ok(Reply::Ok)
            }
            Request::Control(ref words) => {
                privileged()?;
                self.control(place.map_or(ConnectionId::NONE, |place| place.connection), words)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    pub(crate) fn node(
        &mut self,
        place: Option<Place>,
        subject: &Subject,
        path: &Path,
        aspects: Aspects,
    ) -> Result<&Node, Errno> {
        let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
        let Some(transaction) = transaction(&mut self.connections, place) else {
            return readable(&self.store, actor, path);
        };
        transaction.octets_max = self.accounts.room_for(subject, transaction.octets());
        let (found, octets) = match transaction.read(actor, path, aspects) {
            Ok((node, octets)) => (Ok(node), octets),
            Err((errno, octets)) => (Err(errno), octets),
        };
        self.accounts.of_domain(subject.domid).transactions.octets += octets;
        found
    }

    pub(crate) fn change(
        &mut self,
        place: Option<Place>,
        subject: &Subject,
        change: Change,
    ) -> Result<Reply, Errno> {
        let actor = Actor::new(subject, self.policy.as_ref(), &self.accounts);
        if let Some(transaction) = transaction(&mut self.connections, place) {
            transaction.octets_max = self.accounts.room_for(subject, transaction.octets());
            let before = transaction.octets();
            transaction.view_mut().stamp = self.stamp;
            let outcome = transaction.change(actor, change);
            self.stamp = transaction.view_mut().stamp;
            let octets = transaction.octets() - before;
            self.accounts.of_domain(subject.domid).transactions.octets += octets;
            outcome?;
        } else {
            let before = self.before_change();
            let mut charges = Charges::default();
            self.store.stamp = self.stamp;
            let done = change.apply(&mut self.store, actor, &mut charges);
            self.stamp = self.store.stamp;
            let done = done?;
            self.keep_since(before)?;
            self.accounts.settle(&charges);
            self.fire_change(change.path(), &Was::of(done));
        }
        Ok(Reply::Ok)
    }

    fn directory_part(
        &mut self,
        place: Option<Place>,
        subject: &Subject,
        path: &Path,
        offset: u32,
    ) -> Result<Reply, Errno> {
        let mut listing = self.listing.take();
        let node = self.node(place, subject, path, Aspects::CHILDREN)?;
        let generation = node.generation();
        let listing = match listing.take() {
            Some(known) if known.generation == generation => known,
            _ => {
                let mut octets = Vec::with_capacity(node.child_names_octets());
                for child in node.children() {
                    octets.extend_from_slice(child.name().as_bytes());
                    octets.push(0);
                }
                Listing { generation, octets }
            }
        };
        let mut payload = format!("{generation}\0").into_bytes();
        let room = PAYLOAD_MAX - payload.len();
        let rest =
            usize::try_from(offset).ok().and_then(|at| listing.octets.get(at..)).unwrap_or(&[]);
        if rest.len() < room {
            payload.extend_from_slice(rest);
            payload.push(0);
        } else {
            // Whole names only. The longest is shorter than a path, so one always fits.
            let end = rest[..room].iter().rposition(|&c| c == 0).map_or(0, |nul| nul + 1);
            payload.extend_from_slice(&rest[..end]);
        }
        self.listing = Some(listing);
        // Raw, because an offset inside a name is answered with the rest of that name.
        Ok(Reply::Unknown(payload))
    }

    fn reset(&mut self, connection: ConnectionId) {
        self.drop_watches(connection);
        self.drop_transactions(connection);
    }

    pub(crate) fn connections_of(&self, domid: DomId) -> Vec<ConnectionId> {
        let own = self.connections.iter().filter(|(_, state)| state.domid == domid);
        own.map(|(id, _)| *id).collect()
    }
}

/// The transaction that is meant, if one is.
fn transaction(
    connections: &mut BTreeMap<ConnectionId, Connection>,
    place: Option<Place>,
) -> Option<&mut Transaction> {
    let Place { connection, tx } = place?;
    connections.get_mut(&connection)?.transactions.get_mut(&tx)
}
