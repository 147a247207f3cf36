//! Beside the stock C xenstored of Xen 4.17: its own test runs against us, and the two answer alike.
#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what it is built of as well"
)]

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path as FsPath;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use stock_xenstore::{Client, Kind, Packages, StockDaemon};
use xenstore_proto::{Decoded, Decoder, Message, MessageType, RequestId, TxId, limits};
use xenstored::Embedded;

fn packages(test: &str) -> Option<&'static Packages> {
    Packages::of_workspace().inspect_err(|reason| println!("skipped: {test}: {reason}")).ok()
}

#[test]
fn the_stock_tools_work_and_upstreams_own_test_passes() {
    let Some(packages) = packages("the_stock_tools_work_and_upstreams_own_test_passes") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let xenstore = Embedded::default();
    let server = xenstore.serve_unix(dir.path().join("socket")).unwrap();
    let run = |client, arguments: &[&str]| {
        let output = packages.client(client, server.path()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{client:?} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(Client::Write, &["/a/b", "value"]);
    run(Client::Chmod, &["/a/b", "n7", "r9"]);
    assert_eq!(run(Client::Ls, &["-fp"]), xenstore.snapshot().to_text());
    assert_eq!(run(Client::Watch, &["-n", "1", "/a"]), "/a\n");
    let printed = run(Client::Test, &[]);
    for measured in ["read 2000", "write 2000", "dir", "rm dir", "ta empty", "ta rmw", "ta err"] {
        assert!(printed.contains(measured), "{measured} is not in:\n{printed}");
    }
}

#[test]
fn both_answer_alike() {
    let Some(packages) = packages("both_answer_alike") else { return };
    let stock = StockDaemon::start(Kind::C, packages).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let xenstore = Embedded::default();
    let server = xenstore.serve_unix(dir.path().join("socket")).unwrap();
    let mut runner =
        TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(500) });
    let steps = proptest::collection::vec(any_step(), 1..60);
    // XSA-484: an assertion fails on RESET_WATCHES inside a transaction.
    let dies_of_it = ["4.17.1", "4.17.2", "4.17.3", "4.17.4", "4.17.5", "4.17.6"]
        .iter()
        .any(|version| packages.version().starts_with(version));
    let checked = runner.run(&steps, |steps| {
        let (mut theirs, mut ours) = (Asker::new(stock.socket()), Asker::new(server.path()));
        for (ty, payload, in_transaction) in &steps {
            if *ty == MessageType::RESET_WATCHES && theirs.tx != TxId::NONE && dies_of_it {
                continue;
            }
            let mut expected = theirs.ask(*ty, payload, *in_transaction);
            let got = ours.ask(*ty, payload, *in_transaction);
            if *ty == MessageType::TRANSACTION_END {
                // In a transaction, the stock daemon also tells of nodes created on the way to others.
                expected.2.retain(|event| got.2.contains(event) || !is_above_one_of(event, &got.2));
            }
            prop_assert_eq!(got, expected, "{} {}", ty, payload.escape_ascii());
        }
        for asker in [&mut theirs, &mut ours] {
            asker.clean();
        }
        Ok(())
    });
    if let Err(difference) = checked {
        panic!("{difference}\nthe stock daemon printed: {}", stock.log());
    }
}

/// A client that asks one thing after the other.
struct Asker {
    stream: UnixStream,
    asked: u32,
    /// The open transaction.
    tx: TxId,
}

/// A reply and the events that came with it, in whatever order.
type Answer = (MessageType, Vec<u8>, BTreeSet<Vec<u8>>);

