//! A live update of many nodes into the same program.

use std::error::Error;
use std::fs;
use std::time::Instant;

use stock_xenstore::Packages;
use xenstore_proto::{Request, Token};

use super::Figures;
use super::daemons::Daemon;
use super::load::IN_FLIGHT;
use super::nodes::domains;
use super::scale::Scale;
use super::table::{Budget, Figure};
use super::wire::{Batch, Client};

/// Watches of a client that is there all the time.
const WATCHES: u16 = 300;

/// From the request until the successor answers it: as long nobody is served.
pub(crate) fn measure(daemon: &Daemon, _: &Packages, scale: &Scale) -> Figures {
    let figure = |value| vec![Figure::new("ms for all nodes", Budget::AtMost(0.33), value)];
    if matches!(daemon, Daemon::Stock(stock) if stock.kind() == stock_xenstore::Kind::OCaml) {
        // It has no migration stream: what it hands over is another thing.
        return Ok(figure(f64::NAN));
    }
    let mut client = Client::connect(daemon.socket())?;
    client.pipeline(&domains(scale.domains)?, IN_FLIGHT)?;
    for domid in 1..=WATCHES {
        let path = format!("/local/domain/{domid}").parse::<xenstore_proto::Path>()?.into();
        let token = Token::from_octets(&b"watch"[..])?;
        client.ask(&Batch::of([Request::Watch { path, token, depth: None }])?)?;
    }
    let program = fs::read_link(format!("/proc/{}/exe", daemon.pid()))?;
    let program = program.to_str().ok_or("the daemon's name is not text")?;
    let mut control = Client::connect(daemon.socket())?;
    command(&mut control, &["live-update", "-f", program])?;
    let start = Instant::now();
    command(&mut control, &["live-update", "-s", "-t", "0", "-F"])?;
    let taken = start.elapsed().as_secs_f64() * 1e3;
    // The last of the nodes, from a client that was there before.
    let last = format!("/local/domain/{}/device/vif/9/key9", scale.domains).parse()?;
    if client.ask(&Batch::of([Request::Read(last)])?)? != b"value" {
        return Err("the successor has other nodes".into());
    }
    Ok(figure(taken))
}

fn command(client: &mut Client, words: &[&str]) -> Result<(), Box<dyn Error>> {
    let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    let answer = client.ask(&Batch::of([Request::Control(words)])?)?;
    if answer == b"OK\0" { Ok(()) } else { Err(answer.escape_ascii().to_string().into()) }
}
