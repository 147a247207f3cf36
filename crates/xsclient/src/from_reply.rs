//! What a reply is to the caller who asked.

use xenstore_proto::{Features, Name, Path, Perms, QuotaName, Reply, TxId};

use crate::error::Failure;

/// A type that one kind of reply holds. What the operation says is the reply's type; only GET_QUOTA has two.
pub trait FromReply: Sized {
    /// Takes it out of the reply.
    ///
    /// # Errors
    ///
    /// [`Failure::UnexpectedReply`], if the reply is of another kind.
    fn from_reply(reply: Reply) -> Result<Self, Failure>;
}

impl FromReply for Reply {
    fn from_reply(reply: Reply) -> Result<Self, Failure> {
        Ok(reply)
    }
}

macro_rules! from_reply {
    ($($ty:ty, $pattern:pat => $value:expr, $wanted:literal;)*) => {
        $(impl FromReply for $ty {
            fn from_reply(reply: Reply) -> Result<Self, Failure> {
                match reply {
                    $pattern => Ok($value),
                    _ => Err(Failure::UnexpectedReply { wanted: $wanted }),
                }
            }
        })*
    };
}

from_reply! {
    (), Reply::Ok => (), "OK";
    Vec<u8>, Reply::Value(octets) | Reply::Text(octets) => octets, "a value";
    Vec<Name>, Reply::Names(names) => names, "a list of names";
    Perms, Reply::Perms(perms) => perms, "permissions";
    TxId, Reply::Transaction(tx_id) => tx_id, "a transaction";
    Path, Reply::DomainPath(path) => path, "a path";
    bool, Reply::Introduced(introduced) => introduced, "T or F";
    Features, Reply::Features(features) => features, "feature bits";
    Vec<QuotaName>, Reply::QuotaNames(names) => names, "names of quotas";
    u32, Reply::QuotaValue(value) => value, "the value of a quota";
}
