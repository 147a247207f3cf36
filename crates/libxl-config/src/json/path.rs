//! Where in a document something is.

use std::fmt;

use serde::{Serialize, Serializer};

/// Names longer than this are shortened in a path, so that a hostile key cannot be multiplied by its findings.
const MAX_SHOWN_KEY: usize = 256;

/// The way from the top of a document to a value, shown as `$.disks[1].vdev`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JsonPath {
    steps: Vec<Step>,
}

/// One step of a [`JsonPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Step {
    /// A member of an object, by name. Names of more than 256 octets are shortened and end in `…`.
    Key(String),
    /// An element of an array, by position from 0.
    Index(usize),
    /// An element of an array of devices, by what identifies the device, as in `[vdev=xvda]`.
    Device {
        /// The identifying field.
        field: &'static str,
        /// Its value.
        value: String,
    },
}

impl JsonPath {
    /// The top of a document, `$`.
    pub fn root() -> JsonPath {
        JsonPath::default()
    }

    /// The steps, from the top down.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// This path and one step more.
    pub fn join(&self, step: Step) -> JsonPath {
        let mut steps = self.steps.clone();
        steps.push(step);
        JsonPath { steps }
    }
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        for step in &self.steps {
            match step {
                Step::Key(key) if is_plain(key) => write!(f, ".{key}")?,
                Step::Key(key) => write!(f, "[{key:?}]")?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Device { field, value } => write!(f, "[{field}={value}]")?,
            }
        }
        Ok(())
    }
}

/// As text.
impl Serialize for JsonPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn is_plain(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '…'))
}

/// A path while walking down: each level lives on the stack of the function that reads it, so that a walk without
/// findings allocates nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    parent: Option<&'a Place<'a>>,
    step: Option<StepRef<'a>>,
    /// Where in the text, in octets from its start.
    pub(crate) offset: u32,
}

#[derive(Clone, Copy, Debug)]
enum StepRef<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Place<'a> {
    pub(crate) fn root() -> Place<'a> {
        Place { parent: None, step: None, offset: 0 }
    }

    pub(crate) fn key(&'a self, key: &'a str, offset: u32) -> Place<'a> {
        Place { parent: Some(self), step: Some(StepRef::Key(key)), offset }
    }

    pub(crate) fn index(&'a self, index: usize, offset: u32) -> Place<'a> {
        Place { parent: Some(self), step: Some(StepRef::Index(index)), offset }
    }

    /// The same place in the document, elsewhere in the text.
    pub(crate) fn at(&self, offset: u32) -> Place<'a> {
        Place { offset, ..*self }
    }

    /// Whether this is the whole document.
    pub(crate) fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// Whether this is an element of an array.
    pub(crate) fn is_element(&self) -> bool {
        matches!(self.step, Some(StepRef::Index(_)))
    }

    pub(crate) fn path(&self) -> JsonPath {
        let mut steps = Vec::new();
        let mut place = Some(self);
        while let Some(here) = place {
            match here.step {
                Some(StepRef::Key(key)) => steps.push(Step::Key(shorten(key))),
                Some(StepRef::Index(index)) => steps.push(Step::Index(index)),
                None => {}
            }
            place = here.parent;
        }
        steps.reverse();
        JsonPath { steps }
    }
}

pub(crate) fn shorten(key: &str) -> String {
    if key.len() <= MAX_SHOWN_KEY {
        return key.to_owned();
    }
    let mut end = MAX_SHOWN_KEY;
    while !key.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &key[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_are_quoted() {
        let path = JsonPath::root()
            .join(Step::Key("b_info".into()))
            .join(Step::Key("type.hvm".into()))
            .join(Step::Index(2))
            .join(Step::Device { field: "vdev", value: "xvda".into() });
        assert_eq!(path.to_string(), "$.b_info[\"type.hvm\"][2][vdev=xvda]");
    }

    #[test]
    fn a_huge_key_is_shortened() {
        let key = "é".repeat(1000);
        assert!(shorten(&key).len() < 300);
    }
}
