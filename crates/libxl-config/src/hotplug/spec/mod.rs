//! Devices as `xl` has them written: what `xl block-attach`, `xl network-attach` and the lists of an `xl.cfg` take.
//!
//! The text alone is looked at; defaults are filled in when the device is attached.

mod disk;
mod nic;
mod p9;
mod rate;

pub use disk::disk;
pub use nic::nic;
pub use p9::p9;

use crate::model::{ConfigDomid, DefBool};

/// What is wrong with a device as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// A key that such devices do not have.
    #[error("\"{key}\" is not known here; {known}")]
    UnknownKey {
        /// The key.
        key: String,
        /// Those there are.
        known: &'static str,
    },
    /// A value that its key does not take.
    #[error("{key}: \"{value}\" is not {wanted}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// One thing said twice, differently.
    #[error("{key} is given twice, as \"{first}\" and as \"{second}\"")]
    Twice {
        /// What.
        key: &'static str,
        /// How at first.
        first: String,
        /// How then.
        second: String,
    },
    /// Something the device cannot be without.
    #[error("{key} is missing{hint}")]
    Missing {
        /// What.
        key: &'static str,
        /// How it is given.
        hint: &'static str,
    },
    /// More items without a key than there are places for.
    #[error(
        "\"{item}\" is one too many: without a key there are only target, format, vdev and access"
    )]
    TooMany {
        /// The item.
        item: String,
    },
    /// A part that is not understood at all.
    #[error("\"{item}\" is not KEY=VALUE")]
    NotAPair {
        /// The part.
        item: String,
    },
}

/// Where a backend is said to be: an id or a name.
fn backend(value: &str) -> (ConfigDomid, Option<String>) {
    match value.parse::<u16>() {
        Ok(domid) => (ConfigDomid::new(domid.into()), None),
        // The name of the domain that is meant anyway.
        Err(_) if matches!(value, "" | "Domain-0" | "dom0") => (ConfigDomid::default(), None),
        Err(_) => (ConfigDomid::default(), Some(value.to_owned())),
    }
}

fn defbool(set: bool) -> DefBool {
    if set { DefBool::True } else { DefBool::False }
}

/// A value that may be said once, or twice alike.
fn once(slot: &mut Option<String>, key: &'static str, value: &str) -> Result<(), SpecError> {
    match slot {
        Some(first) if first != value => {
            Err(SpecError::Twice { key, first: first.clone(), second: value.to_owned() })
        }
        _ => {
            *slot = Some(value.to_owned());
            Ok(())
        }
    }
}
