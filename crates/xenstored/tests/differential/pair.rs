//! The stock daemon and ours, asked the same.

use stock_xenstore::{Packages, StockDaemon};
use xenstore_proto::{DomId, Message, MessageType, TxId};
use xenstored::{Embedded, Quotas, Server, Store, UnixServer};

use crate::differences::Tally;
use crate::links::{Client, Link, Side};
use crate::steps::{CLIENTS, DOM0_CLIENTS, GUESTS};

/// Quotas are not what is compared: the daemon gets ones that are not reached.
const NO_QUOTAS: [&str; 10] =
    ["-E", "100000", "-W", "100000", "-t", "1000", "-S", "65536", "-A", "500"];

/// Domains that a sequence may introduce, besides the guests.
const OTHERS: [u16; 4] = [3, 5, 6, 65535];

/// Both servers with their clients, and which transactions these have open.
pub(crate) struct Pair {
    stock: StockDaemon,
    xenstore: Embedded,
    _server: UnixServer,
    _directory: tempfile::TempDir,
    pub(crate) theirs: Side,
    pub(crate) ours: Side,
    pub(crate) open: Vec<Vec<OpenTransaction>>,
    /// Whether the client is of a domain with a target.
    pub(crate) targeted: [bool; CLIENTS],
    /// Whether domains have been introduced, released or targeted.
    pub(crate) domains_changed: bool,
    pub(crate) tally: Tally,
}

/// A transaction of one client with both servers.
pub(crate) struct OpenTransaction {
    pub(crate) theirs: TxId,
    pub(crate) ours: TxId,
    /// What was asked in it, and what each answered.
    pub(crate) log: Vec<Logged>,
    /// Whether the store has changed since it started.
    pub(crate) overtaken: bool,
    /// Whether something was removed since.
    pub(crate) removed: bool,
    /// Whether the stock daemon has answered anything else than we have.
    pub(crate) apart: bool,
}

/// A request in a transaction.
pub(crate) struct Logged {
    pub(crate) ty: MessageType,
    pub(crate) payload: Vec<u8>,
    pub(crate) theirs: Message,
    pub(crate) ours: Message,
}

impl Pair {
    pub(crate) fn start(packages: &Packages) -> Self {
        let stock = StockDaemon::start_with_guests(packages, NO_QUOTAS).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let server = Server::new(Store::new()).with_quotas(&Quotas::UNLIMITED);
        let xenstore = Embedded::from(server);
        let server = xenstore.serve_unix(directory.path().join("socket")).unwrap();
        let theirs = (0..DOM0_CLIENTS).map(|_| Client::on_socket(stock.socket())).collect();
        let ours = (0..DOM0_CLIENTS).map(|_| Client::on_socket(server.path())).collect();
        let mut pair = Self {
            stock,
            xenstore,
            _server: server,
            _directory: directory,
            theirs: Side::new(theirs),
            ours: Side::new(ours),
            open: Vec::new(),
            targeted: [false; CLIENTS],
            domains_changed: true,
            tally: Tally::default(),
        };
        for side in [&mut pair.theirs, &mut pair.ours] {
            ask(side, MessageType::WRITE, "/tool/xenstored\0");
        }
        pair.reset();
        pair
    }

    pub(crate) fn our_store(&self) -> Store {
        self.xenstore.snapshot()
    }

    /// What the stock daemon printed.
    pub(crate) fn stock_log(&self) -> String {
        self.stock.log()
    }

    /// Has both start a sequence with the same store and the same clients.
    pub(crate) fn reset(&mut self) {
        for side in [&mut self.theirs, &mut self.ours] {
            for client in 0..side.clients.len() {
                side.ask(client, MessageType::RESET_WATCHES, b"\0", TxId::NONE);
            }
            ask(side, MessageType::RM, "/t\0");
            ask(side, MessageType::RM, "/local\0");
            ask(side, MessageType::SET_PERMS, "/\0n0\0");
            ask(side, MessageType::WRITE, "/\0");
            ask(side, MessageType::SET_PERMS, "/tool\0n0\0");
            ask(side, MessageType::SET_PERMS, "@introduceDomain\0n0\0");
            ask(side, MessageType::SET_PERMS, "@releaseDomain\0n0\0");
        }
        if std::mem::take(&mut self.domains_changed) {
            self.replace_guests();
        }
        for side in [&mut self.theirs, &mut self.ours] {
            for (path, perms) in [
                ("/t", "b0"),
                ("/t/big", "r0"),
                ("/t/open", "b0\0b1"),
                ("/t/closed", "n0"),
                ("/t/shown", "n0\0r1\0w2"),
                ("/local/domain/0", "n0"),
                ("/local/domain/1", "n1\0r2"),
                ("/local/domain/2", "n2"),
            ] {
                ask(side, MessageType::MKDIR, &format!("{path}\0"));
                ask(side, MessageType::SET_PERMS, &format!("{path}\0{perms}\0"));
            }
            side.settle();
        }
        self.targeted = [false; CLIENTS];
        self.open = (0..CLIENTS).map(|_| Vec::new()).collect();
    }

    fn replace_guests(&mut self) {
        for side in [&mut self.theirs, &mut self.ours] {
            side.clients.truncate(DOM0_CLIENTS);
            for domid in GUESTS.iter().chain(&OTHERS) {
                ask(side, MessageType::RELEASE, &format!("{domid}\0"));
            }
        }
        let stock: Vec<_> = GUESTS.iter().map(|&domid| self.stock.guest(domid).unwrap()).collect();
        for (domid, guest) in GUESTS.iter().zip(&stock) {
            for side in [&mut self.theirs, &mut self.ours] {
                let reply =
                    ask(side, MessageType::INTRODUCE, &format!("{domid}\x001\0{}\0", guest.port()));
                assert_eq!(reply.payload, b"OK\0");
            }
        }
        let take = |side: &mut Side| std::mem::take(&mut side.clients);
        let (mut theirs, mut ours) = (take(&mut self.theirs), take(&mut self.ours));
        theirs.extend(stock.into_iter().map(|guest| Client::new(Link::Ring(guest))));
        ours.extend(GUESTS.iter().map(|&domid| {
            Client::new(Link::InProcess(self.xenstore.transport(DomId::new(domid))))
        }));
        (self.theirs, self.ours) = (Side::new(theirs), Side::new(ours));
    }
}

fn ask(side: &mut Side, ty: MessageType, payload: &str) -> Message {
    side.ask(0, ty, payload.as_bytes(), TxId::NONE)
}
