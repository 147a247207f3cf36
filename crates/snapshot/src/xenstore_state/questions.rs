//! What a server is asked about a domain besides its nodes.

use std::collections::BTreeMap;

use xsclient::{
    Batch, DomId, Errno, Features, OperationError, QuotaName, QuotaQuery, Replies, Request, Slot,
};

use super::levels::answer;
use super::missing::{Missing, MissingReason, StatePart};

/// Features and quotas of a domain, asked for in the batches that read its nodes.
///
/// Servers before Xen 4.22 and oxenstored know neither. The names of quotas are asked for with an empty payload, which
/// oxenstored does not notice until more octets come; so this waits until the server has shown that it knows
/// GET_FEATURE, whose form with a domid has a payload.
#[derive(Debug)]
pub(super) struct Questions {
    domid: DomId,
    next: Next,
    pub(super) features: Option<Features>,
    pub(super) quotas: BTreeMap<QuotaName, u32>,
    pub(super) missing: Vec<Missing>,
}

#[derive(Debug)]
enum Next {
    Features,
    QuotaNames,
    Quotas(Vec<QuotaName>),
    Nothing,
}

/// What a batch asks.
#[derive(Debug)]
pub(super) enum Asked {
    Features(Slot<Features>),
    QuotaNames(Slot<Vec<QuotaName>>),
    Quotas(Vec<(QuotaName, Slot<u32>)>),
    Nothing,
}

impl Questions {
    pub(super) fn new(domid: DomId) -> Self {
        Self {
            domid,
            next: Next::Features,
            features: None,
            quotas: BTreeMap::new(),
            missing: Vec::new(),
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.next, Next::Nothing)
    }

    pub(super) fn ask(&mut self, batch: &mut Batch) -> Asked {
        let domid = self.domid;
        match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Features => Asked::Features(batch.push(Request::GetFeature(Some(domid)))),
            Next::QuotaNames => Asked::QuotaNames(batch.push(Request::GetQuota(QuotaQuery::Names))),
            Next::Quotas(names) => {
                let ask = |name: QuotaName| {
                    let query = QuotaQuery::Domain(domid, name.clone());
                    (name, batch.push(Request::GetQuota(query)))
                };
                Asked::Quotas(names.into_iter().map(ask).collect())
            }
            Next::Nothing => Asked::Nothing,
        }
    }

    pub(super) fn take(
        &mut self,
        asked: Asked,
        replies: &mut Replies,
    ) -> Result<(), OperationError> {
        match asked {
            Asked::Features(slot) => match answer(replies, slot)? {
                Ok(features) => {
                    self.features = Some(features);
                    self.next = Next::QuotaNames;
                }
                // The server does not know the domain, so there is nothing of it to lose.
                Err(error) if error.errno() == Some(&Errno::ENOENT) => {}
                Err(error) => {
                    if error.errno().is_some_and(is_known_by) {
                        self.next = Next::QuotaNames;
                    } else {
                        self.miss(StatePart::Quotas, error.clone());
                    }
                    self.miss(StatePart::Features, error);
                }
            },
            Asked::QuotaNames(slot) => match answer(replies, slot)? {
                Ok(names) if names.is_empty() => {}
                Ok(names) => self.next = Next::Quotas(names),
                Err(error) => self.miss(StatePart::Quotas, error),
            },
            Asked::Quotas(asked) => {
                for (name, slot) in asked {
                    match answer(replies, slot)? {
                        Ok(value) => drop(self.quotas.insert(name, value)),
                        Err(error) => self.miss(StatePart::Quota(name), error),
                    }
                }
            }
            Asked::Nothing => {}
        }
        Ok(())
    }

    fn miss(&mut self, part: StatePart, error: OperationError) {
        self.missing.push(Missing::new(part, MissingReason::Unreadable(error)));
    }
}

/// Whether a server that refuses GET_FEATURE so knows the operation: the caller is not privileged.
fn is_known_by(errno: &Errno) -> bool {
    [Errno::EACCES, Errno::EPERM].contains(errno)
}
