//! A store in an embedded database: the only file that knows sled.
//!
//! sled 0.34 has bugs that panic where others return an error, above all on damaged files. Every call is therefore made
//! inside [`guarded`], and after the first failure of any kind nothing is asked of the database any more.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use xenstore_proto::{DomId, PathOrSpecial, Token};

use super::{Backend, BackendError, KeptNode, KeptWatch, NodeChange, WatchChange, records};

/// Name of the tree; another layout gets another name.
const TREE: &[u8] = b"nodes/1";

/// Name of the tree of domains' watches: the key is domid (2, big-endian), path, NUL, token; the value the depth (4), if there
/// is one.
const WATCHES: &[u8] = b"watches/1";

/// Memory for the database's page cache, in octets: the server reads nothing from it but at the start. The database's
/// own default is a gigabyte.
const CACHE_CAPACITY: u64 = 8 << 20;

/// The database's own directory, and the file beside it that counts changes.
const DATABASE: &str = "sled";
const COUNT: &str = "changes";

/// Key of the number of the last change; shorter than those of nodes.
const LAST_CHANGE: &[u8] = b"changes";

/// Keeps a store in a database directory that one process owns.
///
/// ```text
/// DIRECTORY/sled/      the database
/// DIRECTORY/changes    number of changes (8, big-endian) | the same, all bits turned (8)
/// ```
///
/// The database takes damage in its log for the end of a write that a crash cut off, and drops everything from there on.
/// So changes are counted, in the database and, once they are on the disk, in a file of their own: a database that is
/// behind the file has lost some, and is not opened. The file is not synced: after a crash of the host it may be behind.
///
/// The database's own flush hands changes to the kernel only, so this adds an fsync. Once anything has failed, what the
/// database holds in memory may differ from the disk: then every change is refused until it is opened again, and
/// what was refused first may be found there.
#[derive(Debug)]
pub struct SledBackend {
    shared: Arc<Shared>,
    mode: SyncMode,
    syncer: Option<JoinHandle<()>>,
}

/// When a change is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Before its request is answered. No crash, of the host either, loses what was answered.
    Always,
    /// At the latest after so long. A crash of the process or of the host may lose that much: what is found
    /// is a state that the store was in before, whole.
    Interval(Duration),
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    /// Told when the syncer is to stop.
    stop: Condvar,
}

#[derive(Debug)]
struct State {
    /// `None` once something has failed, or when it is closed.
    database: Option<Database>,
    unsynced: bool,
    stopping: bool,
}

struct Database {
    db: ::sled::Db,
    tree: ::sled::Tree,
    watches: ::sled::Tree,
    /// The file that everything is in.
    file: File,
    /// The number of the last change.
    last: Cell<u64>,
    count: File,
}

/// What a call to the database came to other than its result.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Database(#[from] ::sled::Error),
    #[error("sync")]
    Sync(#[from] io::Error),
    #[error("the database panicked: {message}")]
    Panicked { message: String },
    #[error("it ends at change {found}, but {known} were kept: its log is damaged")]
    ChangesLost { found: u64, known: u64 },
    #[error("the number of the last change is damaged")]
    ChangeNumber,
    #[error("something failed before, so that memory and disk may differ: open it again")]
    FailedBefore,
}

impl SledBackend {
    /// Opens the database in this directory, and creates both if there are none.
    ///
    /// # Errors
    ///
    /// If it cannot be created or read, is damaged, or another process has it open.
    pub fn open(path: impl AsRef<FsPath>, mode: SyncMode) -> Result<Self, BackendError> {
        let path = path.as_ref().to_owned();
        let failed = |failure: Failure| failed("open", &path, failure);
        let database = guarded(|| Database::open(&path)).map_err(failed)?;
        let state = State { database: Some(database), unsynced: false, stopping: false };
        let shared = Arc::new(Shared { path, state: Mutex::new(state), stop: Condvar::new() });
        let syncer = match mode {
            SyncMode::Always => None,
            SyncMode::Interval(interval) => {
                let shared = Arc::clone(&shared);
                let run = move || shared.sync_now_and_then(interval);
                let thread = thread::Builder::new().name("xenstored-sync".into()).spawn(run);
                Some(thread.map_err(|error| BackendError::Failed {
                    step: "start a thread".into(),
                    source: error.into(),
                })?)
            }
        };
        Ok(Self { shared, mode, syncer })
    }
}

