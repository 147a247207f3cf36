//! What a domain has on its connection, read and set by CONTROL in pages.

use std::time::Instant;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use xenstore_proto::{DomId, Errno, Reply, Request, TxId};

use crate::batch::{Batch, Slot};
use crate::carrier::{Carrier, ask_for, at_once};
use crate::client::Client;
use crate::error::{Failure, OperationError};
use crate::from_reply::FromReply;

/// How often a state that changes while it is read in pages is read, before that is an error.
pub const STATE_ATTEMPTS_MAX: u32 = 16;

/// Octets of a state: what the server tells and takes at most, and an end to one that always has another page.
pub const STATE_OCTETS_MAX: usize = 4 << 20;

/// Octets of a page to the server: as hexadecimal digits, with three numbers, they fit a message.
const PAGE_OCTETS: usize = 2000;

/// A page of a domain's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainStatePage {
    /// Which state it is of.
    generation: u64,
    /// Octets of the state.
    total: usize,
    /// Those from the offset on that was asked for.
    octets: Vec<u8>,
}

impl FromReply for DomainStatePage {
    fn from_reply(reply: Reply) -> Result<Self, Failure> {
        let wanted = "a page of a domain's state";
        let Reply::Text(text) = reply else { return Err(Failure::UnexpectedReply { wanted }) };
        if text.trim_ascii_end() == b"OK" {
            return Err(Failure::UnknownCommand);
        }
        Self::parse(&text).ok_or(Failure::UnexpectedReply { wanted })
    }
}

impl DomainStatePage {
    /// `GENERATION TOTAL HEX`
    fn parse(text: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(text).ok()?.split(' ');
        let generation = u64::from_str_radix(words.next()?, 16).ok()?;
        let total = words.next()?.parse().ok()?;
        let octets = HEXLOWER_PERMISSIVE.decode(words.next()?.as_bytes()).ok()?;
        let is_all = words.next().is_none() && octets.len() <= total;
        is_all.then_some(Self { generation, total, octets })
    }
}

impl Batch {
    /// The first page of a domain's state; [`Client::rest_of_domain_state`] gets the others.
    pub fn domain_state(&mut self, domid: DomId) -> Slot<DomainStatePage> {
        self.push(page_request(domid, 0))
    }
}

impl Client {
    /// What a domain has on its connection: watches, open transactions, what waits to be sent to it, its target, quotas and
    /// features; as a stream of the xenstore-migration format, of one moment. Of its nodes, those that its transactions rely
    /// on.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownCommand`] from a server that cannot tell: only Domkeep's can. ENOENT if the domain has no connection,
    /// EBUSY if it has more than one; [`Failure::StateChanging`], [`Failure::StateTooLong`].
    pub fn domain_state(&mut self, domid: DomId) -> Result<Vec<u8>, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(domain_state(carrier, domid, deadline))
    }

    /// A domain's state, of which the first page was asked for in a batch: of the moment of that page. It is that of now if the server has
    /// not kept it, as after a live update.
    ///
    /// # Errors
    ///
    /// As [`Client::domain_state`].
    pub fn rest_of_domain_state(
        &mut self,
        domid: DomId,
        first: Result<DomainStatePage, OperationError>,
    ) -> Result<Vec<u8>, OperationError> {
        let (carrier, deadline) = self.call();
        at_once(rest(carrier, domid, first, deadline))
    }

    /// Gives a domain the watches and open transactions of a state in the form of [`Client::domain_state`]: all of them, or on
    /// an error none. For a domain that was restored and does not run yet.
    ///
    /// Watches have no first event: the domain has had that. A transaction goes on if the nodes it relied on are as
    /// the state says; otherwise it is there too, and its commit is answered with EAGAIN. The stream must say that no
    /// messages are on their way, as nobody can restore these; target, quotas and features have requests of their own.
    ///
    /// # Errors
    ///
    /// [`Failure::UnknownCommand`] from a server that cannot do it; nothing was changed. ENOENT if the domain has no connection,
    /// EBUSY if it has more than one, EEXIST for a watch or transaction that it has already, ENOSPC for more than its quotas
    /// allow, EINVAL for what is no state of this domain. After [`Failure::Timeout`] or [`Failure::Lost`] it is not known whether the domain
    /// has them: [`Client::domain_state`] tells.
    pub fn set_domain_state(&mut self, domid: DomId, state: &[u8]) -> Result<(), OperationError> {
        let (carrier, deadline) = self.call();
        at_once(set(carrier, domid, state, deadline))
    }
}

