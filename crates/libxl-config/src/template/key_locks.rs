//! Locks on single templates inside one process, for stores that no other process writes to.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::TemplateKey;

/// A readers-and-writer lock for every key, each waited for until a deadline.
#[derive(Debug, Default)]
pub(super) struct KeyLocks {
    held: Mutex<HashMap<TemplateKey, Hold>>,
    released: Condvar,
}

/// How a key is held; a key that nobody holds is not in the map.
#[derive(Clone, Copy, Debug)]
enum Hold {
    Readers(usize),
    Writer,
}

/// Somebody else held a key until the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Busy(pub(super) TemplateKey);

impl KeyLocks {
    /// Holds a key together with other readers.
    pub(super) fn read(&self, key: &TemplateKey, deadline: Instant) -> Result<KeyGuard<'_>, Busy> {
        let mut held = self.wait(deadline, |held| match held.get(key) {
            Some(Hold::Writer) => Err(Busy(*key)),
            Some(Hold::Readers(_)) | None => Ok(()),
        })?;
        match held.get_mut(key) {
            Some(Hold::Readers(count)) => *count += 1,
            _ => drop(held.insert(*key, Hold::Readers(1))),
        }
        Ok(KeyGuard { locks: self, keys: vec![*key] })
    }

    /// Holds distinct keys alone. All are taken at one instant, so that two callers cannot wait for each other.
    pub(super) fn write(
        &self,
        keys: Vec<TemplateKey>,
        deadline: Instant,
    ) -> Result<KeyGuard<'_>, Busy> {
        let mut held =
            self.wait(deadline, |held| match keys.iter().find(|key| held.contains_key(key)) {
                Some(key) => Err(Busy(*key)),
                None => Ok(()),
            })?;
        held.extend(keys.iter().map(|key| (*key, Hold::Writer)));
        Ok(KeyGuard { locks: self, keys })
    }

    fn wait(
        &self,
        deadline: Instant,
        free: impl Fn(&HashMap<TemplateKey, Hold>) -> Result<(), Busy>,
    ) -> Result<MutexGuard<'_, HashMap<TemplateKey, Hold>>, Busy> {
        let mut held = self.map();
        loop {
            let Err(busy) = free(&held) else { return Ok(held) };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(busy);
            }
            (held, _) =
                self.released.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The map is changed in single steps, so that a panic elsewhere cannot leave it half changed.
    fn map(&self) -> MutexGuard<'_, HashMap<TemplateKey, Hold>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keys that are held until this is dropped.
#[derive(Debug)]
pub(super) struct KeyGuard<'l> {
    locks: &'l KeyLocks,
    keys: Vec<TemplateKey>,
}

impl Drop for KeyGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.locks.map();
        for key in &self.keys {
            match held.get_mut(key) {
                Some(Hold::Readers(count)) if *count > 1 => *count -= 1,
                _ => drop(held.remove(key)),
            }
        }
        self.locks.released.notify_all();
    }
}
