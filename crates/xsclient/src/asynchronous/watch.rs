//! Handles of watches that end when they are dropped.

use std::mem;
use std::ops::Deref;
use std::time::Duration;

use super::client::Client;
use crate::client::after;
use crate::error::OperationError;
use crate::fence;
use crate::session::Opened;
use crate::watch::{self, Event};

/// A watch that is set: all of [`crate::Watch`], and its events. Dropped, it is ended, without waiting for the answer.
#[derive(Debug)]
#[must_use = "a watch that is dropped is ended"]
pub struct Watch {
    client: Client,
    watch: watch::Watch,
}

impl Watch {
    pub(super) fn new(client: &Client, watch: watch::Watch) -> Self {
        Self { client: client.clone(), watch }
    }

    /// The next event, waited for at most `timeout`. `None` if there was none.
    ///
    /// Cancel-safe: dropped, it takes no event. [`crate::EVENTS_PER_WATCH_MAX`] events wait at most.
    ///
    /// # Errors
    ///
    /// If the watch is not set any more, or the connection is lost and no event waits.
    pub async fn next_event(&self, timeout: Duration) -> Result<Option<Event>, OperationError> {
        let deadline = self.client.not_after(after(timeout));
        watch::next_event(&mut &*self.client.handle, &self.watch, deadline).await
    }
}

impl Deref for Watch {
    type Target = watch::Watch;

    fn deref(&self) -> &watch::Watch {
        &self.watch
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let opened = vec![Opened::Watch(self.watch.clone())];
        self.client.handle.with(|session| session.close(opened));
    }
}

/// Watches that tell whether anything below some paths changed while they were read, as [`crate::Fence`]. Dropped, they are
/// ended, without waiting for the answers.
#[derive(Debug)]
#[must_use = "a fence that is dropped tells nothing"]
pub struct Fence {
    client: Client,
    fence: fence::Fence,
}

impl Fence {
    pub(super) fn new(client: &Client, fence: fence::Fence) -> Self {
        Self { client: client.clone(), fence }
    }

    /// The fence itself, for somebody who sees to its end.
    pub(super) fn into_inner(mut self) -> fence::Fence {
        fence::Fence { watches: mem::take(&mut self.fence.watches) }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let opened = self.fence.opened();
        if !opened.is_empty() {
            self.client.handle.with(|session| session.close(opened));
        }
    }
}
