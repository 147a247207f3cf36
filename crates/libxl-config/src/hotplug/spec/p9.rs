//! 9pfs shares: `tag=share,path=/srv/share,security_model=none`.

use super::{SpecError, backend, once};
use crate::model::{P9, P9Type};

const KNOWN: &str = "known are tag, path, security_model, type, backend";

/// Reads a share.
///
/// # Errors
/// What is wrong with it.
pub fn p9(text: &str) -> Result<P9, SpecError> {
    let (mut tag, mut path, mut model, mut kind, mut at) = (None, None, None, None, None);
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let pair = item.split_once('=');
        let (key, value) = pair.ok_or_else(|| SpecError::NotAPair { item: item.to_owned() })?;
        let value = value.trim();
        match key.trim() {
            "tag" => once(&mut tag, "tag", value)?,
            "path" => once(&mut path, "path", value)?,
            "security_model" => once(&mut model, "security_model", value)?,
            "type" => once(&mut kind, "type", value)?,
            "backend" => once(&mut at, "backend", value)?,
            key => return Err(SpecError::UnknownKey { key: key.to_owned(), known: KNOWN }),
        }
    }
    let needed = |key: &'static str, value: Option<String>| {
        let value = value.filter(|value| !value.is_empty());
        value.ok_or(SpecError::Missing { key, hint: ": give tag=TAG,path=DIR,security_model=none" })
    };
    let p9_type = match kind.as_deref() {
        None | Some("" | "qemu") => P9Type::Qemu,
        Some("xen_9pfsd") => P9Type::Xen9pfsd,
        Some(other) => {
            let value = other.to_owned();
            return Err(SpecError::Value { key: "type", value, wanted: "qemu or xen_9pfsd" });
        }
    };
    // What older releases do not know is not written where it says nothing.
    let p9_type = if kind.is_none() { P9Type::Unknown } else { p9_type };
    let (backend_domid, backend_domname) = backend(at.as_deref().unwrap_or_default());
    Ok(P9 {
        backend_domid,
        backend_domname,
        tag: Some(needed("tag", tag)?),
        path: Some(needed("path", path)?),
        security_model: Some(needed("security_model", model)?),
        p9_type,
        ..P9::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_tag_path_and_model() {
        let share = p9("tag=share, path=/srv/share, security_model=none").unwrap();
        let entry = serde_json::to_string(&share).unwrap();
        assert_eq!(entry, r#"{"tag":"share","path":"/srv/share","security_model":"none"}"#);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("path=/a,security_model=none", "tag is missing"),
            ("tag=a,security_model=none", "path is missing"),
            ("tag=a,path=/a", "security_model is missing"),
            ("tag=a,tag=b", "tag is given twice"),
            ("tag", "\"tag\" is not KEY=VALUE"),
            ("mount=/x", "\"mount\" is not known here"),
            ("tag=a,path=/a,security_model=none,type=x", "type: \"x\""),
        ] {
            let error = p9(text).unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
