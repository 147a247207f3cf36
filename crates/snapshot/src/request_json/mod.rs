//! Requests as JSON: for callers in other languages and other processes, and for people.
//!
//! Descriptors are no text. They are passed beside it, in an array, and the text has their indexes. So a new file is one of
//!
//! ```json
//! { "path": "/images/root-1.qcow2" }
//! { "directory_fd": 0, "name": "root-1.qcow2" }
//! { "fd": 1 }
//! ```
//!
//! The caller's own snapshotters and quiescers are named, as in [`HostAccess`](crate::HostAccess). What is left out has the value
//! of [`SaveRequest::new`](crate::save::SaveRequest::new) and [`RestoreRequest::new`](crate::restore::RestoreRequest::new); a field
//! that does not exist is refused, so that a misspelt one is not taken for one that was left out. All fields are in
//! `docs/snapshot-schema.md`.
//!
//! ```
//! use snapshot::save::SaveRequest;
//!
//! let text = r#"{
//!     "domain": { "domid": 7, "uuid": "7d1c2a90-2b6d-4f1e-9a51-0c7a63d1f3b4" },
//!     "memory": { "target": { "path": "/saved/memory" }, "format": "mapped" },
//!     "disks": [{ "vdev": "xvda", "action": { "external-qcow2": { "overlay": { "path": "/images/root-1.qcow2" } } } }]
//! }"#;
//! let request = SaveRequest::from_json(text, &[])?;
//! assert_eq!(request.disks[0].vdev, "xvda");
//!
//! let misspelt = text.replace("overlay", "overly");
//! let error = SaveRequest::from_json(&misspelt, &[]).unwrap_err();
//! assert!(error.to_string().starts_with("`disks[0].action.external-qcow2"));
//! # Ok::<(), snapshot::request_json::RequestError>(())
//! ```

mod descriptors;
pub(crate) mod fuzzing;
mod policy;
mod restore;
mod save;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::manifest::ManifestError;

/// Octets of a request at most. A restore has a manifest in it.
pub const REQUEST_MAX: usize = 64 << 20;

/// Why a text is no request, or a request has no text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Longer than any.
    #[error("a request has at most {REQUEST_MAX} octets, and this has {octets}")]
    TooLong {
        /// Its length.
        octets: usize,
    },
    /// It is no JSON, or has something that does not belong there.
    #[error("`{at}`: {source}")]
    Field {
        /// The place in the JSON, as `disks[0].action`; `.` for all of it.
        at: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A descriptor that was not given.
    #[error(
        "`{at}` is descriptor {index}, and {given} were given: pass it in the array beside the request"
    )]
    NoDescriptor {
        /// The place in the JSON.
        at: String,
        /// Its index, from 0.
        index: usize,
        /// How many were given.
        given: usize,
    },
    /// What is to be restored is no manifest.
    #[error("`snapshot` is not the text of a manifest, octet for octet: {source}")]
    Manifest {
        /// Why.
        source: ManifestError,
    },
    /// A path or name that no JSON can hold.
    #[error(
        "`{at}` is {path:?}, which is not UTF-8: name it by a directory's descriptor, or otherwise"
    )]
    NotText {
        /// The place in the JSON.
        at: String,
        /// The path.
        path: PathBuf,
    },
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, RequestError> {
    if text.len() > REQUEST_MAX {
        return Err(RequestError::TooLong { octets: text.len() });
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let at = error.path().to_string();
        RequestError::Field { at, source: error.into_inner() }
    })?;
    json.end().map_err(|source| RequestError::Field { at: ".".into(), source })?;
    Ok(value)
}

fn print(wire: &impl Serialize) -> Result<String, RequestError> {
    serde_json::to_string_pretty(wire)
        .map_err(|source| RequestError::Field { at: ".".into(), source })
}

/// Maps whose keys come once: serde's own takes the last one.
mod once {
    use std::collections::BTreeMap;
    use std::fmt;
    use std::marker::PhantomData;

    use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

    pub(super) fn deserialize<'de, D, K, V>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord + fmt::Display,
        V: Deserialize<'de>,
    {
        from.deserialize_map(Once(PhantomData))
    }

    struct Once<K, V>(PhantomData<(K, V)>);

    impl<'de, K, V> Visitor<'de> for Once<K, V>
    where
        K: Deserialize<'de> + Ord + fmt::Display,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = from.next_key::<K>()? {
                let name = key.to_string();
                if map.insert(key, from.next_value()?).is_some() {
                    return Err(Error::custom(format_args!("`{name}` is there twice")));
                }
            }
            Ok(map)
        }
    }
}