impl Backend for SledBackend {
    fn load(&mut self) -> Result<Vec<KeptNode>, BackendError> {
        let mut state = self.shared.lock();
        let loaded = state.with(|database| {
            let entries = database
                .tree
                .iter()
                .filter(|entry| !matches!(entry, Ok((key, _)) if &key[..] == LAST_CHANGE));
            let octets = |entry: Result<(::sled::IVec, ::sled::IVec), ::sled::Error>| {
                entry.map(|(key, value)| (key.to_vec(), value.to_vec()))
            };
            Ok(records::nodes(entries.map(octets))?)
        });
        loaded.map_err(|failure| failed("read", &self.shared.path, failure))?
    }

    fn load_watches(&mut self) -> Result<Vec<KeptWatch>, BackendError> {
        let mut state = self.shared.lock();
        let loaded = state.with(|database| {
            let mut watches = Vec::new();
            for entry in &database.watches {
                let (key, value) = entry?;
                match watch_of(&key, &value) {
                    Some(watch) => watches.push(watch),
                    None => tracing::warn!(key = %key.escape_ascii(), "kept watch is damaged"),
                }
            }
            Ok(watches)
        });
        loaded.map_err(|failure| failed("read", &self.shared.path, failure))
    }

    fn keep_watch(&mut self, change: &WatchChange) -> Result<(), BackendError> {
        let mut state = self.shared.lock();
        let kept = state.with(|database| {
            match change {
                WatchChange::Put(watch) => {
                    let depth = watch.depth.map(u32::to_be_bytes);
                    let value = depth.as_ref().map_or(&[][..], |depth| &depth[..]);
                    database.watches.insert(watch_key(watch), value)?;
                }
                WatchChange::Remove(watch) => {
                    database.watches.remove(watch_key(watch))?;
                }
                WatchChange::RemoveAll(domid) => {
                    let mut batch = ::sled::Batch::default();
                    for key in database.watches.scan_prefix(domid.get().to_be_bytes()).keys() {
                        batch.remove(key?);
                    }
                    database.watches.apply_batch(batch)?;
                }
            }
            if self.mode == SyncMode::Always { database.sync() } else { Ok(()) }
        });
        state.unsynced = self.mode != SyncMode::Always;
        kept.map_err(|failure| failed("write to", &self.shared.path, failure))
    }

    fn keep(&mut self, changes: &[NodeChange]) -> Result<(), BackendError> {
        let mut state = self.shared.lock();
        let kept = state.with(|database| {
            database.apply(changes)?;
            if self.mode == SyncMode::Always { database.sync() } else { Ok(()) }
        });
        state.unsynced = self.mode != SyncMode::Always;
        kept.map_err(|failure| failed("write to", &self.shared.path, failure))
    }
}

fn watch_key(watch: &KeptWatch) -> Vec<u8> {
    let domid = watch.domid.get().to_be_bytes();
    [&domid[..], watch.path.as_str().as_bytes(), b"\0", watch.token.as_octets()].concat()
}

fn watch_of(key: &[u8], value: &[u8]) -> Option<KeptWatch> {
    let (domid, rest) = key.split_first_chunk()?;
    let nul = rest.iter().position(|octet| *octet == 0)?;
    let depth = match value {
        [] => None,
        value => Some(u32::from_be_bytes(value.try_into().ok()?)),
    };
    Some(KeptWatch {
        domid: DomId::new(u16::from_be_bytes(*domid)),
        path: PathOrSpecial::from_octets(&rest[..nul]).ok()?,
        token: Token::from_octets(&rest[nul + 1..]).ok()?,
        depth,
    })
}

/// Whatever was kept is on the disk afterwards.
impl Drop for SledBackend {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.stop.notify_all();
        if let Some(thread) = self.syncer.take() {
            // A panic of the thread has been reported by the panic hook.
            let _ = thread.join();
        }
        let mut state = self.shared.lock();
        let closed = state.with(Database::sync).and_then(|()| {
            let database = state.database.take();
            guarded(|| {
                drop(database);
                Ok(())
            })
        });
        if let Err(error) = closed {
            tracing::error!(%error, path = %self.shared.path.display(), "the store's database could not be closed");
        }
    }
}

