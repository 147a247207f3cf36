//! Sockets to listen on: private, and never in place of one that somebody uses.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path as FsPath, PathBuf};

use crate::xen::XenError;
use rustix::io::Errno as OsError;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Clients that the kernel keeps waiting until they are accepted.
const BACKLOG: i32 = 128;

/// A listening socket at the path that only this user can connect to.
pub(crate) fn listen(path: &FsPath) -> Result<net::UnixListener, ServeError> {
    let failed = |action| {
        move |source: OsError| ServeError::Io {
            action,
            path: path.to_owned(),
            source: source.into(),
        }
    };
    let address = SocketAddrUnix::new(path).map_err(failed("name"))?;
    let socket = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
    };
    let listener = socket().map_err(failed("create"))?;
    match rustix::net::bind(&listener, &address) {
        Err(OsError::ADDRINUSE) => {
            let probe = socket().map_err(failed("create"))?;
            remove_stale(path, rustix::net::connect(&probe, &address))?;
            rustix::net::bind(&listener, &address).map_err(failed("bind"))?;
        }
        bound => bound.map_err(failed("bind"))?,
    }
    // Nobody can connect before listen(), so nobody does while the mode is still the umask's.
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(path, private).map_err(|source| ServeError::Io {
        action: "restrict",
        path: path.to_owned(),
        source,
    })?;
    rustix::net::listen(&listener, BACKLOG).map_err(failed("listen on"))?;
    Ok(listener.into())
}

/// Removes what stands in the way if it is a socket that nobody listens on.
fn remove_stale(path: &FsPath, probed: Result<(), OsError>) -> Result<(), ServeError> {
    let failed = |action| move |source| ServeError::Io { action, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            Err(ServeError::NotASocket { path: path.to_owned() })
        }
        Ok(_) if probed == Err(OsError::CONNREFUSED) => {
            fs::remove_file(path).map_err(failed("replace"))
        }
        Ok(_) => Err(ServeError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("examine")(error)),
    }
}

/// Why a Unix socket cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A server answers there.
    #[error("{} is in use by another server: stop that one, or choose another path", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something else than a socket is there.
    #[error("{} exists and is not a socket: choose another path", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// Domains' rings cannot be served.
    #[error("cannot serve the rings of domains")]
    Rings(#[from] XenError),
    /// The rings' events cannot be waited for.
    #[error("cannot wait for the events of domains")]
    RingEvents(#[source] io::Error),
    /// The system refuses.
    #[error("cannot {action} the socket {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
