//! The stream of a real PV guest, beside ours.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use super::content::Page;
use super::memory::GuestMemory;
use super::spec::GuestSpec;
use super::stream::{self, Sink};

/// Octets before the stream in the captured file: xl's header and the configuration.
const XL_HEADER: u64 = 1090;

/// What `xl save` wrote, unpacked; `None`, with a note, where the capture or zstd is absent.
fn captured(test: &str) -> Option<impl Read> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/pv1.save.zst");
    if !path.exists() {
        println!("skipped: {test}: {} is absent", path.display());
        return None;
    }
    let mut unpack = Command::new("zstd");
    match unpack.arg("-dc").arg(&path).stdout(Stdio::piped()).spawn() {
        Ok(child) => {
            let mut unpacked = child.stdout.unwrap();
            let skipped = io::copy(&mut (&mut unpacked).take(XL_HEADER), &mut io::sink());
            assert_eq!(skipped.unwrap(), XL_HEADER);
            Some(io::BufReader::with_capacity(1 << 20, unpacked))
        }
        Err(error) => {
            println!("skipped: {test}: zstd: {error}");
            None
        }
    }
}

#[derive(Default)]
struct Counts {
    claimed: u64,
    pages: u64,
    absent: u64,
    zero: u64,
    ascending: bool,
    last: Option<u64>,
    vcpus: Vec<(u32, usize)>,
}

impl Sink for Counts {
    fn pages(&mut self, pages: u64) -> io::Result<bool> {
        (self.claimed, self.ascending) = (pages, true);
        Ok(true)
    }

    fn page(&mut self, pfn: u64, _type: u8, page: Option<&Page>) -> io::Result<()> {
        self.ascending &= self.last.is_none_or(|last| pfn == last + 1);
        self.last = Some(pfn);
        self.pages += u64::from(page.is_some());
        self.absent += u64::from(page.is_none());
        self.zero += u64::from(page.is_some_and(|page| page.iter().all(|octet| *octet == 0)));
        Ok(())
    }

    fn vcpu(&mut self, number: u32, context: Vec<u8>) -> io::Result<()> {
        self.vcpus.push((number, context.len()));
        Ok(())
    }
}

/// The headers, and the types of all records, a run of PAGE_DATA as one; its first record's count.
fn outline(input: &mut dyn Read) -> (Vec<u8>, Vec<u32>, u32) {
    let mut headers = vec![0; 16 + 8 + 24 + 16];
    input.read_exact(&mut headers).unwrap();
    let (mut types, mut batch) = (Vec::new(), 0);
    loop {
        let mut record = [0; 8];
        input.read_exact(&mut record).unwrap();
        let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
        let (kind, length) = (word(0), u64::from(word(4)));
        if types.last() != Some(&kind) {
            types.push(kind);
        }
        let mut body = Vec::new();
        (&mut *input).take(length.next_multiple_of(8)).read_to_end(&mut body).unwrap();
        if kind == 1 && batch == 0 {
            batch = u32::from_le_bytes(body[..4].try_into().unwrap());
        }
        if kind == 0 {
            return (headers, types, batch);
        }
    }
}

#[test]
fn a_real_pv_guest_s_stream_is_read_to_its_end() {
    let Some(mut real) = captured("a_real_pv_guest_s_stream_is_read_to_its_end") else { return };
    let mut counts = Counts::default();
    stream::read(&mut real, &mut counts).unwrap();
    // 144 MiB, of 256 that it may have.
    assert_eq!((counts.claimed, counts.ascending), (65536, true));
    assert_eq!((counts.pages, counts.absent), (36864, 28672));
    assert!(counts.zero > 16000, "{} zero pages", counts.zero);
    assert_eq!(counts.vcpus, [(0, super::content::VCPU_SIZE)]);
    assert_eq!(real.read(&mut [0]).unwrap(), 0, "something is behind the END");
}

#[test]
fn ours_has_the_headers_and_the_order_of_records_of_a_real_one() {
    let name = "ours_has_the_headers_and_the_order_of_records_of_a_real_one";
    let directory = tempfile::tempdir().unwrap();
    let spec = GuestSpec::new(1, 2000);
    let memory = GuestMemory::populated(directory.path(), &spec, 0).unwrap();
    let mut ours = Vec::new();
    stream::write(&mut ours, &spec, &memory, &|| 0).unwrap();
    let Some(mut real) = captured(name) else { return };
    let (ours, real) = (outline(&mut &ours[..]), outline(&mut real));
    assert_eq!(ours, real);
}