impl Asker {
    fn new(socket: &FsPath) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, asked: 0, tx: TxId::NONE }
    }

    fn ask(&mut self, ty: MessageType, payload: &[u8], in_transaction: bool) -> Answer {
        // While a transaction is open, nothing is changed outside it: what conflicts is not the same for both.
        let outside =
            matches!(ty, MessageType::TRANSACTION_START) || (!in_transaction && is_read(ty));
        let tx = if outside { TxId::NONE } else { self.tx };
        if ty == MessageType::TRANSACTION_START && self.tx != TxId::NONE {
            return self.answer(ty, payload, self.tx);
        }
        let answer = self.answer(ty, payload, tx);
        match ty {
            MessageType::TRANSACTION_START => {
                self.tx = TxId::from_octets(&answer.1[..answer.1.len() - 1]).unwrap();
            }
            MessageType::TRANSACTION_END | MessageType::RESET_WATCHES if answer.0 == ty => {
                self.tx = TxId::NONE
            }
            _ => {}
        }
        answer
    }

    fn answer(&mut self, ty: MessageType, payload: &[u8], tx: TxId) -> Answer {
        let mut events = BTreeSet::new();
        let reply = self.exchange(ty, payload, tx, &mut events);
        // The first event of a watch comes after the reply: one more exchange has it in.
        self.exchange(MessageType::GET_DOMAIN_PATH, b"1\0", TxId::NONE, &mut events);
        (reply.ty, reply.payload, events)
    }

    fn exchange(
        &mut self,
        ty: MessageType,
        payload: &[u8],
        tx_id: TxId,
        events: &mut BTreeSet<Vec<u8>>,
    ) -> Message {
        self.asked += 1;
        let message =
            Message { ty, request_id: RequestId(self.asked), tx_id, payload: payload.to_vec() };
        let mut octets = Vec::new();
        message.encode(limits::PAYLOAD_MAX, &mut octets).unwrap();
        self.stream.write_all(&octets).unwrap();
        loop {
            let message = self.next();
            if message.ty == MessageType::WATCH_EVENT {
                events.insert(message.payload);
            } else {
                assert_eq!((message.request_id, message.tx_id), (RequestId(self.asked), tx_id));
                return message;
            }
        }
    }

    fn next(&mut self) -> Message {
        let mut decoder = Decoder::new(limits::PAYLOAD_MAX);
        loop {
            match decoder.decode().unwrap() {
                Decoded::Message(message) => return message,
                Decoded::Need(more) => {
                    let mut octets = vec![0; more];
                    self.stream.read_exact(&mut octets).unwrap();
                    decoder.push(&octets);
                }
            }
        }
    }

    fn clean(&mut self) {
        if self.tx != TxId::NONE {
            self.ask(MessageType::TRANSACTION_END, b"F\0", true);
        }
        self.ask(MessageType::RESET_WATCHES, b"\0", false);
        self.ask(MessageType::RM, b"/t\0", false);
        for domid in ["5", "6"] {
            self.ask(MessageType::RELEASE, format!("{domid}\0").as_bytes(), false);
        }
    }
}

/// Whether one of the events is of a node below this one's, by the same watch.
fn is_above_one_of(event: &[u8], others: &BTreeSet<Vec<u8>>) -> bool {
    let nul = event.iter().position(|&c| c == 0).unwrap();
    let (path, token) = event.split_at(nul);
    others.iter().any(|other| other.starts_with(&[path, b"/"].concat()) && other.ends_with(token))
}

fn is_read(ty: MessageType) -> bool {
    matches!(ty, MessageType::READ | MessageType::DIRECTORY | MessageType::GET_PERMS)
}

/// A request, and whether a read is made in the open transaction.
fn any_step() -> impl Strategy<Value = (MessageType, Vec<u8>, bool)> {
    let path = || prop_oneof![20 => "/t(/[abc]){0,3}", 1 => Just("/t/".into()), 1 => Just("/t//a".into()), 1 => Just("/t/a.b".into())];
    let one = |ty: MessageType| path().prop_map(move |path| (ty, format!("{path}\0")));
    let perms = "[nrwb][0-3](\0[nrwb][0-3]){0,2}";
    let token = || "[xy]";
    let domid = || prop_oneof![4 => Just("5".to_owned()), 4 => Just("6".into())];
    let of_domain = |ty: MessageType, domid: BoxedStrategy<String>| {
        domid.prop_map(move |domid| (ty, format!("{domid}\0")))
    };
    let request = prop_oneof![
        4 => one(MessageType::READ),
        4 => one(MessageType::DIRECTORY),
        3 => one(MessageType::GET_PERMS),
        3 => one(MessageType::MKDIR),
        4 => one(MessageType::RM),
        8 => (path(), "[a-z]{0,3}").prop_map(|(path, value)| (MessageType::WRITE, format!("{path}\0{value}"))),
        3 => (path(), perms).prop_map(|(path, perms)| (MessageType::SET_PERMS, format!("{path}\0{perms}\0"))),
        3 => (path(), token()).prop_map(|(path, token)| (MessageType::WATCH, format!("{path}\0{token}\0"))),
        2 => ("/t(/[abc]){0,3}", token()).prop_map(|(path, token)| (MessageType::UNWATCH, format!("{path}\0{token}\0"))),
        1 => Just((MessageType::RESET_WATCHES, "\0".to_owned())),
        2 => Just((MessageType::TRANSACTION_START, "\0".to_owned())),
        3 => "[TTTFX]".prop_map(|end| (MessageType::TRANSACTION_END, format!("{end}\0"))),
        1 => domid().prop_map(|domid| (MessageType::INTRODUCE, format!("{domid}\01\05\0"))),
        1 => of_domain(MessageType::RELEASE, domid().boxed()),
        1 => of_domain(MessageType::RESUME, domid().boxed()),
        1 => of_domain(MessageType::IS_DOMAIN_INTRODUCED, domid().boxed()),
        1 => of_domain(MessageType::GET_DOMAIN_PATH, domid().boxed()),
        1 => Just((MessageType::WATCH, "@introduceDomain\0s\0".to_owned())),
        1 => Just((MessageType::WATCH, "@releaseDomain\0s\0".to_owned())),
        1 => (27_u32..40, "[/t\0]{0,4}").prop_map(|(ty, payload)| (MessageType(ty), payload)),
    ];
    (request, any::<bool>()).prop_map(|((ty, payload), inside)| (ty, payload.into_bytes(), inside))
}
