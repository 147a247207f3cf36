//! A host whose libxl is the one of `xenlight.c`, compiled here, and whose Xenstore is the embedded one.

#![expect(unsafe_code, reason = "the stand-in is a C library too")]
#![expect(clippy::panic, reason = "a test fails by panicking")]

mod compile;

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path as FsPath, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use libloading::os::unix::{Library, Symbol};
use libxl_config::{DomainConfig, Mode};
use libxl_control::{LibraryAt, Libxl, LibxlOptions};
use snapshot::control::conformance::World;
use snapshot::control::{Cause, DomainControl, DomainIdentity, DomainKind};
use tempfile::TempDir;
use uuid::Uuid;
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{DomId, Endpoint, Path, Reply, Request};

use compile::compile;

/// Compiles the stand-in once a process; why it cannot be.
fn compiled() -> Result<&'static FsPath, String> {
    static COMPILED: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
    match COMPILED.get_or_init(|| compile("xenlight.c", "libxenlight.so.4.17", &[])) {
        Ok((_, library)) => Ok(library),
        Err(problem) => Err(problem.clone()),
    }
}

/// One host. Each has its own copy of the stand-in, and with it its own domains.
pub(crate) struct Host {
    pub(crate) libxl: Libxl,
    pub(crate) directory: TempDir,
    pub(crate) xenstore: Embedded,
    library: Library,
    _server: UnixServer,
    next: u32,
}

impl Host {
    /// A host, or `None` and a line about it if there is no C compiler.
    pub(crate) fn start(test: &str) -> Option<Self> {
        match compiled() {
            Ok(compiled) => Some(Self::with(compiled)),
            Err(reason) => {
                println!("skipped: {test}: {reason}");
                None
            }
        }
    }

