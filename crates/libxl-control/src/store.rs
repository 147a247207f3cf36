//! What Xenstore holds of domains that libxl does not tell, or not truly: names, kinds, and requests to suspend.

use std::ops::ControlFlow;
use std::path::Path as FsPath;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use snapshot::control::DomainKind;
use xsclient::{
    Batch, Client, DomId, Endpoint, Nodes, OpenError, OperationError, Options, Path, RetryPolicy,
};

use crate::pool::lock;

/// What a toolstack writes to have a guest suspend. The guest clears it when it begins to.
const SUSPEND: &[u8] = b"suspend";
/// What is watched is looked at this often in any case: an event can be lost with its connection.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The host's Xenstore.
pub(crate) struct Store {
    endpoint: Endpoint,
    client: Mutex<Option<Client>>,
}

/// What Xenstore says of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) name: Option<String>,
    pub(crate) kind: Option<DomainKind>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Operation(#[from] OperationError),
}

impl StoreError {
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, Self::Operation(error) if error.is_timeout())
    }
}

/// What became of a request to suspend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Withdrawn {
    /// The guest had not seen it, and will not.
    Yes,
    /// There was none: never made, or the guest has seen it.
    NotThere,
}

impl Store {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, client: Mutex::new(None) }
    }

    /// The socket or device, if it is not searched for.
    pub(crate) fn path(&self) -> Option<&FsPath> {
        match &self.endpoint {
            Endpoint::UnixSocket(path) | Endpoint::Xenbus(path) => Some(path),
            Endpoint::Search => None,
        }
    }

    fn connect(&self, deadline: Instant) -> Result<Client, OpenError> {
        let left = deadline.saturating_duration_since(Instant::now());
        Client::open(self.endpoint.clone(), Options::with_timeout(left))
    }

    /// On the connection that is kept, or on a new one if that was lost.
    fn with<T>(
        &self,
        deadline: Instant,
        mut ask: impl FnMut(&mut Client) -> Result<T, OperationError>,
    ) -> Result<T, StoreError> {
        let mut kept = lock(&self.client);
        if let Some(client) = kept.as_mut().filter(|client| client.lost().is_none()) {
            match ask(&mut client.with_deadline(deadline)) {
                Err(error) if error.is_lost() => {}
                answer => return Ok(answer?),
            }
        }
        let mut client = self.connect(deadline)?;
        let answer = ask(&mut client.with_deadline(deadline));
        *kept = Some(client);
        Ok(answer?)
    }

    /// All in one round trip, in the order of `domids`.
    pub(crate) fn describe(
        &self,
        domids: &[DomId],
        deadline: Instant,
    ) -> Result<Vec<Described>, StoreError> {
        self.with(deadline, |client| {
            let mut batch = Batch::new();
            let slots: Vec<_> = domids
                .iter()
                .map(|domid| (batch.read(name(*domid)), batch.read(kind(*domid))))
                .collect();
            let mut replies = client.run(batch)?;
            let mut all = Vec::new();
            for (name, kind) in slots {
                let name = replies.take_optional(name)?;
                let kind = replies.take_optional(kind)?;
                all.push(Described {
                    name: name.map(|name| String::from_utf8_lossy(&name).into_owned()),
                    kind: kind.as_deref().and_then(kind_of),
                });
            }
            Ok(all)
        })
    }

    /// Whether the guest has been asked to suspend and has not begun to.
    pub(crate) fn is_asked(&self, domid: DomId, deadline: Instant) -> Result<bool, StoreError> {
        let read = self.with(deadline, |client| client.read_optional(&request(domid)));
        Ok(read?.as_deref() == Some(SUSPEND))
    }

    /// Takes a request to suspend back, unless the guest sees it first.
    pub(crate) fn withdraw(
        &self,
        domid: DomId,
        deadline: Instant,
    ) -> Result<Withdrawn, StoreError> {
        let path = request(domid);
        self.with(deadline, |client| {
            client.transact(&RetryPolicy::default(), |transaction| {
                if transaction.read_optional(&path)?.as_deref() != Some(SUSPEND) {
                    return Ok(Withdrawn::NotThere);
                }
                transaction.write(&path, b"")?;
                Ok(Withdrawn::Yes)
            })
        })
    }

    /// Looks whenever something may have changed with a domain, until `look` has seen enough or the deadline has passed:
    /// `None`. Waits on a connection of its own.
    pub(crate) fn await_change<T, E: From<StoreError>>(
        &self,
        domid: DomId,
        deadline: Instant,
        mut look: impl FnMut() -> Result<ControlFlow<T>, E>,
    ) -> Result<Option<T>, E> {
        if let ControlFlow::Break(seen) = look()? {
            return Ok(Some(seen));
        }
        let opened = |error: OpenError| E::from(error.into());
        let failed = |error: OperationError| E::from(error.into());
        let mut client = self.connect(deadline).map_err(opened)?;
        let released = "@releaseDomain".parse::<xsclient::PathOrSpecial>();
        let released = released.expect("written out here");
        client.watch(released, None).map_err(failed)?;
        client.watch(request(domid), None).map_err(failed)?;
        loop {
            if let ControlFlow::Break(seen) = look()? {
                return Ok(Some(seen));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            client.next_event_any(left.min(LOOK_AGAIN)).map_err(failed)?;
        }
    }

    /// Calls `seen` whenever somebody has written to a domain's request node, until the connection is lost. Returns once it
    /// listens.
    pub(crate) fn listen(
        &self,
        domid: DomId,
        deadline: Instant,
        seen: impl Fn() + Send + 'static,
    ) -> Result<(), StoreError> {
        let mut client = self.connect(deadline)?;
        let watch = client.watch(request(domid), None)?;
        // The first event only says that the watch is set.
        let left = deadline.saturating_duration_since(Instant::now());
        client.next_event(&watch, left)?;
        let listen = move || {
            loop {
                match client.next_event(&watch, Duration::from_secs(3600)) {
                    Ok(Some(_)) => seen(),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "nobody hears any more whether the guest is asked");
                        return seen();
                    }
                }
            }
        };
        let started = std::thread::Builder::new().name("request".into()).spawn(listen);
        if let Err(error) = started {
            tracing::warn!(%error, "nobody hears whether the guest is asked to suspend");
        }
        Ok(())
    }
}

fn below(domid: DomId, name: &str) -> Path {
    Path::of_domain(domid).join(name).expect("a name that is written out here")
}

fn name(domid: DomId) -> Path {
    below(domid, "name")
}

fn request(domid: DomId) -> Path {
    below(domid, "control/shutdown")
}

/// libxl's own note of what it has built, which it reads itself for this question.
fn kind(domid: DomId) -> Path {
    format!("/libxl/{}/type", domid.get()).parse().expect("a number and names written out here")
}

fn kind_of(text: &[u8]) -> Option<DomainKind> {
    match text {
        b"pv" => Some(DomainKind::Pv),
        b"pvh" => Some(DomainKind::Pvh),
        b"hvm" => Some(DomainKind::Hvm),
        _ => None,
    }
}