pub(crate) async fn domain_state<C: Carrier>(
    carrier: &mut C,
    domid: DomId,
    deadline: Instant,
) -> Result<Vec<u8>, OperationError> {
    let first = ask_for(carrier, &page_request(domid, 0), TxId::NONE, deadline).await;
    rest(carrier, domid, first, deadline).await
}

pub(crate) async fn rest<C: Carrier>(
    carrier: &mut C,
    domid: DomId,
    first: Result<DomainStatePage, OperationError>,
    deadline: Instant,
) -> Result<Vec<u8>, OperationError> {
    let request = page_request(domid, 0);
    let failed = |failure| OperationError::new(&request, failure);
    let mut page = first.map_err(|error| unknown_if_invalid(&request, error))?;
    for _ in 0..STATE_ATTEMPTS_MAX {
        if page.total > STATE_OCTETS_MAX {
            return Err(failed(Failure::StateTooLong { max: STATE_OCTETS_MAX }));
        }
        let DomainStatePage { generation, total, mut octets } = page;
        loop {
            if octets.len() == total {
                return Ok(octets);
            }
            page =
                ask_for(carrier, &page_request(domid, octets.len()), TxId::NONE, deadline).await?;
            if (page.generation, page.total) != (generation, total) {
                break;
            }
            if page.octets.is_empty() || page.octets.len() > total - octets.len() {
                let wanted = "a page of a domain's state: it is empty or too long";
                return Err(failed(Failure::UnexpectedReply { wanted }));
            }
            octets.append(&mut page.octets);
        }
        page = ask_for(carrier, &request, TxId::NONE, deadline).await?;
    }
    Err(failed(Failure::StateChanging { attempts: STATE_ATTEMPTS_MAX }))
}

pub(crate) async fn set<C: Carrier>(
    carrier: &mut C,
    domid: DomId,
    state: &[u8],
    deadline: Instant,
) -> Result<(), OperationError> {
    let begin = request(&["domain-state-set", &domid.to_string(), &state.len().to_string()]);
    if state.len() > STATE_OCTETS_MAX {
        let failure = Failure::StateTooLong { max: STATE_OCTETS_MAX };
        return Err(OperationError::new(&begin, failure));
    }
    let begun: Vec<u8> = ask_for(carrier, &begin, TxId::NONE, deadline)
        .await
        .map_err(|error| unknown_if_invalid(&begin, error))?;
    if begun.trim_ascii_end() == b"OK" {
        return Err(OperationError::new(&begin, Failure::UnknownCommand));
    }
    let mut answer = begun;
    let mut sent = 0;
    for page in state.chunks(PAGE_OCTETS) {
        let offset = sent.to_string();
        if answer != offset.as_bytes() {
            break;
        }
        let words = ["domain-state-set", &domid.to_string(), &offset, &HEXLOWER.encode(page)];
        answer = ask_for(carrier, &request(&words), TxId::NONE, deadline).await?;
        sent += page.len();
    }
    if sent == state.len() && answer == b"set" {
        return Ok(());
    }
    let wanted = "how many octets of the state there are, or that it is set";
    Err(OperationError::new(&begin, Failure::UnexpectedReply { wanted }))
}

fn page_request(domid: DomId, offset: usize) -> Request {
    request(&["domain-state", &domid.to_string(), &offset.to_string()])
}

fn request(words: &[&str]) -> Request {
    Request::Control(words.iter().map(|word| word.as_bytes().to_vec()).collect())
}

/// Commands that are known refuse the first request with anything but EINVAL.
fn unknown_if_invalid(request: &Request, error: OperationError) -> OperationError {
    if error.errno() == Some(&Errno::EINVAL) {
        OperationError::new(request, Failure::UnknownCommand)
    } else {
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_three_words_and_nothing_else_is_one() {
        let page = |text: &str| DomainStatePage::from_reply(Reply::Text(text.into()));
        let DomainStatePage { generation, total, octets } = page("00ff 2001 0aff").unwrap();
        assert_eq!((generation, total, octets), (255, 2001, vec![0x0a, 0xff]));
        assert_eq!(page("1 16 ").unwrap().octets, b"");
        for wrong in
            ["", "1", "1 2", "1 2 0", "1 2 0g", "x 2 00", "1 -2 00", "1 2 00 ", "1 2 000000"]
        {
            assert!(matches!(page(wrong), Err(Failure::UnexpectedReply { .. })), "{wrong}");
        }
        assert!(matches!(page("OK"), Err(Failure::UnknownCommand)));
    }
}