    fn with(compiled: &FsPath) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("libxenlight.so.4.17");
        std::fs::copy(compiled, &path).unwrap();
        std::fs::hard_link(&path, directory.path().join("libxentoollog.so.1")).unwrap();
        let xenstore = Embedded::new(Store::default());
        let socket = directory.path().join("xenstore");
        let server = xenstore.serve_unix(&socket).unwrap();
        // SAFETY: the stand-in has no constructors.
        let library = unsafe { Library::new(&path) }.unwrap();
        let mut options = LibxlOptions::default();
        options.library = LibraryAt::File(path);
        options.xenstore = Endpoint::UnixSocket(socket);
        let libxl = Libxl::open(options).unwrap();
        let host = Self { libxl, directory, xenstore, library, _server: server, next: 1 };
        let kept: &'static Embedded = Box::leak(Box::new(host.xenstore.clone()));
        let set: Symbol<unsafe extern "C" fn(StoreFn, *const c_void)> = host.symbol("fake_store");
        // SAFETY: the stand-in hands the pointer, which is of what is never freed, back to the function.
        unsafe { set(store, std::ptr::from_ref(kept).cast()) };
        host
    }

    pub(crate) fn library_path(&self) -> PathBuf {
        self.directory.path().join("libxenlight.so.4.17")
    }

    fn symbol<T>(&self, name: &str) -> Symbol<T> {
        // SAFETY: the types are those of `xenlight.c`.
        unsafe { self.library.get(name) }.unwrap()
    }

    /// What the next call for which it is made does.
    pub(crate) fn fault(&self, what: &str) {
        let set: Symbol<unsafe extern "C" fn(*const c_char)> = self.symbol("fake_fault");
        let what = CString::new(what).unwrap();
        // SAFETY: a C string that is only read.
        unsafe { set(what.as_ptr()) };
    }

    pub(crate) fn create(&mut self, name: &str, kind: DomainKind) -> DomainIdentity {
        type Create = unsafe extern "C" fn(*const c_char, *const u8, *const c_char) -> u32;
        let create: Symbol<Create> = self.symbol("fake_create");
        let uuid = Uuid::from_u128(0x5_0000 + u128::from(self.next));
        self.next += 1;
        let name = CString::new(name).unwrap();
        let kind = match kind {
            DomainKind::Pv => c"pv",
            DomainKind::Pvh => c"pvh",
            DomainKind::Hvm => c"hvm",
        };
        // SAFETY: C strings and sixteen octets, which are only read.
        let domid = unsafe { create(name.as_ptr(), uuid.as_bytes().as_ptr(), kind.as_ptr()) };
        DomainIdentity::new(DomId::new(domid.try_into().unwrap()), uuid)
    }

    /// A running domain.
    pub(crate) fn domain(&mut self) -> DomainIdentity {
        let name = format!("domain-{}", self.next);
        self.create(&name, DomainKind::Pv)
    }

    pub(crate) fn ticks(&self, domain: &DomainIdentity) -> u64 {
        let ticks: Symbol<unsafe extern "C" fn(u32) -> u64> = self.symbol("fake_progress");
        // SAFETY: a plain number.
        unsafe { ticks(domain.domid.get().into()) }
    }

    pub(crate) fn shut_down(&self, domain: &DomainIdentity, reason: c_int) {
        let shut_down: Symbol<unsafe extern "C" fn(u32, c_int)> = self.symbol("fake_shut_down");
        // SAFETY: plain numbers.
        unsafe { shut_down(domain.domid.get().into(), reason) };
    }

    pub(crate) fn pauses(&self, domain: &DomainIdentity) -> c_int {
        let pauses: Symbol<unsafe extern "C" fn(u32) -> c_int> = self.symbol("fake_pauses");
        // SAFETY: a plain number.
        unsafe { pauses(domain.domid.get().into()) }
    }

    /// A pause that is another toolstack's.
    pub(crate) fn pause_by_hand(&self, domain: &DomainIdentity) {
        type Pause = unsafe extern "C" fn(*mut c_void, u32, *const c_void) -> c_int;
        let pause: Symbol<Pause> = self.symbol("libxl_domain_pause");
        // SAFETY: the stand-in uses neither pointer.
        unsafe { pause(std::ptr::null_mut(), domain.domid.get().into(), std::ptr::null()) };
    }

    fn count(&self, name: &str) -> c_int {
        let count: Symbol<unsafe extern "C" fn() -> c_int> = self.symbol(name);
        // SAFETY: it takes nothing.
        unsafe { count() }
    }

    /// How often something was done to domain 0.
    pub(crate) fn touched_zero(&self) -> c_int {
        self.count("fake_touched_zero")
    }

    pub(crate) fn contexts(&self) -> c_int {
        self.count("fake_contexts")
    }

    /// Calls in contexts that would reap all children of the process.
    pub(crate) fn reaps_others(&self) -> c_int {
        self.count("fake_wrong_reaper")
    }

    /// What a toolstack has asked the guest for.
    pub(crate) fn request(&self, domain: &DomainIdentity) -> Vec<u8> {
        let path = format!("/local/domain/{}/control/shutdown", domain.domid);
        match self.xenstore.apply(Request::Read(path.parse().unwrap())) {
            Reply::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn set_request(&self, domain: &DomainIdentity, value: &[u8]) {
        let path: Path =
            format!("/local/domain/{}/control/shutdown", domain.domid).parse().unwrap();
        self.xenstore.apply(Request::Write { path, value: value.to_vec() });
    }
}

type StoreFn = extern "C" fn(*const c_void, *const c_char, *const c_char);

extern "C" fn store(xenstore: *const c_void, path: *const c_char, value: *const c_char) {
    // SAFETY: it is what was given to `fake_store`, and is never freed; both strings are the stand-in's for as long as this takes.
    let (xenstore, path, value) = unsafe {
        let value = (!value.is_null()).then(|| CStr::from_ptr(value).to_bytes().to_vec());
        (&*xenstore.cast::<Embedded>(), CStr::from_ptr(path), value)
    };
    let path: Path = path.to_str().unwrap().trim_end_matches('/').parse().unwrap();
    xenstore.apply(match value {
        Some(value) => Request::Write { path, value },
        None => Request::Rm(path),
    });
}

impl World for Host {
    fn control(&self) -> &dyn DomainControl {
        &self.libxl
    }

    fn running(&mut self) -> Result<DomainIdentity, Cause> {
        Ok(self.domain())
    }

    fn copy_of(&mut self, domain: &DomainIdentity) -> Result<DomainConfig, Cause> {
        Ok(configuration(
            &format!("copy-of-{}", domain.domid),
            Uuid::from_u128(domain.uuid.as_u128() ^ 0xff00),
        ))
    }

    fn progress(&mut self, domain: &DomainIdentity) -> Result<u64, Cause> {
        Ok(self.ticks(domain))
    }

    fn await_progress(&mut self, domain: &DomainIdentity, beyond: u64) -> Result<(), Cause> {
        let limit = Instant::now() + Duration::from_secs(10);
        while self.ticks(domain) <= beyond {
            if Instant::now() > limit {
                return Err(format!("{domain} stands at {beyond}").into());
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn unused_domid(&mut self) -> DomId {
        DomId::new(999)
    }

    fn directory(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(20)
    }
}

/// What a copy is built from.
pub(crate) fn configuration(name: &str, uuid: Uuid) -> DomainConfig {
    let text = format!(
        r#"{{"c_info": {{"type": "pvh", "name": "{name}", "uuid": "{uuid}"}}, "b_info": {{"type.pvh": {{}}}}}}"#
    );
    DomainConfig::read(text.as_bytes(), Mode::Lenient).unwrap().config
}

/// Why a call has failed, with all causes.
pub(crate) fn in_words(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}
