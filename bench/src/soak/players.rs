//! The clients of a soak. Each connects, works for a while, leaves in one of several ways, and comes back.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use xenstore_proto::{MessageType, Request, Token, TxId};

use super::latency::Latencies;
use super::store::{self, Outcome};
use crate::xenstored::{Batch, Client};

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Reader,
    Writer,
    Transactor,
    Watcher,
    Lister,
    /// Makes and removes nodes.
    Maker,
    /// Has many requests in flight.
    Flooder,
}

/// A client that runs on a thread of its own.
pub(crate) struct Player {
    pub(crate) number: usize,
    pub(crate) part: Part,
    pub(crate) socket: PathBuf,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) chance: Chance,
}

/// What a client has seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// By what was done.
    pub(crate) latencies: BTreeMap<&'static str, Latencies>,
    pub(crate) conflicts: u64,
    pub(crate) restarts: u64,
}

const IN_FLIGHT: usize = 64;
const FLOOD: usize = 256;

impl Player {
    /// Works until it is told to stop. Any answer but the expected one is an error.
    pub(crate) fn play(mut self) -> Outcome<Seen> {
        let mut seen = Seen::default();
        while !self.stop.load(Ordering::Relaxed) {
            let mut client = Client::connect(&self.socket)?;
            if let Part::Watcher = self.part {
                self.watch(&mut client)?;
            }
            let life = match self.part {
                Part::Flooder => 20 + self.chance.below(200),
                _ => 100 + self.chance.below(3000),
            };
            for _ in 0..life {
                if self.stop.load(Ordering::Relaxed) {
                    break;
                }
                let start = Instant::now();
                let what = self.act(&mut client, &mut seen)?;
                seen.latencies.entry(what).or_insert_with(Latencies::new).note(start.elapsed());
            }
            self.leave(client)?;
            seen.restarts += 1;
        }
        Ok(seen)
    }

    fn act(&mut self, client: &mut Client, seen: &mut Seen) -> Outcome<&'static str> {
        let (domain, key) = (self.chance.below(1000), self.chance.below(1000));
        match self.part {
            Part::Reader => {
                let read = Batch::of([Request::Read(store::key(domain, key)?)])?;
                let value = client.ask(&read)?;
                if value.is_empty() {
                    return Err("a value has got lost".into());
                }
                Ok("read")
            }
            Part::Writer => {
                let value = vec![b'v'; 1 + self.chance.below(200)];
                client.ask(&Batch::of([store::write(store::key(domain, key)?, &value)])?)?;
                Ok("write")
            }
            Part::Lister => {
                let names = client.ask(&Batch::of([Request::Directory(store::data(domain)?)])?)?;
                if !names.starts_with(b"key") {
                    return Err("a directory is empty".into());
                }
                Ok("directory")
            }
            Part::Transactor => {
                self.transact(client, seen)?;
                Ok("transaction of 12")
            }
            Part::Watcher => {
                self.change_and_hear(client)?;
                Ok("write heard of")
            }
            Part::Maker => {
                let node = store::own(self.number, &format!("made/{}", key % store::SCRATCH))?;
                client.ask(&Batch::of([store::write(node, b"made")])?)?;
                if self.chance.below(store::SCRATCH) == 0 {
                    client.ask(&Batch::of([Request::Rm(store::own(self.number, "made")?)])?)?;
                }
                Ok("create or remove")
            }
            Part::Flooder => {
                let mut batch = Batch::default();
                for number in 0..FLOOD {
                    let at = store::key(domain, key + number)?;
                    batch.push(&match number % 4 {
                        3 => store::write(at, b"flood"),
                        _ => Request::Read(at),
                    })?;
                }
                client.pipeline(&batch, IN_FLIGHT)?;
                Ok("256 pipelined")
            }
        }
    }

    /// Five reads and five writes in a transaction that is committed, mostly.
    fn transact(&mut self, client: &mut Client, seen: &mut Seen) -> Outcome<()> {
        let tx = begin(client)?;
        let mut batch = Batch::default();
        let domain = self.chance.below(1000);
        for _ in 0..5 {
            let at = store::key(domain, self.chance.below(1000))?;
            batch.push(&Request::Read(at.clone()))?;
            batch.push(&store::write(at, b"in a transaction"))?;
        }
        batch.set_transaction(tx);
        client.pipeline(&batch, batch.len())?;
        let commit = self.chance.below(10) > 0;
        let mut end = Batch::of([Request::TransactionEnd { commit }])?;
        end.set_transaction(tx);
        client.send(&end)?;
        client.answer(|answer| {
            if answer.ty == MessageType::ERROR && answer.payload == b"EAGAIN\0" {
                seen.conflicts += 1;
                return Ok(());
            }
            answer.granted().map(drop)
        })
    }

    /// Watches a node of its own, and the nodes that everybody writes.
    fn watch(&mut self, client: &mut Client) -> Outcome<()> {
        let token = |text: &str| Token::from_octets(text.as_bytes());
        for (path, name) in
            [(store::own(self.number, "watched")?, OWN), (store::data(self.number)?, "all")]
        {
            let (path, token) = (path.into(), token(name)?);
            client.ask(&Batch::of([Request::Watch { path, token, depth: None }])?)?;
        }
        Ok(())
    }

    /// Writes, and waits for the answer and for an event of it. Events of others' writes are passed over.
    fn change_and_hear(&mut self, client: &mut Client) -> Outcome<()> {
        client.send(&Batch::of([store::write(store::own(self.number, "watched")?, b"new")])?)?;
        let end = format!("\0{OWN}\0").into_bytes();
        let (mut answered, mut heard) = (false, false);
        while !(answered && heard) {
            let refused = client.next(|answer| {
                if answer.ty == MessageType::WATCH_EVENT {
                    heard |= answer.payload.ends_with(&end);
                    return None;
                }
                answered = true;
                answer.granted().err().map(|error| error.to_string())
            })?;
            if let Some(refused) = refused {
                return Err(refused.into());
            }
        }
        Ok(())
    }

    /// In order, or with a transaction open, with answers not waited for, or in the middle of a request.
    fn leave(&mut self, mut client: Client) -> Outcome<()> {
        let (domain, key) = (self.chance.below(1000), self.chance.below(1000));
        let last = Batch::of(vec![Request::Read(store::key(domain, key)?); IN_FLIGHT])?;
        match self.chance.below(4) {
            0 => {}
            1 => {
                let tx = begin(&mut client)?;
                let mut left = Batch::of([store::write(store::key(domain, key)?, b"never seen")])?;
                left.set_transaction(tx);
                client.ask(&left)?;
            }
            2 => client.abandon(&last, usize::MAX)?,
            _ => client.abandon(&last, 1 + self.chance.below(40))?,
        }
        Ok(())
    }
}

/// The token of the watch on a client's own node.
const OWN: &str = "own";

fn begin(client: &mut Client) -> Outcome<TxId> {
    client.send(&Batch::of([Request::TransactionStart])?)?;
    client.answer(|answer| {
        let number = answer.granted()?.strip_suffix(b"\0");
        Ok(number.and_then(TxId::from_octets).ok_or("no number of a transaction")?)
    })
}

/// Numbers that look random: the same ones for the same seed.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    /// A number below the limit, by splitmix64.
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        usize::try_from(z % limit as u64).unwrap_or(0)
    }
}
