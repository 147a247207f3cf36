//! What becomes of domains, as the hypervisor tells it.

use std::collections::BTreeSet;

use xenstore_proto::{DomId, Errno, Path};

use super::hypervisor::{DomainState, LocalPort, RemotePort, XenError, store_port};
use super::ring::Ring;
use super::rings::SharedRing;
use super::slot::Left;
use crate::domains::DomainEvent;
use crate::server::{ConnectionId, Server};

/// What is done for a domain whose ring is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beginning {
    /// The ring is emptied: the domain has just been made, or has a new kernel.
    Anew,
    /// The ring goes on as it is.
    AsFound,
}

impl Server {
    /// Opens the ring of a domain that is introduced, or empties it if it is open. Does nothing where no rings are served,
    /// and for domain 0, whose ring is open from the start.
    ///
    /// # Errors
    ///
    /// What the hypervisor says; nothing has changed then.
    pub(crate) fn introduce_ring(&mut self, domid: DomId, port: u32) -> Result<(), Errno> {
        let offered = self.domains.features(domid);
        let Some(rings) = self.rings.as_mut().filter(|_| domid != DomId::DOM0) else {
            return Ok(());
        };
        let port = RemotePort(port);
        let refused = |error: XenError| {
            tracing::warn!(error = %error.on_one_line(), "domain not introduced");
            error.errno()
        };
        match rings.retake(domid, port).map_err(refused)? {
            Some((old, ring)) => {
                self.disconnect(old);
                self.serve_ring(ring, Some(port), Beginning::Anew);
            }
            None => {
                let ring = rings.connect(domid, port, offered).map_err(refused)?;
                self.serve_ring(ring, Some(port), Beginning::Anew);
            }
        }
        Ok(())
    }

    /// Gives a domain that asks for it a new start: nothing of the old connection is left. `false` if it is not a ring's.
    pub(crate) fn renew_ring(&mut self, connection: ConnectionId) -> bool {
        let Some(rings) = &mut self.rings else { return false };
        let Some(taken) = rings.domain_of(connection).and_then(|domid| rings.take_open(domid))
        else {
            return false;
        };
        let (_, port, ring) = taken;
        // Not louder: a domain can have this said as often as it likes.
        tracing::debug!(domid = %ring.domid(), "domain connects again");
        self.disconnect(connection);
        self.serve_ring(ring, port, Beginning::Anew);
        true
    }

    /// Opens the rings of domains that a dead predecessor had, as they are found, and removes from the store what is left
    /// of domains that are gone.
    pub(crate) fn pick_up(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        let hypervisor = rings.hypervisor.as_mut();
        let domains = hypervisor.domains().and_then(|domains| {
            let mut alive = Vec::with_capacity(domains.len());
            for domid in domains {
                match hypervisor.domain_state(domid)? {
                    DomainState::Running | DomainState::Shutdown(_) => alive.push(domid),
                    DomainState::Dying | DomainState::Gone => {}
                }
            }
            Ok(alive)
        });
        let domains = match domains {
            Ok(domains) => domains,
            Err(error) => {
                let error = error.on_one_line();
                tracing::error!(error, "domains that run already are not served");
                return;
            }
        };
        self.bury_all_but(&domains.iter().copied().collect());
        for domid in domains {
            match self.pick_up_domain(domid) {
                Ok(true) => tracing::warn!(
                    %domid,
                    "domain found: its transactions are lost, and watches that were not kept"
                ),
                Ok(false) => tracing::info!(%domid, "domain found that waits for no Xenstore"),
                Err(error) => {
                    let error = error.on_one_line();
                    tracing::warn!(%domid, error, "domain found that is not served");
                }
            }
        }
    }

    /// Opens the ring of this very domain as it is found, unless it is open.
    pub(crate) fn open_own_ring(&mut self) -> Result<(), XenError> {
        let offered = self.domains.features(DomId::DOM0);
        let Some(rings) = self.rings.as_mut().filter(|rings| !rings.is_open(DomId::DOM0)) else {
            return Ok(());
        };
        let (ring, port) = rings.connect_own(offered)?;
        self.serve_ring(ring, Some(port), Beginning::AsFound);
        Ok(())
    }

