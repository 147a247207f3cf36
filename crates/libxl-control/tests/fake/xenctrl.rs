//! A hypervisor whose libxenctrl is the one of `xenctrl.c`, compiled here.

#![expect(unsafe_code, reason = "the stand-in is a C library too")]

mod compile;

use std::ffi::{CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::os::unix::{Library, Symbol};
use libxl_control::{LibraryAt, LoadError, Xenctrl};
use tempfile::TempDir;
use uuid::Uuid;

use compile::compile;

const LIBRARY: &str = "libxenctrl.so.4.17";

/// Compiles the stand-in once a process; why it cannot be.
fn compiled() -> Result<&'static Path, String> {
    static COMPILED: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
    match COMPILED.get_or_init(|| compile("xenctrl.c", LIBRARY, &[])) {
        Ok((_, library)) => Ok(library),
        Err(problem) => Err(problem.clone()),
    }
}

/// One hypervisor. Each has its own copy of the stand-in, and with it its own domains.
pub(crate) struct Hypervisor {
    directory: TempDir,
    library: Library,
}

impl Hypervisor {
    /// A hypervisor, or `None` and a line about it if there is no C compiler.
    pub(crate) fn start(test: &str) -> Option<Self> {
        match compiled() {
            Ok(compiled) => Some(Self::with(compiled)),
            Err(reason) => {
                println!("skipped: {test}: {reason}");
                None
            }
        }
    }

    /// One whose library lacks `xc_sched_rtds_domain_get`.
    pub(crate) fn lacking_a_function(test: &str) -> Option<Self> {
        match compile("xenctrl.c", LIBRARY, &["-DWITHOUT_RTDS"]) {
            Ok((_directory, library)) => Some(Self::with(&library)),
            Err(reason) => {
                println!("skipped: {test}: {reason}");
                None
            }
        }
    }

    fn with(compiled: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(LIBRARY);
        std::fs::copy(compiled, &path).unwrap();
        std::fs::hard_link(&path, directory.path().join("libxentoollog.so.1")).unwrap();
        // SAFETY: the stand-in has no constructors.
        let library = unsafe { Library::new(&path) }.unwrap();
        Self { directory, library }
    }

    pub(crate) fn open(&self) -> Result<Xenctrl, LoadError> {
        Xenctrl::open(&LibraryAt::File(self.directory.path().join(LIBRARY)))
    }

    fn symbol<T>(&self, name: &str) -> Symbol<T> {
        // SAFETY: the types are those of `xenctrl.c`.
        unsafe { self.library.get(name) }.unwrap()
    }

    /// What the next call for which it is made does.
    pub(crate) fn fault(&self, what: &str) {
        let set: Symbol<unsafe extern "C" fn(*const c_char)> = self.symbol("fake_fault");
        let what = CString::new(what).unwrap();
        // SAFETY: a C string that is only read.
        unsafe { set(what.as_ptr()) };
    }

    /// Another CPU pool, with a larger number than all before.
    pub(crate) fn pool(&self, id: u32, sched: u32) {
        let add: Symbol<unsafe extern "C" fn(u32, u32)> = self.symbol("fake_pool");
        // SAFETY: plain numbers.
        unsafe { add(id, sched) };
    }

    /// Another domain, with a larger number than all before, and its scheduler's two parameters.
    pub(crate) fn domain(&self, domid: u16, uuid: Uuid, pool: u32, params: (u32, u32)) {
        type Add = unsafe extern "C" fn(u32, *const u8, u32, u32, u32);
        let add: Symbol<Add> = self.symbol("fake_domain");
        // SAFETY: plain numbers, and sixteen octets that are only read.
        unsafe { add(domid.into(), uuid.as_bytes().as_ptr(), pool, params.0, params.1) };
    }

    fn count(&self, name: &str) -> c_int {
        let count: Symbol<unsafe extern "C" fn() -> c_int> = self.symbol(name);
        // SAFETY: it takes nothing.
        unsafe { count() }
    }

    /// How often two calls were made at the same time.
    pub(crate) fn overlaps(&self) -> c_int {
        self.count("fake_overlaps")
    }

    /// Interfaces and structures that were handed out and not given back.
    pub(crate) fn left(&self) -> c_int {
        self.count("fake_left")
    }
}
