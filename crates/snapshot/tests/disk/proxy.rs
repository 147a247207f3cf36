//! Between a client and a QMP socket: loses connections, and puts the `abort` action into transactions.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::{Value, json};

/// What happens to the first transaction that passes by, or to the second node that is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// QEMU's own action that fails is put in, as the action with this index.
    Abort(usize),
    /// The connection is lost before QEMU has got it.
    LoseRequest,
    /// The connection is lost when QEMU has opened a second node.
    LoseOpened,
    /// The connection is lost when QEMU has answered.
    LoseAnswer,
    /// As that, and nobody can connect any more.
    LoseAnswerForGood,
}

/// A socket that forwards to a QMP socket. Its threads end when their connections do.
pub(crate) struct Proxy {
    pub(crate) socket: PathBuf,
}

impl Proxy {
    pub(crate) fn start(qmp: &Path, fault: Fault) -> Self {
        let socket = qmp.with_file_name("proxy");
        let listener = UnixListener::bind(&socket).unwrap();
        let (qmp, own) = (qmp.to_owned(), socket.clone());
        let (mut transactions, mut opened) = (0, 0);
        thread::spawn(move || {
            for client in listener.incoming() {
                // One client after another, as QEMU itself does it.
                forward(&client.unwrap(), &qmp, fault, &mut transactions, &mut opened);
                if fault == Fault::LoseAnswerForGood && transactions > 0 {
                    let _ = std::fs::remove_file(own);
                    return;
                }
            }
        });
        Self { socket }
    }
}

fn forward(
    client: &UnixStream,
    qmp: &Path,
    fault: Fault,
    transactions: &mut u32,
    opened: &mut u32,
) {
    let Ok(mut server) = UnixStream::connect(qmp) else { return };
    let (mut from_server, mut to_client) =
        (server.try_clone().unwrap(), client.try_clone().unwrap());
    let mut answers = BufReader::new(server.try_clone().unwrap());
    let mut answer = || {
        let mut line = String::new();
        answers.read_line(&mut line).map(|_| line)
    };
    let Ok(greeting) = answer() else { return };
    let _ = to_client.write_all(greeting.as_bytes());
    for line in BufReader::new(client).lines() {
        let Ok(line) = line else { break };
        let mut command: Value = serde_json::from_str(&line).unwrap();
        let mut lose = false;
        let is_transaction = command["execute"] == "transaction";
        *transactions += u32::from(is_transaction);
        if is_transaction && *transactions == 1 {
            match fault {
                Fault::Abort(at) => {
                    let actions = command["arguments"]["actions"].as_array_mut().unwrap();
                    actions.insert(at, json!({ "type": "abort", "data": {} }));
                }
                Fault::LoseRequest => break,
                Fault::LoseOpened => {}
                Fault::LoseAnswer | Fault::LoseAnswerForGood => lose = true,
            }
        }
        if command["execute"] == "blockdev-add" {
            *opened += 1;
            lose |= fault == Fault::LoseOpened && *opened == 2;
        }
        if writeln!(server, "{command}").is_err() {
            break;
        }
        let id = command["id"].clone();
        // Events go along with the answer.
        loop {
            let Ok(line) = answer() else { return };
            let is_answer = serde_json::from_str::<Value>(&line).map_or(true, |it| it["id"] == id);
            if !lose {
                let _ = to_client.write_all(line.as_bytes());
            }
            if is_answer {
                break;
            }
        }
        if lose {
            break;
        }
    }
    let _ = client.shutdown(std::net::Shutdown::Both);
    let _ = server.shutdown(std::net::Shutdown::Write);
    let _ = from_server.read_to_end(&mut Vec::new());
}
