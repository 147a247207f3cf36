//! The ring that the guest shares with Xenstore, written past the kernel's own use of it.
//!
//! The page's layout is in Xen's public header `io/xs_wire.h`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use rustix::system::init_module;

use super::wire::{HEADER, header, hexadecimal, octets};
use super::{Answer, RING_MODULE};

const DEVICE: &str = "/dev/lab-ring";
const PAGE: u64 = 4096;
/// Of each of the two rings. Requests begin at 0, responses here.
const RING: u32 = 1024;
/// Where the indices are, each of four octets.
const REQUESTS_TAKEN: u64 = 2048;
const REQUESTS_MADE: u64 = 2052;
const RESPONSES_TAKEN: u64 = 2056;
const RESPONSES_MADE: u64 = 2060;
/// After them: the server's features, the state of the connection, the error.
const WORDS: u64 = 7;

const WRITE: u32 = 11;
/// For [`spoil`] with noise.
const NOISE_LASTS: Duration = Duration::from_secs(5);

/// Loads the module.
pub(super) fn load() -> Answer {
    init_module(&fs::read(RING_MODULE)?, c"")?;
    words()
}

/// What is in the page, in hexadecimal.
pub(super) fn read(offset: u64, length: u64) -> Answer {
    let mut octets = vec![0; usize::try_from(length.min(PAGE))?];
    open()?.read_exact_at(&mut octets, offset)?;
    Ok(hexadecimal(&octets))
}

/// Puts octets into the page.
pub(super) fn write(offset: u64, digits: &str) -> Answer {
    open()?.write_all_at(&octets(digits)?, offset)?;
    Ok(String::new())
}

/// Has Xenstore look at the ring.
pub(super) fn notify() -> Answer {
    Ring { page: open()? }.notify()?;
    Ok(String::new())
}

/// Spoils the ring. No answer of this guest may ever be read after it.
pub(super) fn spoil(how: &str) -> Answer {
    let ring = Ring { page: open()? };
    match how {
        // More requests than the ring has octets.
        "requests-made" => ring.set(REQUESTS_MADE, ring.get(REQUESTS_TAKEN)?.wrapping_add(5000))?,
        // A request was made before one that was taken.
        "requests-taken" => ring.set(REQUESTS_TAKEN, ring.get(REQUESTS_MADE)?.wrapping_add(1))?,
        // Responses that were never given are taken; some answer must be given for that to be seen.
        "responses-taken" => {
            ring.set(RESPONSES_TAKEN, ring.get(RESPONSES_MADE)?.wrapping_add(5000))?;
            ring.put(&header(WRITE, 0, 0))?;
        }
        "length" => ring.put(&header(WRITE, 0, 1_000_000))?,
        // The rest never comes.
        "half-header" => ring.put(&header(WRITE, 0, 10)[..HEADER / 2])?,
        "half-payload" => ring.put(&[&header(WRITE, 0, 100)[..], b"data/half"].concat())?,
        "noise" => return noise(&ring),
        _ => return Err(format!("no such way: {how}").into()),
    }
    ring.notify()?;
    words()
}

/// Everything else than messages, indices too, and events without a pause.
fn noise(ring: &Ring) -> Answer {
    let end = Instant::now() + NOISE_LASTS;
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut rounds = 0_u64;
    while Instant::now() < end {
        let mut octets = [0; 2076];
        for word in octets.chunks_mut(8) {
            // xorshift: as good as any noise, and the same each time.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_ne_bytes()[..word.len()]);
        }
        // Every other time only the requests, with indices that are in order: then they are taken.
        if rounds.is_multiple_of(2) {
            let taken = ring.get(REQUESTS_TAKEN)?;
            ring.page.write_all_at(&octets[..RING as usize], 0)?;
            ring.set(REQUESTS_MADE, taken.wrapping_add(RING))?;
        } else {
            ring.page.write_all_at(&octets, 0)?;
        }
        ring.notify()?;
        rounds += 1;
    }
    Ok(format!("{rounds} rounds, {}", words()?))
}

/// The indices and what comes after them.
fn words() -> Answer {
    let ring = Ring { page: open()? };
    let words: Result<Vec<_>, _> =
        (0..WORDS).map(|word| ring.get(REQUESTS_TAKEN + 4 * word)).collect();
    Ok(format!("{:?}", words?))
}

fn open() -> std::io::Result<File> {
    File::options().read(true).write(true).open(DEVICE)
}

struct Ring {
    page: File,
}

impl Ring {
    fn get(&self, at: u64) -> std::io::Result<u32> {
        let mut octets = [0; 4];
        self.page.read_exact_at(&mut octets, at)?;
        Ok(u32::from_ne_bytes(octets))
    }

    fn set(&self, at: u64, value: u32) -> std::io::Result<()> {
        self.page.write_all_at(&value.to_ne_bytes(), at)
    }

    /// Makes a request of any octets.
    fn put(&self, octets: &[u8]) -> std::io::Result<()> {
        let made = self.get(REQUESTS_MADE)?;
        for (count, octet) in (0_u32..).zip(octets) {
            let at = made.wrapping_add(count) % RING;
            self.page.write_all_at(&[*octet], u64::from(at))?;
        }
        let count = u32::try_from(octets.len()).map_err(std::io::Error::other)?;
        self.set(REQUESTS_MADE, made.wrapping_add(count))
    }

    fn notify(&self) -> std::io::Result<()> {
        self.page.write_all_at(b"!", PAGE)
    }
}
