//! What one domain has on its connection, as CONTROL tells it and takes it: watches and open transactions, for a domain that
//! moves.
//!
//! ```text
//! Server --capture--> DomainState --stream, in pages--> the toolstack        domain-state DOMID [OFFSET]
//! Server <--restore-- DomainState <--stream, in pages-- the toolstack        domain-state-set DOMID ...
//! ```
//!
//! The stream is one of one domain ([`xenstore_migration::StreamKind::Domain`]). Its nodes are not all of the domain's, which
//! clients can read, but those that its open transactions rely on ([`DomainState::relied_on`]).

mod capture;
mod restore;

use std::hash::BuildHasher;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use xenstore_migration::domain_state::DomainState;
use xenstore_migration::{
    ByteOrder, Peer, Preamble, ReadOptions, StreamReader, StreamWriter, Version,
};
use xenstore_proto::{DomId, Errno, Reply};

use crate::limits::{DOMAIN_STATE_MAX, DOMAIN_STATE_PAGE};
use crate::server::{ConnectionId, Server};

/// A stream of one domain on its way in.
#[derive(Debug)]
pub(crate) struct Upload {
    domid: DomId,
    total: usize,
    octets: Vec<u8>,
}

/// A stream of one domain on its way out, until its last page is told.
#[derive(Debug)]
pub(crate) struct Download {
    /// The domain's connection, of which it is: another one has another state.
    of: ConnectionId,
    generation: u64,
    octets: Vec<u8>,
}

impl Server {
    /// One page of a domain's state: `GENERATION TOTAL HEX`. The generation says which state the page is of: no two
    /// states share one, unless by a chance of one in 2^64.
    ///
    /// The state is taken with the first page and kept for the others: to take it can cost as much as a domain has on its
    /// connection, and there are as many pages.
    pub(crate) fn domain_state_page(
        &mut self,
        from: ConnectionId,
        domid: &str,
        offset: &str,
    ) -> Result<Reply, Errno> {
        let domid: DomId = domid.parse().map_err(|_| Errno::EINVAL)?;
        let offset: usize = offset.parse().map_err(|_| Errno::EINVAL)?;
        let kept = self.connections.get_mut(&from).and_then(|state| state.download.take());
        let of = self.connection_of_domain(domid)?;
        let told = match kept.filter(|kept| offset > 0 && kept.of == of) {
            Some(kept) => kept,
            None => self.download(domid, of)?,
        };
        let total = told.octets.len();
        let rest = told.octets.get(offset..).unwrap_or_default();
        let page = &rest[..rest.len().min(DOMAIN_STATE_PAGE)];
        let text = format!("{:016x} {total} {}", told.generation, HEXLOWER.encode(page));
        let is_last = rest.len() == page.len();
        if let Some(state) = self.connections.get_mut(&from).filter(|_| !is_last) {
            state.download = Some(told);
        }
        Ok(Reply::Text(text.into_bytes()))
    }

    /// A domain's state as it is now.
    fn download(&self, domid: DomId, of: ConnectionId) -> Result<Download, Errno> {
        let octets = stream(&self.domain_state(domid)?)?;
        if octets.len() > DOMAIN_STATE_MAX {
            return Err(Errno::E2BIG);
        }
        Ok(Download { of, generation: self.generations.hash_one(&octets), octets })
    }

    /// Begins to take a domain's state of so many octets from this connection, in place of one that it has not
    /// completed. Answers how many octets are there, as every page does.
    pub(crate) fn begin_domain_state(
        &mut self,
        from: ConnectionId,
        domid: &str,
        total: &str,
    ) -> Result<Reply, Errno> {
        let domid: DomId = domid.parse().map_err(|_| Errno::EINVAL)?;
        let total: usize = total.parse().map_err(|_| Errno::EINVAL)?;
        if total > DOMAIN_STATE_MAX {
            return Err(Errno::E2BIG);
        }
        self.connection_of_domain(domid)?;
        let state = self.connections.get_mut(&from).ok_or(Errno::EINVAL)?;
        state.upload = Some(Upload { domid, total, octets: Vec::new() });
        Ok(Reply::Text(b"0".to_vec()))
    }

    /// Takes the next page. With the last, the domain gets all of it, or on an error nothing.
    pub(crate) fn take_domain_state_page(
        &mut self,
        from: ConnectionId,
        domid: &str,
        offset: &str,
        page: &str,
    ) -> Result<Reply, Errno> {
        let state = self.connections.get_mut(&from).ok_or(Errno::EINVAL)?;
        let mut upload = state.upload.take().ok_or(Errno::EINVAL)?;
        let page = HEXLOWER_PERMISSIVE.decode(page.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let in_turn = domid.parse() == Ok(upload.domid)
            && offset.parse() == Ok(upload.octets.len())
            && !page.is_empty()
            && page.len() <= upload.total - upload.octets.len();
        if !in_turn {
            return Err(Errno::EINVAL);
        }
        upload.octets.extend_from_slice(&page);
        if upload.octets.len() < upload.total {
            let text = upload.octets.len().to_string();
            state.upload = Some(upload);
            return Ok(Reply::Text(text.into_bytes()));
        }
        let state = read(&upload.octets).ok_or(Errno::EINVAL)?;
        if state.domid != upload.domid {
            return Err(Errno::EINVAL);
        }
        self.give_domain_state(&state)?;
        Ok(Reply::Text(b"set".to_vec()))
    }

    /// The connection of a domain, if it is known which that is. Domain 0 has one for each of its programs, and moves
    /// nowhere.
    fn connection_of_domain(&self, domid: DomId) -> Result<ConnectionId, Errno> {
        if domid == DomId::DOM0 {
            return Err(Errno::EPERM);
        }
        match self.connections_of(domid)[..] {
            [] => Err(Errno::ENOENT),
            [connection] => Ok(connection),
            _ => Err(Errno::EBUSY),
        }
    }
}

fn stream(state: &DomainState) -> Result<Vec<u8>, Errno> {
    let preamble = Preamble::new(Version::V2, ByteOrder::Little);
    let failed = |error: &(dyn std::error::Error + 'static)| {
        tracing::error!(domid = %state.domid, error, "state of a domain cannot be told");
        Errno::EIO
    };
    let mut writer = StreamWriter::create(Vec::new(), preamble, Peer::Specification)
        .map_err(|error| failed(&error))?;
    let losses = state.to_stream(&mut writer).map_err(|error| failed(&error))?;
    if !losses.is_empty() {
        tracing::warn!(domid = %state.domid, ?losses, "not all of a domain's state is told");
    }
    writer.finish().map_err(|error| failed(&error))
}

/// The state that a stream holds, if it holds one and nothing that is not known here.
fn read(mut octets: &[u8]) -> Option<DomainState> {
    let options = ReadOptions::default().strict().known_only().record_max(DOMAIN_STATE_MAX);
    let told =
        |error: &(dyn std::error::Error + 'static)| tracing::debug!(error, "no state of a domain");
    let mut reader = StreamReader::open(&mut octets, options).map_err(|error| told(&error)).ok()?;
    let contents = DomainState::from_stream(&mut reader).map_err(|error| told(&error)).ok()?;
    octets.is_empty().then_some(contents.state)
}
