//! Which domain a template belongs to.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use xsclient::DomId;

/// Names one template: the domain's id and its uuid at the time the template was stored.
///
/// Both are needed. libxl files templates under both, and ids are reused: right after a domain is destroyed another
/// one may have its id and an old file may still lie there. Several keys with one id are therefore possible; which one
/// is the running domain's is told by Xenstore (`/local/domain/DOMID/vm`), not by the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TemplateKey {
    /// The domain's id.
    #[serde(with = "domid_as_number")]
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

/// The vocabulary crate knows no serde.
mod domid_as_number {
    use serde::{Deserialize, Deserializer, Serializer};
    use xsclient::DomId;

    pub(super) fn serialize<S: Serializer>(
        domid: &DomId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(domid.get())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<DomId, D::Error> {
        u16::deserialize(deserializer).map(DomId::new)
    }
}
