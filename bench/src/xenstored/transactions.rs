//! Transactions of several clients at once.

use std::error::Error;
use std::time::Instant;

use stock_xenstore::Packages;
use xenstore_proto::{MessageType, Path, Request, TxId};

use super::Figures;
use super::daemons::Daemon;
use super::scale::Scale;
use super::table::{Budget, Figure};
use super::wire::{Batch, Client};
use crate::measure::per;

const CLIENTS: u16 = 8;
const NODES: usize = 30;

/// Each client makes one domain after the other, as a toolstack does that starts many: start, 30 writes and the end in one
/// go, and once more what has met a conflict. All clients' transactions are open at the same time.
pub(crate) fn measure(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let mut client = Client::connect(daemon.socket())?;
    let above: Path = "/local/domain".parse()?;
    client.ask(&Batch::of([Request::Mkdir(above)])?)?;
    let mut players = (0..CLIENTS)
        .map(|number| Player::new(daemon, number, scale.domains_each))
        .collect::<Result<Vec<_>, _>>()?;
    let start = Instant::now();
    players.iter_mut().try_for_each(Player::start)?;
    while players.iter().any(|player| !player.is_done()) {
        // The first loop has every transaction open before the second has any answered.
        for step in [Player::fill, Player::end] {
            for player in players.iter_mut().filter(|player| !player.is_done()) {
                step(player)?;
            }
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let commits = usize::from(CLIENTS) * usize::from(scale.domains_each);
    let conflicts: usize = players.iter().map(|player| player.conflicts).sum();
    Ok(vec![
        Figure::new("commits a second", Budget::AtLeast(2.0), per(commits, 1) / elapsed),
        Figure::new("conflicts a commit", Budget::Own(0.0), per(conflicts, commits)),
    ])
}

struct Player {
    client: Client,
    starting: Batch,
    /// The domains still to be made, the next one last.
    domains: Vec<Batch>,
    conflicts: usize,
}

impl Player {
    fn new(daemon: &Daemon, number: u16, domains: u16) -> Result<Self, Box<dyn Error>> {
        let of_domain = |nth: u16| -> Result<Batch, Box<dyn Error>> {
            let domid = 1 + number + nth * CLIENTS;
            let mut batch = Batch::default();
            for node in 0..NODES {
                let path =
                    format!("/local/domain/{domid}/device/vbd/{}/key{}", node / 10, node % 10);
                batch.push(&Request::Write { path: path.parse()?, value: b"value".to_vec() })?;
            }
            batch.push(&Request::TransactionEnd { commit: true })?;
            Ok(batch)
        };
        Ok(Self {
            client: Client::connect(daemon.socket())?,
            starting: Batch::of([Request::TransactionStart])?,
            domains: (0..domains).rev().map(of_domain).collect::<Result<_, _>>()?,
            conflicts: 0,
        })
    }

    fn is_done(&self) -> bool {
        self.domains.is_empty()
    }

    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        Ok(self.client.send(&self.starting)?)
    }

    /// The transaction is open: all its writes, and its end.
    fn fill(&mut self) -> Result<(), Box<dyn Error>> {
        let tx = self.client.answer(|answer| {
            let number = answer.granted()?.strip_suffix(b"\0");
            Ok(number.and_then(TxId::from_octets).ok_or("no number of a transaction")?)
        })?;
        if let Some(domain) = self.domains.last_mut() {
            domain.set_transaction(tx);
            self.client.send(domain)?;
        }
        Ok(())
    }

    /// What came of it; then the next transaction.
    fn end(&mut self) -> Result<(), Box<dyn Error>> {
        for _ in 0..NODES {
            self.client.answer(|answer| answer.granted().map(drop))?;
        }
        let conflict = self.client.answer(|answer| {
            let conflict = answer.ty == MessageType::ERROR && answer.payload == b"EAGAIN\0";
            if conflict { Ok(true) } else { answer.granted().map(|_| false) }
        })?;
        if conflict {
            self.conflicts += 1;
        } else {
            self.domains.pop();
        }
        if self.is_done() { Ok(()) } else { self.start() }
    }
}
