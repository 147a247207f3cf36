//! A QEMU that takes its time: what it was asked for it does after its client has died.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Stands before a QMP socket, and serves one client after another as QEMU does. When the first transaction is asked for,
/// `meanwhile` is called before QEMU hears of it.
pub(super) fn before(real: &Path, socket: &Path, meanwhile: impl Fn() + Send + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let real = real.to_owned();
    // It ends with the test: a thread that waits for clients is in nobody's way.
    thread::spawn(move || {
        let is_first = AtomicBool::new(true);
        for client in listener.incoming() {
            let Ok(qemu) = UnixStream::connect(&real) else { return };
            serve(&client.unwrap(), &qemu, || {
                if is_first.swap(false, Ordering::Relaxed) {
                    meanwhile();
                }
            });
        }
    });
}

fn serve(client: &UnixStream, mut qemu: &UnixStream, meanwhile: impl Fn()) {
    let (mut to_client, answers) = (client.try_clone().unwrap(), qemu.try_clone().unwrap());
    let back = thread::spawn(move || {
        for line in BufReader::new(answers).split(b'\n') {
            let Ok(line) = line else { return };
            // Nobody may hear it any more.
            let _ = to_client.write_all(&[&line[..], b"\n"].concat());
        }
    });
    for line in BufReader::new(client).split(b'\n') {
        let Ok(line) = line else { break };
        if line.windows(13).any(|part| part == b"\"transaction\"") {
            meanwhile();
        }
        qemu.write_all(&[&line[..], b"\n"].concat()).unwrap();
    }
    // QEMU answers what it has read before it hears that there is no more.
    let _ = qemu.shutdown(std::net::Shutdown::Write);
    let _ = back.join();
}
