//! Permissions of a node.

use std::fmt;
use std::str::FromStr;

use crate::domid::DomId;

/// What one entry of a permission list lets a domain do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: read the value, list the children, see events.
    Read,
    /// `w`: write the value, create and remove children.
    Write,
    /// `b`: both.
    Both,
}

impl Access {
    /// The letter of the wire form.
    pub const fn letter(self) -> char {
        match self {
            Self::None => 'n',
            Self::Read => 'r',
            Self::Write => 'w',
            Self::Both => 'b',
        }
    }

    /// Whether reading is allowed.
    pub const fn can_read(self) -> bool {
        matches!(self, Self::Read | Self::Both)
    }

    /// Whether writing is allowed.
    pub const fn can_write(self) -> bool {
        matches!(self, Self::Write | Self::Both)
    }

    /// What both together allow.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        match (self.can_read() || other.can_read(), self.can_write() || other.can_write()) {
            (false, false) => Self::None,
            (true, false) => Self::Read,
            (false, true) => Self::Write,
            (true, true) => Self::Both,
        }
    }
}

/// One entry of a permission list, written as a letter and a domain id: `r7`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perm {
    /// What is allowed.
    pub access: Access,
    /// To whom; in the first entry, the owner.
    pub domid: DomId,
}

impl Perm {
    /// An entry.
    pub const fn new(access: Access, domid: DomId) -> Self {
        Self { access, domid }
    }
}

impl fmt::Display for Perm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.access.letter(), self.domid)
    }
}

impl FromStr for Perm {
    type Err = PermsError;

    fn from_str(text: &str) -> Result<Self, PermsError> {
        let mut letters = text.chars();
        let access = match letters.next() {
            Some('n') => Access::None,
            Some('r') => Access::Read,
            Some('w') => Access::Write,
            Some('b') => Access::Both,
            _ => return Err(PermsError::Access),
        };
        let domid = letters.as_str().parse().map_err(|_| PermsError::DomId)?;
        Ok(Self { access, domid })
    }
}

/// The permissions of a node: at least one entry, the first of which names the owner and what everybody not listed may do.
///
/// Text form as `xenstore-ls -p` prints it: `n0,r7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Perms(Box<[Perm]>);

impl Perms {
    /// A node that only its owner (and a privileged domain) can reach.
    pub fn owned_by(owner: DomId) -> Self {
        Self(Box::new([Perm::new(Access::None, owner)]))
    }

    /// Checks that there is an owner.
    pub fn new(entries: impl Into<Box<[Perm]>>) -> Result<Self, PermsError> {
        let entries = entries.into();
        if entries.is_empty() { Err(PermsError::Empty) } else { Ok(Self(entries)) }
    }

    /// The owner, who may always read, write and change the permissions.
    pub fn owner(&self) -> DomId {
        self.0[0].domid
    }

    /// What domains may do that no entry names.
    pub fn others(&self) -> Access {
        self.0[0].access
    }

    /// All entries, the owner's first; never empty.
    pub fn entries(&self) -> &[Perm] {
        &self.0
    }
}

impl fmt::Display for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            entry.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Perms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Perms({self})")
    }
}

impl FromStr for Perms {
    type Err = PermsError;

    fn from_str(text: &str) -> Result<Self, PermsError> {
        Self::new(text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?)
    }
}

/// Why a text is no permission list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PermsError {
    /// No entry, so no owner.
    #[error("permission list without an owner")]
    Empty,
    /// An entry that does not start with one of `n r w b`.
    #[error("permission does not start with one of n, r, w, b")]
    Access,
    /// An entry whose letter is not followed by a domain id.
    #[error("permission letter is not followed by a domain id from 0 to 65535")]
    DomId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_is_owner_and_default() {
        let perms: Perms = "n3,r0,b7".parse().unwrap();
        assert_eq!((perms.owner(), perms.others()), (DomId::new(3), Access::None));
        assert_eq!(perms.to_string(), "n3,r0,b7");
    }

    #[test]
    fn malformed_permissions_are_refused() {
        for (text, error) in [
            ("", PermsError::Access),
            ("x3", PermsError::Access),
            ("n", PermsError::DomId),
            ("n-1", PermsError::DomId),
            ("n99999", PermsError::DomId),
            ("n0,,r1", PermsError::Access),
        ] {
            assert_eq!(text.parse::<Perms>(), Err(error), "{text:?}");
        }
        assert_eq!(Perms::new(Vec::new()), Err(PermsError::Empty));
    }

    #[test]
    fn union_allows_what_either_allows() {
        assert_eq!(Access::Read.union(Access::Write), Access::Both);
        assert_eq!(Access::None.union(Access::Read), Access::Read);
    }
}
