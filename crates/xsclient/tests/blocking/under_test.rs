//! The client that the suite tests here: the blocking one as it is.

use std::os::unix::net::UnixStream;

pub(crate) use xsclient::Client;
use xsclient::{Options, UnixSocket};

pub(crate) fn over(stream: UnixStream, options: Options) -> Client {
    Client::over(Box::new(UnixSocket::over(stream).unwrap()), options)
}
