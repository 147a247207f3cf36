//! Values that name domains or nodes.

use std::fmt;

use xenstore_proto::{DomId, Path};

use super::pattern::NodePattern;
use super::translate::{TranslateError, Translation};

/// Says what becomes of values when a state is translated. Without rules they stay as they are.
pub trait ValueRule: fmt::Debug + Send + Sync {
    /// The value that the node at `path` is to have, or `None` for one that the rule is not about. `path` is that of before the
    /// translation.
    ///
    /// # Errors
    ///
    /// If the value names something that cannot be translated.
    fn translate(
        &self,
        path: &Path,
        value: &[u8],
        translation: &Translation,
    ) -> Result<Option<Vec<u8>>, TranslateError>;
}

/// Translates values that are, as a whole, the path of a node in one of the translated trees: `frontend`, `backend`.
///
/// ```
/// use xenstore_migration::domain_state::{PathValues, Translation, ValueRule};
/// use xenstore_proto::DomId;
///
/// let translation = Translation::new(DomId::new(3), DomId::new(8));
/// let rule = PathValues::at(["/local/domain/0/backend/*/3/*/frontend".parse()?]);
/// let path = "/local/domain/0/backend/vif/3/0/frontend".parse()?;
/// let value = rule.translate(&path, b"/local/domain/3/device/vif/0", &translation)?;
/// assert_eq!(value.as_deref(), Some(&b"/local/domain/8/device/vif/0"[..]));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct PathValues(Vec<NodePattern>);

impl PathValues {
    /// In nodes that one of the patterns names. Relative ones are relative to the tree of the domain before the translation.
    pub fn at(patterns: impl IntoIterator<Item = NodePattern>) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl ValueRule for PathValues {
    fn translate(
        &self,
        path: &Path,
        value: &[u8],
        translation: &Translation,
    ) -> Result<Option<Vec<u8>>, TranslateError> {
        if !matches_any(&self.0, path, translation) {
            return Ok(None);
        }
        let Ok(named) = Path::from_octets(value) else { return Ok(None) };
        let translated = translation.translate_path(&named)?;
        Ok((translated != named).then(|| translated.as_str().as_bytes().to_vec()))
    }
}

/// Translates values that are, as a whole, the id of a translated domain in decimal digits: `frontend-id`, `backend-id`.
#[derive(Clone, Debug)]
pub struct DomIdValues(Vec<NodePattern>);

impl DomIdValues {
    /// In nodes that one of the patterns names. Relative ones are relative to the tree of the domain before the translation.
    pub fn at(patterns: impl IntoIterator<Item = NodePattern>) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl ValueRule for DomIdValues {
    fn translate(
        &self,
        path: &Path,
        value: &[u8],
        translation: &Translation,
    ) -> Result<Option<Vec<u8>>, TranslateError> {
        if !matches_any(&self.0, path, translation) {
            return Ok(None);
        }
        let Some(named) = domid(value) else { return Ok(None) };
        let translated = translation.translate_domid(named)?;
        Ok((translated != named).then(|| translated.to_string().into_bytes()))
    }
}

fn matches_any(patterns: &[NodePattern], path: &Path, translation: &Translation) -> bool {
    patterns.iter().any(|pattern| pattern.matches(path, translation.source()))
}

/// A domain id as it is written by default: without leading zeros.
fn domid(value: &[u8]) -> Option<DomId> {
    let domid: DomId = str::from_utf8(value).ok()?.parse().ok()?;
    (domid.to_string().as_bytes() == value).then_some(domid)
}
