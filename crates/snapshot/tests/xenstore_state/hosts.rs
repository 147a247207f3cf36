//! Hosts to read from and to write to.

use std::collections::BTreeMap;
use std::path::Path as FsPath;
use std::time::{Duration, Instant};

use snapshot::xenstore_state::{
    ApplyRequest, ConnectionSource, ConnectionSourceError, ExtractRequest, Extracted, Means,
    extract,
};
use xenstore_migration::domain_state::{
    ConnectionState, DomainState, NodeState, RestorePolicy, RestoreRule, Treatment,
};
use xenstored::{Embedded, Store, UnixServer};
use xsclient::{Client, DomId, Endpoint, Options, Path, Reply, Request};

/// The guest of [`xenstore`].
pub(crate) const GUEST: DomId = DomId::new(7);
pub(crate) const VM: &str = "/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11";

/// What a toolstack makes of a PV guest, with what the guest has written itself, and another domain beside it.
pub(crate) const HOST: &str = r#"/local = ""   (n0)
/local/domain = ""   (n0)
/local/domain/0 = ""   (n0)
/local/domain/0/name = "Domain-0"   (n0)
/local/domain/7 = ""   (n0,r7)
/local/domain/7/vm = "/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11"   (n0,r7)
/local/domain/7/name = "web"   (n0,r7)
/local/domain/7/domid = "7"   (n0,r7)
/local/domain/7/device = ""   (n0,r7)
/local/domain/7/device/vbd = ""   (n0,r7)
/local/domain/7/device/vbd/51712 = ""   (n7,r0)
/local/domain/7/device/vbd/51712/state = "4"   (n7,r0)
/local/domain/7/control = ""   (n0,r7)
/local/domain/7/control/feature-suspend = "1"   (n7)
/local/domain/7/data = ""   (n7)
/local/domain/7/data/app = "\x00\xff\x80"   (n7)
/local/domain/7/data/app/deep = "below"   (b7,n0,r5)
/local/domain/8 = ""   (n0,r8)
/local/domain/8/name = "other"   (n0,r8)
/vm = ""   (n0)
/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11 = ""   (n0,r7)
/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11/name = "web"   (n0,r7)
/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11/image = ""   (n0,r7)
/vm/5a1f0c5e-8a3d-4b52-9f0e-0d6a4a3a7c11/image/ostype = "linux"   (n0,r7)
/libxl = ""   (n0)
/libxl/7 = ""   (n0)
/libxl/7/type = "pv"   (n0)
"#;

pub(crate) fn xenstore() -> Embedded {
    Embedded::new(Store::from_text(HOST).unwrap())
}

/// What `xenstore-ls -fp` printed on a real host; `None`, with a note, where the captures are absent.
pub(crate) fn capture(test: &str, name: &str) -> Option<String> {
    let file = FsPath::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/captures/xen-4.17")
        .join(name)
        .join("xenstore.txt");
    match std::fs::read_to_string(&file) {
        Ok(text) => Some(text),
        Err(error) => {
            println!("skipped: {test}: {}: {error}", file.display());
            None
        }
    }
}

pub(crate) fn client(xenstore: &Embedded) -> Client {
    Client::over(Box::new(xenstore.transport(DomId::DOM0)), Options::default())
}

/// A server on a socket, with the directory that the socket is in.
pub(crate) fn serve(xenstore: &Embedded) -> (UnixServer, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let server = xenstore.serve_unix(directory.path().join("socket")).unwrap();
    (server, directory)
}

pub(crate) fn open(socket: &FsPath) -> Client {
    Client::open(Endpoint::UnixSocket(socket.to_owned()), Options::default()).unwrap()
}

pub(crate) fn path(text: &str) -> Path {
    text.parse().unwrap()
}

pub(crate) fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// The usual request for the guest.
pub(crate) fn request(means: Means) -> ExtractRequest {
    let mut request = ExtractRequest::new(GUEST, deadline());
    request.means = means;
    request
}

/// A request to apply a state, by somebody who knows all domains that it names.
pub(crate) fn knowing_all(state: &DomainState, policy: RestorePolicy) -> ApplyRequest {
    let mut request = ApplyRequest::new(policy, deadline());
    request.known = state.other_domids();
    request
}

/// One plain extract of the guest.
pub(crate) fn extract_guest(xenstore: &Embedded) -> Extracted {
    extract(&mut client(xenstore), &request(Means::Transport)).unwrap()
}

pub(crate) fn write(path: &str, value: &[u8]) -> Request {
    Request::Write { path: path.parse().unwrap(), value: value.to_vec() }
}

pub(crate) fn set_perms(path: &str, perms: &str) -> Request {
    Request::SetPerms { path: path.parse().unwrap(), perms: perms.parse().unwrap() }
}

pub(crate) fn remove(path: &str) -> Request {
    Request::Rm(path.parse().unwrap())
}

pub(crate) fn apply(xenstore: &Embedded, request: Request) {
    assert_eq!(xenstore.apply(request), Reply::Ok);
}

/// All nodes of a store at or below some roots.
pub(crate) fn nodes_below(store: &Store, roots: &[&str]) -> BTreeMap<Path, NodeState> {
    let roots: Vec<Path> = roots.iter().map(|root| path(root)).collect();
    let nodes =
        store.nodes().filter(|node| roots.iter().any(|root| node.path.is_at_or_below(root)));
    nodes
        .map(|node| {
            (node.path, NodeState { value: node.value.to_vec(), perms: node.perms.clone() })
        })
        .collect()
}

/// What a server in this process knows.
pub(crate) struct Knows(pub(crate) Option<ConnectionState>);

impl ConnectionSource for Knows {
    fn connection(
        &mut self,
        domid: DomId,
    ) -> Result<Option<ConnectionState>, ConnectionSourceError> {
        assert_eq!(domid, GUEST);
        Ok(self.0.clone())
    }
}

/// Everything becomes as it was saved, but for what a plan never touches.
pub(crate) fn everything() -> RestorePolicy {
    let all = "/**".parse().unwrap();
    RestorePolicy::nothing().after(RestoreRule::of_anybody(all, Treatment::Replace))
}
