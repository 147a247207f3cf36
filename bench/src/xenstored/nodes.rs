//! Many nodes: how fast they are written, and what they take.

use std::error::Error;
use std::time::Instant;

use stock_xenstore::Packages;
use xenstore_proto::Request;

use super::Figures;
use super::daemons::Daemon;
use super::load::IN_FLIGHT;
use super::scale::Scale;
use super::table::{Budget, Figure};
use super::wire::{Batch, Client};
use crate::measure::{per, resident};

const NODES_EACH: usize = 100;

pub(crate) fn fill(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let batch = domains(scale.domains)?;
    let mut client = Client::connect(daemon.socket())?;
    let start = Instant::now();
    client.pipeline(&batch, IN_FLIGHT)?;
    let each_second = per(batch.len(), 1) / start.elapsed().as_secs_f64();
    Ok(vec![Figure::new("nodes a second", Budget::AtLeast(2.0), each_second)])
}

pub(crate) fn memory(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let batch = domains(scale.domains)?;
    let mut client = Client::connect(daemon.socket())?;
    let pid = daemon.pid().to_string();
    let before = resident(&pid)?;
    client.pipeline(&batch, IN_FLIGHT)?;
    let octets = per(resident(&pid)?.saturating_sub(before), batch.len());
    Ok(vec![Figure::new("octets a node", Budget::AtMost(1.5), octets)])
}

/// Ten devices of ten keys each for every domain.
pub(super) fn domains(count: u16) -> Result<Batch, Box<dyn Error>> {
    let mut batch = Batch::default();
    for domid in 1..=count {
        for node in 0..NODES_EACH {
            let path = format!("/local/domain/{domid}/device/vif/{}/key{}", node / 10, node % 10);
            batch.push(&Request::Write { path: path.parse()?, value: b"value".to_vec() })?;
        }
    }
    Ok(batch)
}
