//! The lessons of Xen's security advisories about Xenstore servers, each by its number.
//!
//! Not here: XSA-38 is about rings, which this server does not serve; XSA-349 is about clients.

mod domains;
mod limits;

use xenstore_proto::{DomId, Errno, Reply, Request, TxId};
use xenstored::{ConnectionId, Usage, fuzzing};

use crate::driver::{Driver, set_perms};

const OVER: Reply = Reply::Error(Errno::ENOSPC);
const DENIED: Reply = Reply::Error(Errno::EACCES);
const SEVEN: DomId = DomId::new(7);

/// A host with the guest 7 and its home `/local/domain/7`, and a connection of each.
struct Host {
    driver: Driver,
    us: ConnectionId,
    guest: ConnectionId,
}

impl Host {
    fn new() -> Self {
        let mut driver = Driver::new(&[("/local/domain/7/data", ""), ("/local/domain/8", "")]);
        let us = driver.connect(0);
        let guest = driver.connect(7);
        let mut host = Self { driver, us, guest };
        for domid in [7, 8] {
            host.introduce(domid);
        }
        for (at, perms) in [("/", "r0"), ("/local/domain/7", "n7"), ("/local/domain/7/data", "n7")]
        {
            assert_eq!(host.us(&set_perms(at, perms)), Reply::Ok);
        }
        host
    }

    fn us(&mut self, request: &Request) -> Reply {
        self.driver.ask(self.us, TxId::NONE, request)
    }

    fn guest(&mut self, request: &Request) -> Reply {
        self.driver.ask(self.guest, TxId::NONE, request)
    }

    fn introduce(&mut self, domid: u16) {
        let introduce = Request::Introduce { domid: DomId::new(domid), gfn: 1, event_channel: 1 };
        assert_eq!(self.us(&introduce), Reply::Ok);
    }

    fn release(&mut self, domid: u16) {
        assert_eq!(self.us(&Request::Release(DomId::new(domid))), Reply::Ok);
    }

    fn usage(&self) -> Usage {
        self.driver.server.usage_of(SEVEN)
    }

    fn check(&self) {
        fuzzing::accounts_are_exact(&self.driver.server);
    }
}
