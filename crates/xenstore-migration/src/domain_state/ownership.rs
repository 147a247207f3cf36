//! Which nodes can be one domain's own.

use xenstore_proto::{DomId, Path};

/// Whether a node can be part of what one domain owns: `/local/domain/DOMID` of that domain, and whatever lies below a
/// directory that domains share. The shared directories themselves and other domains' trees as a whole are not.
///
/// ```text
/// no   /  /local  /local/domain  /local/domain/OTHER  /vm  /libxl
/// yes  /local/domain/DOMID  /local/domain/0/backend/vbd/DOMID  /vm/UUID  /libxl/DOMID
/// ```
pub(super) fn can_be_owned(path: &Path, domid: DomId) -> bool {
    let mut names = path.components();
    let first_three = (names.next(), names.next(), names.next());
    match first_three {
        (_, None, _) | (Some("local"), _, None) => false,
        (Some("local"), Some("domain"), Some(_)) if names.next().is_none() => {
            *path == Path::of_domain(domid)
        }
        _ => true,
    }
}

/// The domain whose tree begins at `path`.
pub(super) fn domain_of_root(path: &Path) -> Option<DomId> {
    let domid = path.as_str().strip_prefix("/local/domain/")?.parse().ok()?;
    (*path == Path::of_domain(domid)).then_some(domid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_directories_and_other_domains_are_not_owned() {
        for (path, owned) in [
            ("/", false),
            ("/local", false),
            ("/local/domain", false),
            ("/local/pool", false),
            ("/local/domain/3", true),
            ("/local/domain/03", false),
            ("/local/domain/4", false),
            ("/local/domain/0", false),
            ("/local/domain/3/data", true),
            ("/local/domain/0/backend/vbd/3", true),
            ("/vm", false),
            ("/vm/7d1c2a90", true),
            ("/libxl", false),
            ("/libxl/3", true),
        ] {
            let path: Path = path.parse().unwrap();
            assert_eq!(can_be_owned(&path, DomId::new(3)), owned, "{path}");
        }
    }

    #[test]
    fn only_the_decimal_number_names_a_domain() {
        for (path, domid) in [
            ("/local/domain/3", Some(3)),
            ("/local/domain/03", None),
            ("/local/domain/3/data", None),
            ("/local/domain", None),
            ("/vm/3", None),
        ] {
            let path: Path = path.parse().unwrap();
            assert_eq!(domain_of_root(&path), domid.map(DomId::new), "{path}");
        }
    }
}
