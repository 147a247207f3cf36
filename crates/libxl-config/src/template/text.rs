//! Octets that every store can keep as a template.

use thiserror::Error;

use super::Revision;

/// The longest template, in octets.
///
/// A template with one disk is about 1 KiB and every further device adds about 200 octets, so a domain with a thousand
/// devices needs a twentieth of this. What is longer is not a template, and is refused before it is read into memory.
pub const MAX_TEMPLATE_LEN: usize = 4 << 20;

/// The text of a template, checked to be storable: not empty, no NUL, at most [`MAX_TEMPLATE_LEN`] octets.
///
/// libxl takes an empty template for "no template" and stops reading at a NUL, so neither would come back as stored.
/// That the text is JSON, and a configuration, is not checked here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TemplateText(Vec<u8>);

/// Octets that cannot be a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// There are none.
    #[error("a template cannot be empty: libxl takes an empty one for a missing one")]
    Empty,
    /// One of them is NUL.
    #[error(
        "a template cannot contain a NUL, as this one does at octet {at}: libxl reads no further"
    )]
    Nul {
        /// Offset of the first NUL.
        at: usize,
    },
    /// There are too many.
    #[error("a template of {len} octets is longer than the limit of {MAX_TEMPLATE_LEN}")]
    TooLarge {
        /// How many there are.
        len: usize,
    },
}

impl TemplateText {
    /// Checks octets: the JSON text, without a trailing NUL.
    ///
    /// # Errors
    /// If there are none, too many, or a NUL among them.
    pub fn new(octets: impl Into<Vec<u8>>) -> Result<Self, TextError> {
        let octets = octets.into();
        if octets.is_empty() {
            return Err(TextError::Empty);
        }
        if octets.len() > MAX_TEMPLATE_LEN {
            return Err(TextError::TooLarge { len: octets.len() });
        }
        match octets.iter().position(|&octet| octet == 0) {
            Some(at) => Err(TextError::Nul { at }),
            None => Ok(TemplateText(octets)),
        }
    }

    /// The octets.
    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The revision that a template with this text has.
    #[must_use]
    pub fn revision(&self) -> Revision {
        Revision::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_libxl_would_not_read_back_is_refused() {
        assert_eq!(TemplateText::new(""), Err(TextError::Empty));
        assert_eq!(TemplateText::new("{}\0"), Err(TextError::Nul { at: 2 }));
        let long = vec![b' '; MAX_TEMPLATE_LEN + 1];
        assert_eq!(TemplateText::new(long), Err(TextError::TooLarge { len: MAX_TEMPLATE_LEN + 1 }));
        assert!(TemplateText::new(vec![b' '; MAX_TEMPLATE_LEN]).is_ok());
    }
}
