//! The transport inside the process.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use xenstore_proto::{
    DomId, Errno, Interest, Path, Readiness, Reply, Request, RequestId, Token, Transport, TxId,
    limits,
};
use xenstored::{Embedded, InProcess};

const SOON: Duration = Duration::from_secs(20);

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

fn wire(request: &Request) -> Vec<u8> {
    let mut octets = Vec::new();
    request.encode(RequestId(1), TxId::NONE, limits::PAYLOAD_MAX, &mut octets).unwrap();
    octets
}

fn watch(at: &str) -> Request {
    Request::Watch { path: path(at).into(), token: Token::from_octets(*b"t").unwrap(), depth: None }
}

fn write(at: &str) -> Request {
    Request::Write { path: path(at), value: b"v".to_vec() }
}

fn receive_some(transport: &mut InProcess) -> Vec<u8> {
    transport.wait(Interest::Receive, Instant::now() + SOON).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let len = transport.receive(&mut buffer).unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn a_wait_ends_at_its_deadline() {
    let mut transport = Embedded::default().transport(DomId::DOM0);
    let start = Instant::now();
    let ready = transport.wait(Interest::Receive, start + Duration::from_millis(50)).unwrap();
    assert_eq!(ready, Readiness::default());
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(transport.receive(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let past = transport.wait(Interest::ReceiveOrSend, start).unwrap();
    assert_eq!(past, Readiness { receive: false, send: true }, "what is ready is told even then");
}

#[test]
fn an_event_wakes_the_waiting_client() {
    let xenstore = Embedded::default();
    let mut transport = xenstore.transport(DomId::DOM0);
    transport.send(&wire(&watch("/a"))).unwrap();
    receive_some(&mut transport);
    let (ready, waiting) = std::sync::mpsc::channel();
    let waiter = thread::spawn(move || {
        ready.send(()).unwrap();
        receive_some(&mut transport)
    });
    waiting.recv().unwrap();
    assert_eq!(xenstore.apply(write("/a/b")), Reply::Ok);
    let event = waiter.join().unwrap();
    assert_eq!(&event[16..], b"/a/b\0t\0");
}

#[test]
fn octets_go_in_and_out_in_pieces_of_any_size() {
    let xenstore = Embedded::default();
    let mut transport = xenstore.transport(DomId::DOM0);
    let batch = [wire(&write("/a")), wire(&Request::Read(path("/a")))].concat();
    for octet in batch.chunks(1) {
        assert_eq!(transport.send(octet).unwrap(), 1);
    }
    let mut got = Vec::new();
    let mut one = [0; 1];
    while transport.receive(&mut one).is_ok() {
        got.extend(one);
    }
    assert_eq!(got.len(), 16 + 3 + 16 + 1);
    assert!(got.ends_with(b"v"));
}

#[test]
fn a_client_that_does_not_read_cannot_send_on_and_goes_on_when_it_has_read() {
    let xenstore = Embedded::default();
    xenstore.apply(Request::Write { path: path("/big"), value: vec![b'x'; 4000] });
    let mut transport = xenstore.transport(DomId::DOM0);
    let reads = 5000;
    let batch = wire(&Request::Read(path("/big"))).repeat(reads);
    let (mut sent, mut received, mut turns) = (0, 0, 0);
    let mut buffer = vec![0; 100_000];
    while received < reads * 4016 {
        if sent < batch.len() {
            match transport.send(&batch[sent..]) {
                Ok(len) => sent += len,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            turns += 1;
        }
        let ready = transport.wait(Interest::ReceiveOrSend, Instant::now() + SOON).unwrap();
        assert!(ready.receive, "{ready:?}");
        received += transport.receive(&mut buffer).unwrap();
    }
    assert_eq!((sent, received), (batch.len(), reads * 4016));
    assert!(turns > 10, "only {turns} turns for {sent} octets");
}

#[test]
fn a_header_that_claims_too_much_closes_the_connection() {
    let xenstore = Embedded::default();
    let mut transport = xenstore.transport(DomId::DOM0);
    let mut header = wire(&Request::TransactionStart);
    header[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
    transport.send(&header).unwrap();
    assert_eq!(transport.send(b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    let ready = transport.wait(Interest::ReceiveOrSend, Instant::now() + SOON).unwrap();
    assert!(ready.receive && ready.send);
    assert_eq!(transport.receive(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn releasing_a_domain_wakes_its_client_with_the_end_of_the_connection() {
    let xenstore = Embedded::default();
    let seven = DomId::new(7);
    xenstore.apply(Request::Introduce { domid: seven, gfn: 0, event_channel: 1 });
    let mut guest = xenstore.transport(seven);
    let waiter = thread::spawn(move || receive_some(&mut guest));
    assert_eq!(xenstore.apply(Request::Release(seven)), Reply::Ok);
    assert_eq!(waiter.join().unwrap(), b"");
}

#[test]
fn dropping_a_transport_drops_its_watches() {
    let xenstore = Embedded::default();
    let mut transport = xenstore.transport(DomId::DOM0);
    let connection = transport.connection();
    transport.send(&wire(&watch("/a"))).unwrap();
    drop(transport);
    assert!(!xenstore.with(|server| server.is_open(connection)));
    assert_eq!(xenstore.apply(write("/a")), Reply::Ok);
    assert_eq!(xenstore.apply(Request::Read(path("/b"))), Reply::Error(Errno::ENOENT));
}

#[test]
fn many_threads_can_change_different_children_in_transactions_without_a_conflict() {
    let xenstore = Embedded::default();
    xenstore.apply(write("/dir"));
    let workers: Vec<_> = (0..4)
        .map(|worker| {
            let mut transport = xenstore.transport(DomId::DOM0);
            thread::spawn(move || {
                let mut ask = |request: &Request, tx| {
                    let mut octets = Vec::new();
                    request.encode(RequestId(1), tx, limits::PAYLOAD_MAX, &mut octets).unwrap();
                    transport.send(&octets).unwrap();
                    receive_some(&mut transport)[16..].to_vec()
                };
                for round in 0..100 {
                    let number = ask(&Request::TransactionStart, TxId::NONE);
                    let tx = TxId::from_octets(&number[..number.len() - 1]).unwrap();
                    for key in ["backend", "state", "protocol"] {
                        assert_eq!(
                            ask(&write(&format!("/dir/{worker}-{round}/{key}")), tx),
                            b"OK\0"
                        );
                    }
                    assert_eq!(ask(&Request::TransactionEnd { commit: true }, tx), b"OK\0");
                }
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert_eq!(xenstore.snapshot().children(&path("/dir")).unwrap().len(), 400);
}
