//! The death of a server at a chosen store, for tests.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::guest::GuestEvents;

thread_local! {
    static CURRENT: RefCell<Option<Fuse>> = const { RefCell::new(None) };
}

/// Burns through after some stores to what outlives a process: none of the later ones is seen by anybody, as if the process had been
/// killed in between.
#[derive(Clone, Debug)]
pub(crate) struct Fuse(Arc<State>);

#[derive(Debug)]
struct State {
    /// Who is to hear of it.
    guest: GuestEvents,
    stores: AtomicUsize,
    limit: usize,
    burnt: AtomicBool,
}

impl Fuse {
    /// One that lets so many stores pass.
    pub(crate) fn after(limit: usize, guest: GuestEvents) -> Self {
        let (stores, burnt) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self(Arc::new(State { guest, stores, limit, burnt }))
    }

    /// What `act` maps on this thread is protected by it.
    pub(crate) fn protecting<R>(&self, act: impl FnOnce() -> R) -> R {
        CURRENT.set(Some(self.clone()));
        let result = act();
        CURRENT.set(None);
        result
    }

    /// Whether it has burnt through.
    pub(crate) fn is_burnt(&self) -> bool {
        self.0.burnt.load(Ordering::SeqCst)
    }

    pub(super) fn current() -> Option<Self> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// A store is to be made. Whether it is too late.
    pub(super) fn burns(&self) -> bool {
        let late = self.0.stores.fetch_add(1, Ordering::SeqCst) >= self.0.limit;
        if late && !self.0.burnt.swap(true, Ordering::SeqCst) {
            self.0.guest.signal();
        }
        late
    }
}
