//! What the fuzz target of requests runs; the tests replay its corpus through the same function.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use crate::restore::RestoreRequest;
use crate::save::SaveRequest;

/// Descriptors that any number of requests may name.
fn fds() -> Option<&'static [Arc<OwnedFd>]> {
    static FDS: OnceLock<Option<Vec<Arc<OwnedFd>>>> = OnceLock::new();
    let open = || {
        let null = || File::open("/dev/null").ok().map(OwnedFd::from).map(Arc::new);
        (0..3).map(|_| null()).collect()
    };
    FDS.get_or_init(open).as_deref()
}

/// Reads octets as a save request and as a restore request, and checks that what is one is written and read as the same again.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn snapshot_request(data: &[u8]) {
    let (Ok(text), Some(fds)) = (std::str::from_utf8(data), fds()) else { return };
    if let Ok(request) = SaveRequest::from_json(text, fds) {
        let Ok((written, used)) = request.to_json() else { unreachable!("all of it was text") };
        let Ok(again) = SaveRequest::from_json(&written, &used) else {
            unreachable!("what was written is a request: {written}")
        };
        assert_eq!(format!("{again:?}"), format!("{request:?}"));
    }
    if let Ok(request) = RestoreRequest::from_json(text, fds) {
        let Ok((written, used)) = request.to_json() else { unreachable!("all of it was text") };
        let Ok(again) = RestoreRequest::from_json(&written, &used) else {
            unreachable!("what was written is a request: {written}")
        };
        assert_eq!(format!("{again:?}"), format!("{request:?}"));
    }
}
