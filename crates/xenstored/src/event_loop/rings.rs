//! Domains' rings among the clients of the loop.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use mio::Interest;
use mio::unix::SourceFd;

use super::{EventLoop, RINGS};
use crate::client::Client;
use crate::embedded::Waker;
use crate::link::Link;
use crate::listen::ServeError;
use crate::server::{ConnectionId, Server};
use crate::xen::Rings;

impl EventLoop {
    /// Serves domains from now on: those that a predecessor has left, or else those that are found.
    pub(crate) fn serve_rings(&mut self, mut rings: Rings) -> Result<(), ServeError> {
        let descriptor = rings.as_fd().as_raw_fd();
        rings.carried_by(Arc::clone(&self.waker));
        let registry = self.poll.registry();
        registry
            .register(&mut SourceFd(&descriptor), RINGS, Interest::READABLE)
            .map_err(ServeError::RingEvents)?;
        let embedded = self.embedded.clone();
        let mut shared = embedded.lock();
        shared.server.rings = Some(rings);
        let mut lost = Vec::new();
        for (number, client) in &mut self.clients {
            if let Link::Parked { port } = *client.link() {
                match shared.server.restore_ring(client.connection, port) {
                    Some(ring) => client.go_on(Link::Ring(ring)),
                    None => lost.push((*number, client.connection)),
                }
            }
        }
        for (number, connection) in lost {
            self.clients.remove(&number);
            self.by_connection.remove(&connection);
            shared.disconnect(connection);
        }
        let opened = if self.own_ring { shared.server.open_own_ring() } else { Ok(()) };
        if let Err(error) = opened {
            // They are not kept for a server that is not started.
            shared.server.rings = None;
            return Err(error.into());
        }
        if self.has_inherited {
            shared.server.keep_inherited_watches();
        } else {
            shared.server.pick_up();
            shared.server.settle_remembered();
        }
        if let Some(rings) = &mut shared.server.rings {
            rings.settle_kept();
        }
        shared.server.look_at_domains();
        shared.wake();
        Ok(())
    }

    /// Has clients whose events have come done for, and looks at domains if one was shut down or has died.
    pub(super) fn hear_rings(&mut self) {
        let mut shared = self.embedded.lock();
        let Some(rings) = &mut shared.server.rings else { return };
        let told = rings.take_told();
        if told.domains {
            shared.server.look_at_domains();
            shared.wake();
        }
        drop(shared);
        for connection in told.connections {
            if let Some(number) = self.by_connection.get(&connection)
                && let Some(client) = self.clients.get_mut(number)
            {
                client.readable = true;
                client.writable = true;
                self.work.insert(*number);
            }
        }
    }

    /// Takes rings that were opened. Each has its turn, since what waits in it already sends no event.
    pub(super) fn carry_rings(&mut self) {
        let embedded = self.embedded.clone();
        let mut shared = embedded.lock();
        let Some(rings) = &mut shared.server.rings else { return };
        for (connection, ring, left) in rings.take_fresh() {
            if !shared.server.is_open(connection) {
                continue;
            }
            shared.carry(connection, Waker::Loop(Arc::clone(&self.waker)));
            let number = self.next_client;
            self.next_client += 1;
            self.clients.insert(number, Client::resumed(Link::Ring(ring), connection, left));
            self.by_connection.insert(connection, number);
            self.work.insert(number);
        }
    }

    /// There was to be a successor, and is not.
    pub(super) fn keep_rings(server: &mut Server) {
        match server.rings.as_mut().map(Rings::resume_domain_events) {
            // Something may have happened meanwhile.
            Some(Ok(true)) => server.look_at_domains(),
            Some(Err(error)) => {
                let error = error.on_one_line();
                tracing::error!(error, "no death of a domain is noticed any more");
            }
            Some(Ok(false)) | None => {}
        }
    }

    /// Serves a domain that has asked for a new start as another client.
    pub(super) fn renew_ring(&mut self, connection: ConnectionId) {
        let mut shared = self.embedded.lock();
        shared.server.renew_ring(connection);
        shared.disconnect(connection);
    }
}
