//! The names of libxl's files: `userdata-W.DOMID.UUID.USERID`.

use uuid::Uuid;

use crate::template::{DomId, TemplateKey};

/// What libxl calls the template among the things it keeps for a domain.
const TEMPLATE_ID: &str = "libxl-json";
/// What libxl calls the lock of the template.
const LOCK_ID: &str = "domain-userdata-lock";
/// Start of the name of a file with data.
const DATA: &str = "userdata-d.";

/// The file with the template.
pub(super) fn data(key: &TemplateKey) -> String {
    name('d', key, TEMPLATE_ID)
}

/// The file that the next template is written to before it is renamed to [`data`].
pub(super) fn next(key: &TemplateKey) -> String {
    name('n', key, TEMPLATE_ID)
}

/// The file whose lock excludes other writers of the template.
pub(super) fn lock(key: &TemplateKey) -> String {
    name('l', key, LOCK_ID)
}

/// The key in the name of a file with a template; `None` for every name that libxl would not give to one.
pub(super) fn parse_data(name: &[u8]) -> Option<TemplateKey> {
    let name = str::from_utf8(name).ok()?;
    let (domid, rest) = name.strip_prefix(DATA)?.split_once('.')?;
    let (uuid, id) = rest.split_once('.')?;
    let key = TemplateKey::new(
        DomId::new(domid.parse().ok()?),
        Uuid::try_parse(uuid).ok().filter(|_| id == TEMPLATE_ID)?,
    );
    // The parsers above take other spellings of the same numbers too; libxl looks for this one only.
    (data(&key) == name).then_some(key)
}

fn name(which: char, key: &TemplateKey, id: &str) -> String {
    format!("userdata-{which}.{}.{}.{id}", key.domid, key.uuid.hyphenated())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "userdata-d.1.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json";

    #[test]
    fn the_name_on_a_real_host_is_read_and_written_the_same() {
        let key = parse_data(NAME.as_bytes()).unwrap();
        assert_eq!(key.domid.get(), 1);
        assert_eq!(data(&key), NAME);
        assert_eq!(
            lock(&key),
            "userdata-l.1.a7989683-6a5f-495a-b64f-11438bce7d66.domain-userdata-lock"
        );
        assert_eq!(next(&key), NAME.replace("-d.", "-n."));
    }

    #[test]
    fn names_that_libxl_would_not_look_for_are_foreign() {
        for foreign in [
            "",
            "userdata-d.",
            "userdata-n.1.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json",
            "userdata-d.1.a7989683-6a5f-495a-b64f-11438bce7d66.xl",
            "userdata-d.1.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json.bak",
            "userdata-d.1.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json ",
            "userdata-d.01.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json",
            "userdata-d.+1.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json",
            "userdata-d.65537.a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json",
            "userdata-d.1.A7989683-6A5F-495A-B64F-11438BCE7D66.libxl-json",
            "userdata-d.1.a79896836a5f495ab64f11438bce7d66.libxl-json",
            "userdata-d.1.{a7989683-6a5f-495a-b64f-11438bce7d66}.libxl-json",
            "userdata-d..a7989683-6a5f-495a-b64f-11438bce7d66.libxl-json",
        ] {
            assert_eq!(parse_data(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(parse_data(b"userdata-d.1.\xff.libxl-json"), None);
    }

    proptest! {
        #[test]
        fn every_key_survives_its_file_name(domid in any::<u16>(), uuid in any::<u128>()) {
            let key = TemplateKey::new(DomId::new(domid), Uuid::from_u128(uuid));
            prop_assert_eq!(parse_data(data(&key).as_bytes()), Some(key));
        }
    }
}
