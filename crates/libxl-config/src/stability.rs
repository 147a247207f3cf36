//! The entry point of the fuzz target: reading and writing must agree with themselves on any octets.

use crate::json::{Layout, MAX_SIZE};
use crate::model::DomainConfig;
use crate::read::Mode;

/// Reads octets leniently, writes what was read in both layouts, and reads that again.
///
/// Octets that cannot be read are fine; so is a text that grows beyond this crate's size limit when written.
///
/// # Errors
/// [`Unstable`] says which promise does not hold.
#[doc(hidden)]
pub fn check_stability(octets: &[u8]) -> Result<(), Unstable> {
    let Ok(read) = DomainConfig::read(octets, Mode::Lenient) else { return Ok(()) };
    let mut fresh = read.config.clone();
    fresh.forget_source();
    for layout in [Layout::Yajl, Layout::JsonC] {
        check_written(&read.config, layout)?;
        check_written(&fresh, layout)?;
    }
    if !crate::diff(&read.config, &read.config).is_empty() {
        return Err(Unstable::DiffersFromItself);
    }
    Ok(())
}

fn check_written(config: &DomainConfig, layout: Layout) -> Result<(), Unstable> {
    let written = config.to_userdata(layout);
    if written.len() > MAX_SIZE {
        return Ok(());
    }
    let again = DomainConfig::read_userdata(&written, Mode::Lenient)
        .map_err(|_| Unstable::Unreadable { layout })?;
    if again.config != *config {
        return Err(Unstable::ReadsDifferently { layout });
    }
    if again.config.to_userdata(layout) != written {
        return Err(Unstable::WritesDifferently { layout });
    }
    Ok(())
}

/// A promise that does not hold for some octets.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unstable {
    /// What was written cannot be read.
    #[error("what was written in the layout of {layout:?} cannot be read")]
    Unreadable {
        /// The layout.
        layout: Layout,
    },
    /// What was written means something else.
    #[error("what was written in the layout of {layout:?} means something else")]
    ReadsDifferently {
        /// The layout.
        layout: Layout,
    },
    /// Writing it once more gives another text.
    #[error("what was read back is written differently in the layout of {layout:?}")]
    WritesDifferently {
        /// The layout.
        layout: Layout,
    },
    /// A configuration and itself are not the same.
    #[error("the configuration differs from itself")]
    DiffersFromItself,
}
