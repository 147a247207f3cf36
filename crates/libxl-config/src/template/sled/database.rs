//! The only file that knows sled: durable changes to the entries of templates.
//!
//! sled 0.34 has bugs that panic where others return an error, above all on damaged files. Every call is therefore made
//! inside [`guarded`], and after the first failure of any kind nothing is asked of the database any more.

use std::{
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use thiserror::Error;

use super::{entries, open::sync_directory};
use crate::template::{DomId, StoreFault, TemplateKey, TemplateText, steps};

/// Memory for the database's page cache, in octets. Enough to keep the templates of some thousand domains at hand; the
/// database's own default is a gigabyte, too much for a library inside somebody else's daemon.
const CACHE_CAPACITY: u64 = 32 << 20;

/// A change to one template.
pub(super) enum Change<'t> {
    Store(TemplateKey, &'t TemplateText),
    Remove(TemplateKey),
}

/// The database, open.
pub(super) struct Database {
    /// Taken out when dropped, so that a panic in closing can be caught.
    open: Option<Open>,
    failed: AtomicBool,
    sync: Sync,
    /// The number of the last change; locked while a change is made, so that they are made in the order of their numbers.
    last_change: Mutex<u64>,
}

struct Open {
    db: sled::Db,
    tree: sled::Tree,
}

/// What a call to the database came to other than its result.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] sled::Error),
    #[error("sync")]
    Sync(#[from] io::Error),
    #[error("the database panicked: {message}")]
    Panicked { message: String },
    #[error("the number of the last change is not a number: {found:?}")]
    ChangeNumber { found: Vec<u8> },
    #[error("an earlier write failed, so that memory and disk may differ; open the store again")]
    FailedBefore,
    #[error("the database is closed")]
    Closed,
}

impl Database {
    /// Opens the database in this directory, which is empty or has one.
    pub(super) fn open(path: &Path) -> Result<Self, StoreFault> {
        let fault =
            |failure| StoreFault::new(format!("open the database {}", path.display()), failure);
        let open = guarded(|| {
            let db = sled::Config::new()
                .path(path)
                .cache_capacity(CACHE_CAPACITY)
                // Every change is flushed here, before it is reported; a thread that flushes now and then adds nothing.
                .flush_every_ms(None)
                .open()?;
            let tree = db.open_tree(entries::TREE)?;
            db.flush()?;
            Ok(Open { db, tree })
        })
        .map_err(fault)?;
        let sync = Sync::new(path).map_err(|error| fault(Failure::Sync(error)))?;
        let last_change = guarded(|| read_last_change(&open.tree)).map_err(fault)?;
        Ok(Database {
            open: Some(open),
            failed: AtomicBool::new(false),
            sync,
            last_change: Mutex::new(last_change),
        })
    }

    /// The number of the last change that the database knows of; they are numbered from 1.
    pub(super) fn last_change(&self) -> u64 {
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The values of a template's entries, joined in order; `None` if there are none.
    pub(super) fn get(&self, key: &TemplateKey) -> Result<Option<Vec<u8>>, StoreFault> {
        self.call("read from the database", |open| {
            let mut joined = None;
            for value in open.tree.scan_prefix(entries::prefix(key)).values() {
                joined.get_or_insert_with(Vec::new).extend_from_slice(&value?);
            }
            Ok(joined)
        })
    }

    /// Whether there is an entry of this template.
    pub(super) fn contains(&self, key: &TemplateKey) -> Result<bool, StoreFault> {
        self.call("read from the database", |open| {
            Ok(open.tree.scan_prefix(entries::prefix(key)).next().transpose()?.is_some())
        })
    }

    /// The keys of all templates, or of those with this domain id, in ascending order.
    pub(super) fn keys(&self, domid: Option<DomId>) -> Result<Vec<TemplateKey>, StoreFault> {
        self.call("list the database", |open| {
            let entries = match domid {
                Some(domid) => open.tree.scan_prefix(entries::domid_prefix(domid)),
                None => open.tree.iter(),
            };
            let mut keys = Vec::new();
            for key in entries.keys() {
                keys.extend(entries::first_piece_of(&key?));
            }
            Ok(keys)
        })
    }

    /// Makes these changes in one step, and returns its number when they are on the disk.
    pub(super) fn apply<'t>(
        &self,
        changes: impl IntoIterator<Item = Change<'t>>,
    ) -> Result<u64, StoreFault> {
        self.call("write to the database", |open| {
            let mut batch = sled::Batch::default();
            for change in changes {
                let (key, pieces) = match change {
                    Change::Store(key, text) => (key, entries::pieces(text.octets()).collect()),
                    Change::Remove(key) => (key, Vec::new()),
                };
                // Pieces that the old template had and the new one has not.
                for old in open.tree.scan_prefix(entries::prefix(&key)).keys().skip(pieces.len()) {
                    batch.remove(old?);
                }
                for (number, value) in pieces {
                    batch.insert(&entries::piece_key(&key, number), value);
                }
            }
            let number = {
                let mut last = self.last_change.lock().unwrap_or_else(PoisonError::into_inner);
                batch.insert(entries::LAST_CHANGE, &(*last + 1).to_be_bytes());
                open.tree.apply_batch(batch)?;
                *last += 1;
                *last
            };
            steps::reached("sled: applied");
            open.db.flush()?;
            steps::reached("sled: flushed");
            self.sync.wait()?;
            steps::reached("sled: synced");
            Ok(number)
        })
        .inspect_err(|_| self.failed.store(true, Ordering::Release))
    }

    fn call<T>(
        &self,
        step: &str,
        work: impl FnOnce(&Open) -> Result<T, Failure>,
    ) -> Result<T, StoreFault> {
        let result = match &self.open {
            _ if self.failed.load(Ordering::Acquire) => Err(Failure::FailedBefore),
            None => Err(Failure::Closed),
            Some(open) => guarded(|| work(open)),
        };
        result.map_err(|failure| {
            if let Failure::Panicked { .. } = failure {
                self.failed.store(true, Ordering::Release);
            }
            StoreFault::new(step, failure)
        })
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("failed", &self.failed).finish_non_exhaustive()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let open = self.open.take();
        if let Err(error) = guarded(|| {
            drop(open);
            Ok(())
        }) {
            tracing::error!(%error, "the database of a template store could not be closed");
        }
    }
}

fn read_last_change(tree: &sled::Tree) -> Result<u64, Failure> {
    let Some(found) = tree.get(entries::LAST_CHANGE)? else { return Ok(0) };
    let number = <[u8; 8]>::try_from(found.as_ref())
        .map_err(|_| Failure::ChangeNumber { found: found.to_vec() })?;
    Ok(u64::from_be_bytes(number))
}

/// Makes the database's file durable, once for all callers that wait at the same time.
///
/// Everything is in one file: pieces are small enough (see [`entries`]) that the database never writes the others,
/// except snapshots of its own records, which it syncs and can do without.
struct Sync {
    file: File,
    /// How many syncs have been started.
    started: AtomicU64,
    /// Locked while a sync runs.
    outcome: Mutex<SyncOutcome>,
}

/// What came of the syncs so far.
struct SyncOutcome {
    last_success: u64,
    /// The kernel reports a failure to write once, to one caller; those who come later must hear of it too.
    failed: bool,
}

impl Sync {
    fn new(database: &Path) -> io::Result<Self> {
        // What else the database wrote on opening, of which it syncs only some.
        for entry in database.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        sync_directory(database)?;
        let file = File::open(database.join("db"))?;
        let outcome = Mutex::new(SyncOutcome { last_success: 0, failed: false });
        Ok(Sync { file, started: AtomicU64::new(0), outcome })
    }

    /// Returns when a sync has succeeded that started after this call.
    fn wait(&self) -> Result<(), Failure> {
        let started_before = self.started.load(Ordering::SeqCst);
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if outcome.failed {
            return Err(Failure::FailedBefore);
        }
        if outcome.last_success > started_before {
            return Ok(());
        }
        let this = self.started.fetch_add(1, Ordering::SeqCst) + 1;
        self.file.sync_all().inspect_err(|_| outcome.failed = true)?;
        outcome.last_success = this;
        Ok(())
    }
}

/// Turns a panic inside the database into an error. The panic's own message still goes where panics go, usually stderr.
fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    // What the work leaves half done is not looked at again: the caller gives the database up.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let message = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("without a message")
            .to_owned();
        Err(Failure::Panicked { message })
    })
}
