//! What requests cost in the server itself, without a transport: the cases in which the stock daemons differ most.
//!
//! `cargo run --release -p xenstored --example step_times`

use std::error::Error;
use std::time::{Duration, Instant};

use xenstore_proto::{DomId, Message, Path, Reply, Request, RequestId, Token, TxId, limits};
use xenstored::{ConnectionId, Server, Store};

type Failure = Box<dyn Error>;

struct Timed {
    server: Server,
    connection: ConnectionId,
}

impl Timed {
    fn new() -> Self {
        let mut server = Server::new(Store::new());
        let connection = server.connect(DomId::DOM0);
        Self { server, connection }
    }

    fn ask(&mut self, tx: TxId, request: &Request) -> Result<Vec<u8>, Failure> {
        let mut octets = Vec::new();
        request.encode(RequestId(1), tx, limits::PAYLOAD_MAX, &mut octets)?;
        let payload = octets.split_off(limits::HEADER_LEN);
        let message =
            Message { ty: request.message_type(), request_id: RequestId(1), tx_id: tx, payload };
        self.server.handle(self.connection, &message);
        while self.server.poll_ready().is_some() {}
        let mut last = None;
        while let Some(output) = self.server.poll_output(self.connection) {
            last = Some(output);
        }
        Ok(last.ok_or("no reply")?[limits::HEADER_LEN..].to_vec())
    }

    fn begin(&mut self) -> Result<TxId, Failure> {
        let number = self.ask(TxId::NONE, &Request::TransactionStart)?;
        Ok(TxId::from_octets(number.strip_suffix(&[0]).unwrap_or(&number))
            .ok_or("no transaction")?)
    }

    /// The time that each of the requests takes.
    fn each(&mut self, tx: TxId, requests: &[Request]) -> Result<Duration, Failure> {
        let start = Instant::now();
        for request in requests {
            self.ask(tx, request)?;
        }
        Ok(start.elapsed() / u32::try_from(requests.len())?)
    }
}

fn main() -> Result<(), Failure> {
    let path = |text: String| text.parse::<Path>();
    let children: Vec<Path> =
        (0..20_000).map(|i| path(format!("/big/{i}"))).collect::<Result<_, _>>()?;
    let write = |path: &Path| Request::Write { path: path.clone(), value: b"value".to_vec() };
    let writes: Vec<Request> = children.iter().map(write).collect();
    let reads: Vec<Request> = children.iter().cloned().map(Request::Read).collect();

    let mut timed = Timed::new();
    println!("create one of 20,000 children: {:.2?}", timed.each(TxId::NONE, &writes)?);
    let removals: Vec<Request> = children.iter().step_by(40).cloned().map(Request::Rm).collect();
    println!("remove one of 20,000 children: {:.2?}", timed.each(TxId::NONE, &removals)?);
    timed.each(TxId::NONE, &writes)?;
    println!("read: {:.2?}", timed.each(TxId::NONE, &reads)?);

    for (what, requests) in [("reads", &reads[..4000]), ("writes", &writes[..4000])] {
        for disturbed in [false, true] {
            let tx = timed.begin()?;
            let each = timed.each(tx, requests)?;
            if disturbed {
                timed.server.apply(Request::Write {
                    path: path("/elsewhere".into())?,
                    value: b"1".to_vec(),
                });
                // So that the reads are checked as well.
                timed.ask(tx, &Request::Mkdir(path(format!("/mark-{tx}"))?))?;
            }
            let start = Instant::now();
            let reply = timed.ask(tx, &Request::TransactionEnd { commit: true })?;
            let commit = start.elapsed();
            let merged =
                if disturbed { "merged with another's change" } else { "nothing else changed" };
            println!(
                "transaction of 4,000 {what}: {each:.2?} each; commit, {merged}: {commit:.2?}"
            );
            assert_eq!(reply, b"OK\0");
        }
    }

    let watchers: Vec<Request> = (0..30_000)
        .map(|i| {
            Ok(Request::Watch {
                path: path(format!("/w/{i}/x"))?.into(),
                token: Token::from_octets(*b"t")?,
                depth: None,
            })
        })
        .collect::<Result<_, Failure>>()?;
    timed.each(TxId::NONE, &watchers)?;
    println!(
        "write with 30,000 watches elsewhere: {:.2?}",
        timed.each(TxId::NONE, &writes[..4000])?
    );

    for i in 0..50_000 {
        let path = path(format!("/w/{}/tree/{i}", i % 100))?;
        assert_eq!(timed.server.apply(Request::Mkdir(path)), Reply::Ok);
    }
    let start = Instant::now();
    timed.ask(TxId::NONE, &Request::Rm(path("/w".into())?))?;
    println!("remove a tree of 50,000 nodes with 30,000 watches in it: {:.2?}", start.elapsed());
    Ok(())
}
