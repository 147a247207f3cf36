//! NODE_DATA.

use std::fmt;

use xenstore_proto::{Access, DomId, TxId};

use super::ConnectionId;
use crate::fields::{Body, BodyError, EncodeError, Fields, len_u16, text_len};

/// A node of the store, or what an open transaction did to one.
///
/// ```text
/// octet  0            4          8             10             12          14
///        conn-id u32  tx-id u32  path-len u16  value-len u16  access u16  perm-count u16
///        16
///        perms, 4 octets each: letter u8, flags u8, domid u16;  path with NUL;  value
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeData<'a> {
    /// Whose view of the node.
    pub scope: NodeScope,
    /// Its permissions, the owner's first; none if the transaction has removed the node. At most 65535.
    pub perms: &'a [NodePerm],
    /// Its absolute path, or a special name. Without the NUL; at most 65534 octets.
    pub path: &'a [u8],
    /// Its value, any octets; empty if the transaction has removed the node. At most 65535.
    pub value: &'a [u8],
}

impl<'a> NodeData<'a> {
    #[inline]
    pub(super) fn decode(
        fields: &mut Fields<'a>,
        scratch: &'a mut Vec<NodePerm>,
    ) -> Result<Self, BodyError> {
        let connection = fields.u32("conn-id")?;
        let transaction = TxId(fields.u32("tx-id")?);
        let path = fields.len("path-len")?;
        let value = fields.len("value-len")?;
        let access = NodeAccess(fields.u16("access")?);
        let perms = fields.len("perm-count")?;
        NodePerm::decode_all(perms, fields, scratch)?;
        let path = fields.text(path, "path")?;
        let value = fields.octets(value, "value")?;
        let scope = match ConnectionId::new(connection) {
            None => {
                fields.ignored(transaction == TxId::NONE && access == NodeAccess::default());
                NodeScope::Committed
            }
            Some(connection) => NodeScope::Pending { connection, transaction, access },
        };
        Ok(Self { scope, perms: scratch, path, value })
    }

    pub(super) fn encode(&self, body: &mut Body<'_>) -> Result<(), EncodeError> {
        let (connection, transaction, access) = match self.scope {
            NodeScope::Committed => (0, TxId::NONE, NodeAccess::default()),
            NodeScope::Pending { connection, transaction, access } => {
                (connection.get(), transaction, access)
            }
        };
        body.u32(connection);
        body.u32(transaction.0);
        body.u16(text_len(self.path, "path")?);
        body.u16(len_u16(self.value.len(), "value")?);
        body.u16(access.0);
        body.u16(len_u16(self.perms.len(), "perms")?);
        self.perms.iter().for_each(|perm| perm.encode(body));
        body.text(self.path);
        body.octets(self.value);
        Ok(())
    }
}

/// Whose view of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeScope {
    /// Everybody's; on the wire conn-id 0, and tx-id and access are zero.
    Committed,
    /// That of an open transaction, which has been told of before.
    Pending {
        /// The transaction's connection.
        connection: ConnectionId,
        /// The transaction.
        transaction: TxId,
        /// What it did to the node.
        access: NodeAccess,
    },
}

/// What a transaction did to a node, as bits; those without a name here are kept. None for a removed node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAccess(pub u16);

impl NodeAccess {
    /// Removed.
    pub const REMOVED: Self = Self(0);
    /// Read.
    pub const READ: Self = Self(1);
    /// Written.
    pub const WRITTEN: Self = Self(2);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One entry of a node's permissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodePerm {
    /// What is allowed; in the first entry, to everybody not listed.
    pub access: Access,
    /// Whether it still counts.
    pub flags: PermFlags,
    /// To whom; in the first entry, the owner.
    pub domid: DomId,
}

impl NodePerm {
    /// An entry that counts.
    pub const fn new(access: Access, domid: DomId) -> Self {
        Self { access, flags: PermFlags::NONE, domid }
    }
}

impl NodePerm {
    fn decode_all(
        count: usize,
        fields: &mut Fields<'_>,
        perms: &mut Vec<Self>,
    ) -> Result<(), BodyError> {
        perms.clear();
        let order = fields.byte_order();
        let (octets, _) = fields.octets(count * 4, "perms")?.as_chunks::<4>();
        for (number, [letter, flags, d0, d1]) in octets.iter().enumerate() {
            let access = match letter {
                b'n' => Access::None,
                b'r' => Access::Read,
                b'w' => Access::Write,
                b'b' => Access::Both,
                letter => return Err(BodyError::Access { number, letter: *letter }),
            };
            let domid = DomId::new(order.u16([*d0, *d1]));
            perms.push(Self { access, flags: PermFlags(*flags), domid });
        }
        Ok(())
    }

    fn encode(&self, body: &mut Body<'_>) {
        let letter = match self.access {
            Access::None => b'n',
            Access::Read => b'r',
            Access::Write => b'w',
            Access::Both => b'b',
        };
        let [d0, d1] = body.byte_order().u16_octets(self.domid.get());
        body.octets(&[letter, self.flags.0, d0, d1]);
    }
}

impl fmt::Display for NodePerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access.letter(), self.domid)?;
        if self.flags.contains(PermFlags::STALE) {
            f.write_str(" (stale)")?;
        }
        Ok(())
    }
}

/// Bits of a permission entry; those without a name here are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PermFlags(pub u8);

impl PermFlags {
    /// The entry counts.
    pub const NONE: Self = Self(0);
    /// The domain it names is gone: another with the same id has no right by it.
    pub const STALE: Self = Self(1);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
