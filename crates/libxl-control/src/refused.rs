//! Why nothing was done with a domain.

use snapshot::control::{DomainIdentity, DomainState, Failed, Operation, Refusal};

use crate::failure::Failing;

/// Why nothing was done.
pub(crate) struct Refused {
    pub(crate) state: Option<DomainState>,
    pub(crate) why: Why,
}

pub(crate) enum Why {
    Refusal(Refusal),
    Failing(Failing),
}

impl From<Refusal> for Why {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

impl Refused {
    pub(crate) fn failed<R: From<Refusal> + From<Failing>>(
        self,
        domain: &DomainIdentity,
        operation: Operation,
    ) -> Failed<R> {
        let reason = match self.why {
            Why::Refusal(refusal) => R::from(refusal),
            Why::Failing(failing) => R::from(failing),
        };
        Failed::new(domain.domid, operation, self.state, reason)
    }
}
