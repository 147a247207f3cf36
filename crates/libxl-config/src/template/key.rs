//! Which domain a template belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// The domain id used by template keys.
///
/// The one place to change when the workspace's own domain id type is used: the stores rely on nothing but
/// `TryFrom<u16>`, `Into<u16>`, `Display`, and ordering.
pub type DomId = Domid;

/// First id that the hypervisor keeps for special meanings (`DOMID_FIRST_RESERVED`); no domain has it or a higher one.
const FIRST_RESERVED: u16 = 0x7ff0;

/// A domain id, below the range that the hypervisor reserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Domid(u16);

/// A number that no domain can have as its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{number} is not a domain id: ids from 32752 (0x7ff0) are reserved")]
pub struct DomidError {
    /// The refused number.
    pub number: u16,
}

impl TryFrom<u16> for Domid {
    type Error = DomidError;

    fn try_from(number: u16) -> Result<Self, DomidError> {
        if number < FIRST_RESERVED { Ok(Domid(number)) } else { Err(DomidError { number }) }
    }
}

impl From<Domid> for u16 {
    fn from(domid: Domid) -> u16 {
        domid.0
    }
}

impl fmt::Display for Domid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Names one template: the domain's id and its uuid at the time the template was stored.
///
/// Both are needed. libxl files templates under both, and ids are reused: right after a domain is destroyed another
/// one may have its id and an old file may still lie there. Several keys with one id are therefore possible; which one
/// is the running domain's is told by Xenstore (`/local/domain/DOMID/vm`), not by the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TemplateKey {
    /// The domain's id.
    pub domid: DomId,
    /// The domain's uuid.
    pub uuid: Uuid,
}

impl TemplateKey {
    /// The key of the domain with this id and uuid.
    #[must_use]
    pub const fn new(domid: DomId, uuid: Uuid) -> Self {
        TemplateKey { domid, uuid }
    }
}

impl fmt::Display for TemplateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {} ({})", self.domid, self.uuid.hyphenated())
    }
}