impl Shared {
    fn sync_now_and_then(&self, interval: Duration) {
        let mut state = self.lock();
        while !state.stopping {
            state =
                (self.stop.wait_timeout(state, interval)).unwrap_or_else(PoisonError::into_inner).0;
            if std::mem::take(&mut state.unsynced)
                && let Err(error) = state.with(Database::sync)
            {
                tracing::error!(%error, path = %self.path.display(), "the store is no longer kept");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives the database up if the work fails.
    fn with<T>(
        &mut self,
        work: impl FnOnce(&Database) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(database) = &self.database else { return Err(Failure::FailedBefore) };
        let result = guarded(|| work(database));
        if result.is_err() {
            let database = self.database.take();
            // What went wrong is in the result already.
            let _ = guarded(|| {
                drop(database);
                Ok(())
            });
        }
        result
    }
}

impl Database {
    fn open(path: &FsPath) -> Result<Self, Failure> {
        let directory = path.join(DATABASE);
        fs::create_dir_all(&directory)?;
        let db = ::sled::Config::new()
            .path(&directory)
            .cache_capacity(CACHE_CAPACITY)
            // Changes are flushed here; another thread that does so adds nothing.
            .flush_every_ms(None)
            .open()?;
        let tree = db.open_tree(TREE)?;
        let watches = db.open_tree(WATCHES)?;
        db.flush()?;
        // What else the database wrote on opening, of which it syncs only some; and the names of all that.
        for entry in directory.read_dir()? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        let count = open_count(path)?;
        for directory in [&directory, path] {
            File::open(directory)?.sync_all()?;
        }
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or(FsPath::new(".")))?.sync_all()?;
        let file = File::open(directory.join("db"))?;
        let last = match tree.get(LAST_CHANGE)? {
            Some(number) => {
                let number = (*number).try_into().map_err(|_| Failure::ChangeNumber)?;
                u64::from_be_bytes(number)
            }
            None => 0,
        };
        match read_count(&count)? {
            known if known > last => Err(Failure::ChangesLost { found: last, known }),
            _ => Ok(Self { db, tree, watches, file, last: Cell::new(last), count }),
        }
    }

    /// Makes the changes in one step.
    fn apply(&self, changes: &[NodeChange]) -> Result<(), Failure> {
        let mut batch = ::sled::Batch::default();
        for change in changes {
            let (id, entries) = match change {
                NodeChange::Put(node) => (node.id, records::entries(node)),
                NodeChange::Remove(id) => (*id, Vec::new()),
            };
            // Pieces that the node had and has no more.
            for old in self.tree.scan_prefix(records::prefix(id)).keys().skip(entries.len()) {
                batch.remove(old?);
            }
            for (key, value) in entries {
                batch.insert(&key[..], value);
            }
        }
        let number = self.last.get() + 1;
        batch.insert(LAST_CHANGE, &number.to_be_bytes());
        self.tree.apply_batch(batch)?;
        self.last.set(number);
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        self.db.flush()?;
        self.file.sync_data()?;
        let number = self.last.get();
        let count = [number.to_be_bytes(), (!number).to_be_bytes()].concat();
        // That the count is behind makes later damage harder to see, no more.
        if let Err(error) = self.count.write_all_at(&count, 0) {
            tracing::warn!(%error, "the count of changes could not be written");
        }
        Ok(())
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").finish_non_exhaustive()
    }
}

fn open_count(path: &FsPath) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path.join(COUNT))
}

/// The number in the file: 0 if it is new, or damaged itself.
fn read_count(file: &File) -> io::Result<u64> {
    let mut halves = [[0; 8]; 2];
    match file.read_exact_at(halves.as_flattened_mut(), 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(error),
    }
    let [number, turned] = halves.map(u64::from_be_bytes);
    if number == !turned {
        return Ok(number);
    }
    tracing::warn!("the count of changes of a kept store is damaged");
    Ok(0)
}

fn failed(what: &str, path: &FsPath, failure: Failure) -> BackendError {
    let step = format!("{what} the database {}", path.display());
    BackendError::Failed { step, source: failure.into() }
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
