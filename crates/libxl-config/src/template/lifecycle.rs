//! What a toolstack may do to templates: create one with its domain, forget it with its domain.

use std::time::Instant;

use thiserror::Error;

use super::{
    LoadError, LockError, Revision, SwapError, TemplateKey, TemplateStore, TemplateText,
    WriteError, WritePermit,
};

/// Why a template was not created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// There is one already. Creating never replaces: forget the old one, or change it by hotplug.
    #[error(
        "template of {key}: exists already, with revision {found}; creating never replaces, forget it first"
    )]
    Exists {
        /// Whose template.
        key: TemplateKey,
        /// The revision that is there.
        found: Revision,
    },
    /// Its lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It could not be seen whether there is one already.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The store refused for a reason that creating does not expect.
    #[error(transparent)]
    Refused(SwapError),
}

impl From<SwapError> for CreateError {
    fn from(error: SwapError) -> Self {
        match error {
            SwapError::Conflict { key, found: Some(found), .. } => {
                CreateError::Exists { key, found }
            }
            SwapError::Lock(error) => CreateError::Lock(error),
            SwapError::Load(error) => CreateError::Load(error),
            SwapError::Write(error) => CreateError::Write(error),
            conflict @ SwapError::Conflict { .. } => CreateError::Refused(conflict),
        }
    }
}

/// Why not all of several templates were created.
#[derive(Debug, Error)]
#[error("{created} templates were created, then the template of {key} was not")]
pub struct CreateManyError {
    /// How many were created: the first ones of those given.
    pub created: usize,
    /// Whose template was not.
    pub key: TemplateKey,
    /// Why.
    pub source: CreateError,
}

/// Why a template was not forgotten.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ForgetError {
    /// Its lock was not taken.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// It could not be removed.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Stores the template of a new domain, and returns its revision once it is durable.
///
/// # Errors
/// [`CreateError::Exists`] if there is one under this key already; otherwise if the store is locked or fails.
pub fn create(
    store: &dyn TemplateStore,
    key: &TemplateKey,
    text: &TemplateText,
    deadline: Instant,
) -> Result<Revision, CreateError> {
    store.compare_and_swap(&WritePermit::new(), key, None, Some(text), deadline)?;
    Ok(text.revision())
}

/// Stores the templates of many domains, as [`create`] does one by one but with fewer waits for the disk.
///
/// Meant for moving templates from one store to another. It is not one change: see [`CreateManyError::created`].
///
/// # Errors
/// What the first template that could not be created met.
pub fn create_many(
    store: &dyn TemplateStore,
    templates: &[(TemplateKey, TemplateText)],
    deadline: Instant,
) -> Result<(), CreateManyError> {
    store.create_many(&WritePermit::new(), templates, deadline)
}

/// Removes the template of a domain that is gone, and returns whether there was one once that is durable.
///
/// The template need not be readable: this is also how an empty or damaged one is got rid of.
///
/// # Errors
/// If the store is locked or fails.
pub fn forget(
    store: &dyn TemplateStore,
    key: &TemplateKey,
    deadline: Instant,
) -> Result<bool, ForgetError> {
    let mut held = store.lock(&WritePermit::new(), key, deadline)?;
    Ok(held.remove(deadline)?)
}
