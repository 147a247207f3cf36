//! Reads and writes of small values.

use std::error::Error;
use std::time::Instant;

use stock_xenstore::Packages;
use xenstore_proto::{Path, Request};

use super::Figures;
use super::daemons::Daemon;
use super::scale::Scale;
use super::table::{Budget, Figure, median};
use super::wire::{Batch, Client, Run};
use crate::measure::per;

const CLIENTS: usize = 8;
pub(crate) const IN_FLIGHT: usize = 32;
/// Nodes that one client reads and writes.
const NODES: usize = 64;
/// Requests of a batch that is sent again and again.
const BATCH: usize = 1024;

pub(crate) fn round_trip(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let mut client = Client::connect(daemon.socket())?;
    client.pipeline(&own_nodes(1)?, IN_FLIGHT)?;
    let micros = micros_of_a_read(&mut client, scale.round_trips)?;
    Ok(vec![Figure::new("microseconds, median", Budget::AtMost(1.0), micros)])
}

pub(crate) fn idle_connections(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let mut client = Client::connect(daemon.socket())?;
    client.pipeline(&own_nodes(1)?, IN_FLIGHT)?;
    let alone = micros_of_a_read(&mut client, scale.round_trips / 2)?;
    let mut idle = Vec::new();
    for _ in 0..scale.idle {
        let mut client = Client::connect(daemon.socket())?;
        client.ask(&Batch::of([Request::Read(node(1, 0)?)])?)?;
        idle.push(client);
    }
    let beside = micros_of_a_read(&mut client, scale.round_trips / 2)?;
    Ok(vec![
        Figure::new("microseconds alone", Budget::Shown, alone),
        Figure::new(format!("microseconds beside {}", scale.idle), Budget::Shown, beside),
        Figure::new("times as long", Budget::Own(1.2), beside / alone),
    ])
}

pub(crate) fn one_client(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    throughput(daemon, 1, scale.requests)
}

pub(crate) fn many_clients(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    throughput(daemon, CLIENTS, scale.requests / CLIENTS)
}

/// One thread plays all clients: what it does for each is little, so that the daemon has the other processor for itself.
fn throughput(daemon: &Daemon, clients: usize, requests: usize) -> Figures {
    let mut players = Vec::new();
    let batches = (1..=clients).map(mixed).collect::<Result<Vec<_>, _>>()?;
    for number in 1..=clients {
        let mut client = Client::connect(daemon.socket())?;
        client.pipeline(&own_nodes(number)?, IN_FLIGHT)?;
        players.push(client);
    }
    let mut play = |total: usize| -> Result<f64, Box<dyn Error>> {
        let mut runs: Vec<_> =
            batches.iter().map(|batch| Run::new(batch, IN_FLIGHT, total)).collect();
        let start = Instant::now();
        while !runs.iter().all(Run::is_done) {
            for (client, run) in players.iter_mut().zip(&mut runs) {
                if !run.is_done() {
                    run.step(client)?;
                }
            }
        }
        Ok(start.elapsed().as_secs_f64())
    };
    play(requests / 10)?;
    let elapsed = play(requests)?;
    let each_second = per(clients * requests, 1) / elapsed;
    Ok(vec![Figure::new("requests a second", Budget::AtLeast(2.0), each_second)])
}

fn micros_of_a_read(client: &mut Client, count: usize) -> Result<f64, Box<dyn Error>> {
    let batch = Batch::of([Request::Read(node(1, 0)?)])?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        client.send(&batch)?;
        client.answer(|answer| answer.granted().map(drop))?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&times))
}

fn node(client: usize, number: usize) -> Result<Path, Box<dyn Error>> {
    Ok(format!("/local/domain/{client}/data/key{number}").parse()?)
}

fn write(client: usize, number: usize) -> Result<Request, Box<dyn Error>> {
    Ok(Request::Write { path: node(client, number)?, value: b"a value of 20 octets".to_vec() })
}

fn own_nodes(client: usize) -> Result<Batch, Box<dyn Error>> {
    let mut batch = Batch::default();
    for number in 0..NODES {
        batch.push(&write(client, number)?)?;
    }
    Ok(batch)
}

fn mixed(client: usize) -> Result<Batch, Box<dyn Error>> {
    let mut batch = Batch::default();
    for number in 0..BATCH {
        let at = number * 7 % NODES;
        let request =
            if number % 4 == 3 { write(client, at)? } else { Request::Read(node(client, at)?) };
        batch.push(&request)?;
    }
    Ok(batch)
}
