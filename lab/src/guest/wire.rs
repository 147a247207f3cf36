//! Requests that no client would make, octet by octet. The kernel takes what has a whole header and the length it says.

use std::fs::File;
use std::io::{Read, Write};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Answer, XENBUS};

/// Of a message: type, request, transaction and length of the payload, each of four octets.
pub(super) const HEADER: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);
/// What the messages of [`ask`] are known by.
const REQUEST: u32 = 0x1ab;

/// A header, by the numbers in it.
pub(super) fn header(kind: u32, transaction: u32, length: u32) -> [u8; HEADER] {
    let mut octets = [0; HEADER];
    for (at, number) in octets.chunks_exact_mut(4).zip([kind, REQUEST, transaction, length]) {
        at.copy_from_slice(&number.to_ne_bytes());
    }
    octets
}

/// Sends a request of any type, with its payload in hexadecimal, and tells the answer's type and payload in printable
/// characters, others as `\xNN`.
pub(super) fn ask(kind: u32, payload: &str) -> Answer {
    let payload = octets(payload)?;
    let mut device = File::options().read(true).write(true).open(XENBUS)?;
    let length = u32::try_from(payload.len())?;
    device.write_all(&[&header(kind, 0, length)[..], &payload].concat())?;
    let mut head = [0; HEADER];
    read(&mut device, &mut head)?;
    let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    // A reply's payload has at most 4096 octets; what says more is not waited for.
    let mut answer = vec![0; usize::try_from(word(12))?.min(4096)];
    read(&mut device, &mut answer)?;
    Ok(format!("{} {}", word(0), answer.escape_ascii()))
}

/// Reads what fills the buffer. The device may never have it.
fn read(device: &mut File, mut to: &mut [u8]) -> Result<(), Box<dyn std::error::Error>> {
    let patience = Timespec::try_from(PATIENCE)?;
    while !to.is_empty() {
        if poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&patience))? == 0 {
            return Err(format!("no answer within {PATIENCE:?}").into());
        }
        match device.read(to)? {
            0 => return Err("the device has ended".into()),
            octets => to = &mut to[octets..],
        }
    }
    Ok(())
}

/// From hexadecimal digits, two an octet.
pub(super) fn octets(digits: &str) -> Result<Vec<u8>, String> {
    let error = || format!("{digits} are no octets in hexadecimal");
    let pairs = digits.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let pair = str::from_utf8(pair).ok().filter(|pair| pair.len() == 2);
            u8::from_str_radix(pair.ok_or_else(error)?, 16).map_err(|_| error())
        })
        .collect()
}

/// Two digits an octet.
pub(super) fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_survive_their_digits() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(octets(&hexadecimal(&all)).unwrap(), all);
        for broken in ["0", "0g", "é0"] {
            assert!(octets(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_header_has_its_length_last() {
        let header = header(11, 0, 1_000_000);
        assert_eq!(header[0..4], 11_u32.to_ne_bytes());
        assert_eq!(header[12..16], 1_000_000_u32.to_ne_bytes());
    }
}
