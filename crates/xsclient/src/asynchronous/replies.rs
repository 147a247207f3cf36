//! What a batch was answered, with the watches that it has set.

use std::ops::{Deref, DerefMut};

use super::client::Client;
use super::watch::Watch;
use crate::batch::{self, Slot};
use crate::error::OperationError;
use crate::session::Opened;
use crate::watch;

/// What a batch was answered: all of [`crate::Replies`], but that a watch which the batch has set and nobody takes with
/// [`Replies::take_watch`] is ended when this is dropped.
#[derive(Debug)]
pub struct Replies {
    client: Client,
    replies: batch::Replies,
}

impl Replies {
    pub(super) fn new(client: &Client, replies: batch::Replies) -> Self {
        Self { client: client.clone(), replies }
    }

    /// Takes the handle of a watch that the batch has set.
    ///
    /// # Errors
    ///
    /// As [`crate::Replies::take`].
    pub fn take_watch(&mut self, slot: Slot<watch::Watch>) -> Result<Watch, OperationError> {
        Ok(Watch::new(&self.client, self.replies.take_watch(slot)?))
    }
}

impl Deref for Replies {
    type Target = batch::Replies;

    fn deref(&self) -> &batch::Replies {
        &self.replies
    }
}

impl DerefMut for Replies {
    fn deref_mut(&mut self) -> &mut batch::Replies {
        &mut self.replies
    }
}

impl Drop for Replies {
    fn drop(&mut self) {
        let not_taken: Vec<Opened> = self.replies.watches_not_taken().map(Opened::Watch).collect();
        if !not_taken.is_empty() {
            self.client.handle.with(|session| session.close(not_taken));
        }
    }
}
