//! What watches cost those who change other nodes, and those who remove watched ones.

use std::error::Error;
use std::time::Instant;

use stock_xenstore::Packages;
use xenstore_proto::{Path, Request, Token};

use super::Figures;
use super::daemons::Daemon;
use super::load::IN_FLIGHT;
use super::scale::Scale;
use super::table::{Budget, Figure};
use super::wire::{Batch, Client};
use crate::measure::micros_each;

/// Writes between two looks at the clock.
const WRITES: usize = 200;

/// Children of a directory of the trees here.
const FANOUT: usize = 100;

pub(crate) fn writes(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let mut client = Client::connect(daemon.socket())?;
    let written: Path = "/vm/written".parse()?;
    let write = Request::Write { path: written, value: b"a value of 20 octets".to_vec() };
    let batch = Batch::of(vec![write; WRITES])?;
    // For some time, not some number: the daemons differ hundredfold here.
    let mut measure = || -> Result<f64, Box<dyn Error>> {
        client.pipeline(&batch, IN_FLIGHT)?;
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < scale.writing {
            client.pipeline(&batch, IN_FLIGHT)?;
            count += batch.len();
        }
        Ok(micros_each(start.elapsed(), count))
    };
    let without = measure()?;
    let mut watcher = Client::connect(daemon.socket())?;
    watcher.pipeline(&watches("/local/domain/0/backend", scale.watches)?, IN_FLIGHT)?;
    let with = measure()?;
    Ok(vec![
        Figure::new("microseconds without", Budget::Shown, without),
        Figure::new(format!("microseconds with {}", scale.watches), Budget::Shown, with),
        Figure::new("times as long", Budget::Own(1.2), with / without),
    ])
}

pub(crate) fn removal(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    const TREE: &str = "/tree";
    /// Milliseconds.
    const BUDGET: f64 = 100.0;
    let mut client = Client::connect(daemon.socket())?;
    let mut tree = Batch::default();
    for number in 0..scale.removed {
        tree.push(&Request::Write { path: place(TREE, number)?, value: b"value".to_vec() })?;
    }
    client.pipeline(&tree, IN_FLIGHT)?;
    let mut watcher = Client::connect(daemon.socket())?;
    watcher.pipeline(&watches(TREE, scale.removed_watched)?, IN_FLIGHT)?;
    let rm = Batch::of([Request::Rm(TREE.parse()?)])?;
    let start = Instant::now();
    client.ask(&rm)?;
    let millis = start.elapsed().as_secs_f64() * 1e3;
    let label = format!("milliseconds for {} nodes", scale.removed);
    Ok(vec![Figure::new(label, Budget::Own(BUDGET), millis)])
}

fn place(below: &str, number: usize) -> Result<Path, Box<dyn Error>> {
    Ok(format!("{below}/directory{}/node{}", number / FANOUT, number % FANOUT).parse()?)
}

fn watches(below: &str, count: usize) -> Result<Batch, Box<dyn Error>> {
    let mut batch = Batch::default();
    for number in 0..count {
        let path = place(below, number)?.into();
        let token = Token::from_octets(format!("token{number}").into_bytes())?;
        batch.push(&Request::Watch { path, token, depth: None })?;
    }
    Ok(batch)
}