    /// Goes on with a ring that a predecessor had. `None` if that is not possible, or no rings are served.
    pub(crate) fn restore_ring(
        &mut self,
        connection: ConnectionId,
        port: u32,
    ) -> Option<SharedRing> {
        let domid = self.connections.get(&connection)?.domid;
        let offered = self.domains.features(domid);
        let hint = self.port_in_store(domid);
        let rings = self.rings.as_mut()?;
        // No port is how a domain is handed over whose ring was closed.
        if port == 0 {
            return None;
        }
        let ring = if rings.hypervisor.has_inherited() {
            rings.adopt(domid, LocalPort(port), offered).map(|ring| (ring, None))
        } else {
            // Where the predecessor has died before it could leave its event channels, the domain waits for a server. By
            // the predecessor's number it is not to be found: that may be another's port by now.
            match rings.waits_for_server(domid, hint) {
                Ok(Some(waiting)) => {
                    tracing::warn!(%domid, port = waiting.0, "event channel not left by the predecessor: bound anew");
                    if domid == DomId::DOM0 {
                        rings.connect_own(offered).map(|(ring, port)| (ring, Some(port)))
                    } else {
                        rings.connect(domid, waiting, offered).map(|ring| (ring, Some(waiting)))
                    }
                }
                Ok(None) => {
                    tracing::error!(%domid, "ring not taken over: its event channel was not left by the predecessor, and the domain has none that waits for a server");
                    return None;
                }
                Err(error) => Err(error),
            }
        };
        match ring {
            Ok((mut ring, port)) => {
                rings.keep(&mut ring);
                Some(rings.serve(connection, ring, port))
            }
            Err(error) => {
                tracing::error!(%domid, error = error.on_one_line(), "ring not taken over");
                None
            }
        }
    }

    /// Asks what has become of each introduced domain. One that is dead is unmapped, so that it can go, and then
    /// released; one that was shut down is told of, once.
    pub(crate) fn look_at_domains(&mut self) {
        let Some(rings) = &mut self.rings else { return };
        let (mut dead, mut shut_down) = (Vec::new(), Vec::new());
        for domid in self.domains.introduced().filter(|domid| *domid != DomId::DOM0) {
            match rings.hypervisor.domain_state(domid) {
                Ok(DomainState::Running) => {}
                Ok(DomainState::Shutdown(reason)) => shut_down.push((domid, reason)),
                Ok(DomainState::Dying | DomainState::Gone) => {
                    rings.close(domid);
                    dead.push(domid);
                }
                Err(error) => tracing::error!(error = error.on_one_line(), "domain overlooked"),
            }
        }
        for domid in dead {
            tracing::info!(%domid, "domain died");
            if let Err(errno) = self.release(domid) {
                tracing::error!(%domid, %errno, "dead domain not released");
            }
        }
        for (domid, reason) in shut_down {
            if self.domains.note_shutdown(domid) {
                tracing::info!(%domid, reason = reason.0, "domain was shut down");
                self.fire_special(DomainEvent::Released, domid);
            }
        }
    }

    fn serve_ring(&mut self, mut ring: Ring, port: Option<RemotePort>, beginning: Beginning) {
        let domid = ring.domid();
        let connection = self.connect(domid);
        if let Some(rings) = &mut self.rings {
            let left = match beginning {
                Beginning::Anew => {
                    rings.keep(&mut ring);
                    ring.reset();
                    Left::default()
                }
                Beginning::AsFound => rings.resume(&mut ring),
            };
            let ring = rings.serve(connection, ring, port);
            rings.hand_over(connection, ring, left);
        }
        if beginning == Beginning::Anew {
            self.forget_kept_watches(domid);
        } else {
            let watches = self.watch_as_remembered(connection, domid);
            if watches > 0 {
                tracing::info!(%domid, watches, "watches of before set again");
            }
        }
    }

    /// `false` if the domain has no port that waits for a server.
    fn pick_up_domain(&mut self, domid: DomId) -> Result<bool, XenError> {
        let hint = self.port_in_store(domid);
        let offered = self.domains.features(domid);
        let Some(rings) = &mut self.rings else { return Ok(false) };
        let Some(port) = store_port(rings.hypervisor.as_mut(), domid, hint)? else {
            return Ok(false);
        };
        let ring = rings.connect(domid, port, offered)?;
        self.domains.introduce(domid);
        self.accounts.of_domain(domid);
        self.serve_ring(ring, Some(port), Beginning::AsFound);
        Ok(true)
    }

    /// The port that a toolstack wrote down.
    fn port_in_store(&self, domid: DomId) -> Option<RemotePort> {
        let path: Path = format!("{}/store/port", Path::of_domain(domid)).parse().ok()?;
        let text = std::str::from_utf8(self.store.read(&path)?).ok()?;
        text.parse().ok().map(RemotePort)
    }

    /// Releases the domains that the store knows and the host does not: while nobody served, they have died.
    fn bury_all_but(&mut self, alive: &BTreeSet<DomId>) {
        let named = self.store.nodes().flat_map(|node| node.perms.entries());
        let dead: BTreeSet<_> = named
            .map(|entry| entry.domid)
            .filter(|domid| domid.is_real() && *domid != DomId::DOM0 && !alive.contains(domid))
            .collect();
        for domid in dead {
            tracing::warn!(%domid, "domain died while nobody served: its nodes are removed");
            if let Err(errno) = self.release(domid) {
                tracing::error!(%domid, %errno, "dead domain not released");
            }
        }
    }
}
