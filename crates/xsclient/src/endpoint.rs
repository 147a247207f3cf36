//! Where a server is, and connecting to it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use xenstore_proto::Transport;

use crate::transport::{UnixSocket, XenbusDevice};

/// Where xenstored's socket is when nothing else is said.
const SOCKET_DEFAULT: &str = "/run/xenstored/socket";

/// The kernel's way to the server, in dom0 without a local daemon and in every guest.
const DEVICE_DEFAULT: &str = "/dev/xen/xenbus";

/// Where a Xenstore server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A daemon's Unix socket.
    UnixSocket(PathBuf),
    /// The Linux xenbus device.
    Xenbus(PathBuf),
    /// As the stock tools search: `XENSTORED_PATH` if it is set (a socket or a device); else `XENSTORED_RUNDIR/socket` or
    /// `/run/xenstored/socket`, then `/dev/xen/xenbus`. The environment is read at each connect.
    Search,
}

impl Endpoint {
    /// What is at a path: a xenbus device if that is a character device, and a socket otherwise.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let metadata = std::fs::metadata(&path);
        let device = metadata.is_ok_and(|metadata| metadata.file_type().is_char_device());
        if device { Self::Xenbus(path) } else { Self::UnixSocket(path) }
    }

    pub(crate) fn connect(&self, deadline: Instant) -> Result<Box<dyn Transport>, OpenError> {
        self.reach(&|place| match place {
            Place::Socket(path) => Ok(Box::new(UnixSocket::connect(path, deadline)?)),
            Place::Device(path) => Ok(Box::new(XenbusDevice::open(path)?)),
        })
    }

    /// What `connect` makes of this place; of the usual ones, of the first of which it makes something.
    pub(crate) fn reach<T>(&self, connect: Connect<'_, T>) -> Result<T, OpenError> {
        match self {
            Self::UnixSocket(path) => Ok(connect(Place::Socket(path))
                .map_err(|error| Unreachable { path: path.clone(), error })?),
            Self::Xenbus(path) => Ok(connect(Place::Device(path))
                .map_err(|error| Unreachable { path: path.clone(), error })?),
            Self::Search => search(&candidates(|name| std::env::var_os(name)), connect),
        }
    }
}

/// One place where a server may be.
pub(crate) enum Place<'p> {
    Socket(&'p Path),
    Device(&'p Path),
}

type Connect<'c, T> = &'c dyn Fn(Place<'_>) -> io::Result<T>;

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnixSocket(path) => write!(f, "socket {}", path.display()),
            Self::Xenbus(path) => write!(f, "device {}", path.display()),
            Self::Search => f.write_str("the usual places"),
        }
    }
}

fn search<T>(places: &[Endpoint], connect: Connect<'_, T>) -> Result<T, OpenError> {
    let mut tried = Vec::new();
    for place in places {
        match place.reach(connect) {
            Ok(reached) => return Ok(reached),
            Err(OpenError::Unreachable(unreachable)) => tried.push(unreachable),
            Err(error) => return Err(error),
        }
    }
    Err(OpenError::NoServer { tried })
}

fn candidates(variable: impl Fn(&str) -> Option<OsString>) -> Vec<Endpoint> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(path) = variable("XENSTORED_PATH") {
        return vec![Endpoint::at(path)];
    }
    let socket = variable("XENSTORED_RUNDIR").map(|directory| directory.join("socket"));
    vec![
        Endpoint::UnixSocket(socket.unwrap_or_else(|| SOCKET_DEFAULT.into())),
        Endpoint::Xenbus(DEVICE_DEFAULT.into()),
    ]
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The one place named.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// None of the usual places.
    #[error("no Xenstore server found: {}", list(tried))]
    NoServer {
        /// What was tried, in that order.
        tried: Vec<Unreachable>,
    },
}

/// A place where no server could be reached.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {}: {}", path.display(), words(error))]
pub struct Unreachable {
    /// The socket or device.
    pub path: PathBuf,
    /// What the system said; [`io::ErrorKind::TimedOut`] if the server did not accept before the deadline.
    pub error: io::Error,
}

/// Why a client is not connected again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconnectError {
    /// The client was given a transport and does not know where it leads.
    #[error("the client was made over a transport, so it cannot connect again by itself")]
    NoEndpoint,
    /// The server was not reached.
    #[error(transparent)]
    Open(#[from] OpenError),
}

fn words(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return "not accepted before the deadline".to_owned();
    }
    error.to_string()
}

fn list(tried: &[Unreachable]) -> String {
    let tried: Vec<String> = tried.iter().map(ToString::to_string).collect();
    tried.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(variables: &[(&str, &str)]) -> Vec<Endpoint> {
        candidates(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn the_usual_places_are_the_socket_then_the_device() {
        let socket = Endpoint::UnixSocket(SOCKET_DEFAULT.into());
        let device = Endpoint::Xenbus(DEVICE_DEFAULT.into());
        assert_eq!(with(&[]), [socket.clone(), device.clone()]);
        assert_eq!(with(&[("XENSTORED_PATH", "")]), [socket, device.clone()]);
        let moved = Endpoint::UnixSocket("/x/socket".into());
        assert_eq!(with(&[("XENSTORED_RUNDIR", "/x")]), [moved, device]);
    }

    #[test]
    fn xenstored_path_goes_before_everything_and_may_be_a_device() {
        let both = [("XENSTORED_RUNDIR", "/x"), ("XENSTORED_PATH", "/y/sock")];
        assert_eq!(with(&both), [Endpoint::UnixSocket("/y/sock".into())]);
        let device = [("XENSTORED_PATH", "/dev/null")];
        assert_eq!(with(&device), [Endpoint::Xenbus("/dev/null".into())]);
    }

    #[test]
    fn a_search_that_finds_nothing_says_what_it_tried() {
        let places = [Endpoint::UnixSocket("/no/1".into()), Endpoint::Xenbus("/no/2".into())];
        let missing = |_: Place<'_>| Err::<(), _>(io::ErrorKind::NotFound.into());
        let Err(error) = search(&places, &missing) else { panic!("found a server") };
        let message = error.to_string();
        assert!(message.contains("/no/1") && message.contains("/no/2"), "{message}");
    }
}
