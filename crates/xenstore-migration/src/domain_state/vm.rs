//! Which tree below `/vm` belongs to a domain.

use xenstore_proto::{DomId, Path, Perms};

use super::NodeState;

/// The tree that the node `/local/domain/DOMID/vm` names: `/vm/UUID`.
///
/// A domain that can write the node itself could have another's tree carried along with its own, so that it is not
/// believed then. Domain 0 is.
///
/// # Errors
///
/// If the domain can write the node, or the node does not name a tree of this form.
pub fn vm_tree(domid: DomId, pointer: &NodeState) -> Result<Path, NoVmTree> {
    if domid != DomId::DOM0 && can_write(&pointer.perms, domid) {
        return Err(NoVmTree::Guests);
    }
    Path::from_octets(&pointer.value).ok().filter(is_vm).ok_or(NoVmTree::NotAVm)
}

/// Why a domain has no tree below `/vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoVmTree {
    /// The domain can write its node `vm`.
    #[error("the domain itself can write its node vm")]
    Guests,
    /// The node names no `/vm/UUID`.
    #[error("the node vm names no /vm/UUID")]
    NotAVm,
}

fn is_vm(path: &Path) -> bool {
    path.is_absolute()
        && matches!(path.components().collect::<Vec<_>>()[..], ["vm", name] if is_uuid(name))
}

/// As libxl and XAPI write it: 8-4-4-4-12 hexadecimal digits.
fn is_uuid(name: &str) -> bool {
    let groups: Vec<&str> = name.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let digits = groups.iter().flat_map(|group| group.bytes()).all(|c| c.is_ascii_hexdigit());
    lengths == [8, 4, 4, 4, 12] && digits
}

/// Whether a domain may write, by an entry of its own, as the owner, or as anybody.
fn can_write(perms: &Perms, domid: DomId) -> bool {
    let own = perms.entries()[1..].iter().find(|entry| entry.domid == domid);
    let access = own.map_or(perms.others(), |entry| entry.access);
    let any = perms.entries()[1..]
        .iter()
        .any(|entry| entry.domid == DomId::ANY && entry.access.can_write());
    perms.owner() == domid || access.can_write() || any
}

#[cfg(test)]
mod tests {
    use super::*;

    const GUEST: DomId = DomId::new(7);

    #[test]
    fn only_uuids_name_a_vm() {
        for (path, expected) in [
            ("/vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4", true),
            ("/vm/CD960499-35aa-4f97-b54f-e3d7694cc7b4", true),
            ("/vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4/image", false),
            ("/vm/cd96049935aa4f97b54fe3d7694cc7b4", false),
            ("/vm/zd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("/vm", false),
            ("/local/cd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("vm/cd960499-35aa-4f97-b54f-e3d7694cc7b4", false),
            ("/", false),
        ] {
            assert_eq!(is_vm(&path.parse().unwrap()), expected, "{path}");
        }
    }

    #[test]
    fn whoever_owns_a_node_or_may_write_it_can_write_it() {
        for (perms, expected) in [
            ("n0,r7", false),
            ("r0", false),
            ("n0,w8", false),
            ("w0,n7", false),
            ("n7,r0", true),
            ("n0,w7", true),
            ("n0,b7", true),
            ("w0", true),
            ("b0,r8", true),
            ("n0,b32757", true),
        ] {
            assert_eq!(can_write(&perms.parse().unwrap(), GUEST), expected, "{perms}");
        }
    }
}
