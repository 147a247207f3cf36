//! Functions of Xen's libraries, called: the only modules that are not safe Rust, with [`crate::log`].
//!
//! Prototypes are those of Xen's public headers, the same in 4.16 to 4.21.

#![expect(unsafe_code, reason = "Xen's libraries are in C: there is no other way to call them")]

mod libxenctrl;
mod libxl;

use std::path::{Path, PathBuf};

use libloading::os::unix::{Library as Dynamic, RTLD_LOCAL, RTLD_NOW, Symbol};

pub(crate) use libxenctrl::{Handle, Libxenctrl};
pub(crate) use libxl::{Context, ContextError, Library, Rc, Restored};

/// Why a library is not what it is known to be.
#[derive(Debug)]
pub(crate) enum OpenFailure {
    /// The loader's own words about a library.
    Load { library: PathBuf, problem: String },
    /// It lacks a function.
    Function { name: &'static str },
    /// A structure is larger than there is room for.
    Struct { name: &'static str },
}

/// A library, and the logger that it is given.
struct Pair {
    library: Dynamic,
    xentoollog: Dynamic,
}

impl Pair {
    fn open(library: &Path, xentoollog: &Path) -> Result<Self, OpenFailure> {
        let load = |path: &Path| {
            // SAFETY: Xen's libraries have no constructors with demands; any other file at such a path is the administrator's.
            let opened = unsafe { Dynamic::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
            opened.map_err(|error| OpenFailure::Load {
                library: path.to_owned(),
                problem: error.to_string(),
            })
        };
        let xentoollog = load(xentoollog)?;
        Ok(Self { library: load(library)?, xentoollog })
    }

    /// The function of a name.
    ///
    /// # Safety
    ///
    /// `T` is the prototype of that function.
    unsafe fn function<T: Copy>(&self, name: &'static str) -> Result<T, OpenFailure> {
        let library = if name.starts_with("xtl_") { &self.xentoollog } else { &self.library };
        // SAFETY: promised by the caller.
        let found: Result<Symbol<T>, _> = unsafe { library.get(name) };
        Ok(*found.map_err(|_| OpenFailure::Function { name })?)
    }

    /// Keeps both loaded for as long as the process lives: functions are called, and handlers run, at any time.
    fn stay(self) {
        std::mem::forget(self);
    }
}

macro_rules! functions {
    ($( $field:ident: $symbol:literal as $type:ty; )*) => {
        /// The functions of a loaded library, and of its logger.
        struct Functions {
            $( $field: $type, )*
        }

        impl Functions {
            /// Every function, or the name of one that is not there.
            fn find(pair: &$crate::ffi::Pair) -> Result<Self, $crate::ffi::OpenFailure> {
                Ok(Self { $(
                    // SAFETY: the type is the prototype that Xen's headers give this function.
                    $field: unsafe { pair.function::<$type>($symbol)? },
                )* })
            }
        }
    };
}
use functions;
