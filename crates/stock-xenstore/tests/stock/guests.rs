//! Guests of the C daemon, played on their rings.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use stock_xenstore::StockDaemon;

use crate::started::packages;

const READ: u32 = 2;
const INTRODUCE: u32 = 8;
const WRITE: u32 = 11;
const SET_PERMS: u32 = 14;
const ERROR: u32 = 16;

fn ask(connection: &mut (impl Read + Write), ty: u32, payload: &[u8]) -> (u32, Vec<u8>) {
    let len = u32::try_from(payload.len()).unwrap();
    let mut message: Vec<u8> = [ty, 0, 0, len].into_iter().flat_map(u32::to_ne_bytes).collect();
    message.extend_from_slice(payload);
    connection.write_all(&message).unwrap();
    let mut header = [0; 16];
    connection.read_exact(&mut header).unwrap();
    let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
    let mut reply = vec![0; usize::try_from(word(12)).unwrap()];
    connection.read_exact(&mut reply).unwrap();
    (word(0), reply)
}

#[test]
fn a_played_guest_is_answered_as_itself_also_with_more_than_its_ring_holds() {
    const TEST: &str = "a_played_guest_is_answered_as_itself_also_with_more_than_its_ring_holds";
    let Some(packages) = packages(TEST) else { return };
    let daemon = StockDaemon::start_with_guests(packages, ["-S", "65536"]).unwrap();
    let mut dom0 = UnixStream::connect(daemon.socket()).unwrap();
    let mut guest = daemon.guest(7).unwrap();
    let introduce = format!("7\x001\x00{}\0", guest.port());
    assert_eq!(ask(&mut dom0, INTRODUCE, introduce.as_bytes()).0, INTRODUCE);
    let base = b"/local/domain/7\0";
    assert_eq!(ask(&mut dom0, WRITE, base).0, WRITE);
    assert_eq!(ask(&mut guest, WRITE, b"name\0seven"), (ERROR, b"EACCES\0".to_vec()));
    assert_eq!(ask(&mut dom0, SET_PERMS, b"/local/domain/7\0n7\0").0, SET_PERMS);
    let value = [b'v'; 3000];
    let payload = [&b"name\0"[..], &value].concat();
    assert_eq!(ask(&mut guest, WRITE, &payload).0, WRITE);
    assert_eq!(ask(&mut guest, READ, b"name\0"), (READ, value.to_vec()));
    assert_eq!(ask(&mut dom0, READ, b"/local/domain/7/name\0"), (READ, value.to_vec()));
    let missing = ask(&mut guest, READ, b"/local/domain/7/none\0");
    assert_eq!(missing, (ERROR, b"ENOENT\0".to_vec()));
}
