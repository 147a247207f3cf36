//! The stream of a simulated domain: a libxl stream version 2 with a PV image, as libxl writes it.
//!
//! Only what a simulated domain needs, in the order that libxl and libxc write: header; LIBXC_CONTEXT; the image of version 3
//! with X86_PV_INFO, CPUID and MSR policy, STATIC_DATA_END, X86_PV_P2M_FRAMES, all pages ascending in batches of 1024 with
//! zero pages among them, TSC, shared info, virtual CPUs, END; and END. Specified in Xen's `docs/specs/libxl-migration-stream`
//! and `libxc-migration-stream`.

use std::io::{self, Read, Write};

use super::content::{self, PAGE_SIZE, Page};
use super::memory::GuestMemory;
use super::spec::{GuestSpec, PAGES_MAX, VCPUS_MAX};

/// Pages in one PAGE_DATA record, as libxc writes them.
const BATCH: u64 = 1024;

/// libxc's limit on a record of the image.
const BODY_MAX: u32 = 128 << 20;

const LIBXL_MAGIC: &[u8; 8] = b"LibxlFmt";
const LIBXL_VERSION: u32 = 2;
const LIBXL_END: u32 = 0;
const LIBXL_LIBXC_CONTEXT: u32 = 1;

const IMAGE_MARKER: u64 = u64::MAX;
const IMAGE_ID: &[u8; 4] = b"XENF";
const IMAGE_VERSION: u32 = 3;
const DOMAIN_PV: u32 = 1;
const PAGE_SHIFT: u16 = 12;
const XEN_VERSION: (u32, u32) = (4, 17);

const END: u32 = 0x0;
const PAGE_DATA: u32 = 0x1;
const X86_PV_INFO: u32 = 0x2;
const X86_PV_P2M_FRAMES: u32 = 0x3;
const X86_PV_VCPU_BASIC: u32 = 0x4;
const X86_PV_VCPU_EXTENDED: u32 = 0x5;
const X86_PV_VCPU_XSAVE: u32 = 0x6;
const SHARED_INFO: u32 = 0x7;
const X86_TSC_INFO: u32 = 0x8;
const STATIC_DATA_END: u32 = 0x10;
const X86_CPUID_POLICY: u32 = 0x11;
const X86_MSR_POLICY: u32 = 0x12;
/// Unknown records with this bit may be skipped.
const OPTIONAL: u32 = 1 << 31;

/// Page types from this one on are of pages without data: broken, or not there.
const TYPE_WITHOUT_DATA: u8 = 0xd;
const PFN_MASK: u64 = (1 << 52) - 1;

/// Why a stream was not read to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// It ends too early.
    #[error("the stream ends in the midst of {within}")]
    Truncated {
        /// What was being read.
        within: &'static str,
    },
    /// It is no libxl stream, or of another kind than simulated domains write.
    #[error("the stream's {within} is not that of a simulated domain: {problem}")]
    Unexpected {
        /// What was being read.
        within: &'static str,
        /// What is wrong.
        problem: &'static str,
    },
    /// It could not be read.
    #[error("the stream cannot be read")]
    Read {
        /// Why.
        source: io::Error,
    },
    /// What it holds could not be kept.
    #[error("what the stream holds cannot be kept")]
    Keep {
        /// Why.
        source: io::Error,
    },
}

/// Where what a stream holds goes.
pub(crate) trait Sink {
    /// The domain has that many pages. Before any other call. An answer of `false` ends the reading.
    fn pages(&mut self, pages: u64) -> io::Result<bool>;
    /// One page. Without data: `None`.
    fn page(&mut self, pfn: u64, page_type: u8, page: Option<&Page>) -> io::Result<()>;
    /// The context of a virtual CPU.
    fn vcpu(&mut self, number: u32, context: Vec<u8>) -> io::Result<()>;
}

/// Writes a domain's stream. `tick` is asked for when the virtual CPUs' turn has come.
pub(crate) fn write(
    out: &mut dyn Write,
    spec: &GuestSpec,
    memory: &GuestMemory,
    tick: &dyn Fn() -> u64,
) -> io::Result<()> {
    out.write_all(LIBXL_MAGIC)?;
    out.write_all(&LIBXL_VERSION.to_be_bytes())?;
    out.write_all(&0_u32.to_be_bytes())?;
    record(out, LIBXL_LIBXC_CONTEXT, &[])?;

    out.write_all(&IMAGE_MARKER.to_be_bytes())?;
    out.write_all(IMAGE_ID)?;
    out.write_all(&IMAGE_VERSION.to_be_bytes())?;
    out.write_all(&[0; 8])?;
    let shift = u32::from(PAGE_SHIFT).to_le_bytes();
    let (major, minor) = XEN_VERSION;
    out.write_all(&fields(&[DOMAIN_PV, u32::from_le_bytes(shift), major, minor]))?;

    record(out, X86_PV_INFO, &[8, 4, 0, 0, 0, 0, 0, 0])?;
    record(
        out,
        X86_CPUID_POLICY,
        &fields(&[0, u32::MAX, 0xd, 0x756e_6547, 0x6c65_746e, 0x4965_6e69]),
    )?;
    record(out, X86_MSR_POLICY, &fields(&[0xce, 0, 0, 0]))?;
    record(out, STATIC_DATA_END, &[])?;
    record(out, X86_PV_P2M_FRAMES, &p2m_frames(spec))?;
    let mut pfn = 0;
    while pfn < spec.pages_max() {
        let next = spec.pages_max().min(pfn + BATCH);
        page_data(out, spec, memory, pfn..next)?;
        pfn = next;
    }
    record(out, X86_TSC_INFO, &fields(&[0, 2_000_000, 0, 0, 0, 0]))?;
    record(out, SHARED_INFO, &[0; PAGE_SIZE])?;
    let tick = tick();
    for number in 0..spec.vcpus {
        let context = content::vcpu(spec, number, tick);
        record(out, X86_PV_VCPU_BASIC, &[fields(&[number, 0]), context].concat())?;
        record(out, X86_PV_VCPU_EXTENDED, &[fields(&[number, 0]), vec![0; 128]].concat())?;
        record(out, X86_PV_VCPU_XSAVE, &fields(&[number, 0]))?;
    }
    record(out, END, &[])?;
    record(out, LIBXL_END, &[])?;
    out.flush()
}

fn record(out: &mut dyn Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    out.write_all(&fields(&[kind, length]))?;
    out.write_all(body)?;
    out.write_all(&[0; 7][..padding(length)])
}

fn page_data(
    out: &mut dyn Write,
    spec: &GuestSpec,
    memory: &GuestMemory,
    pfns: std::ops::Range<u64>,
) -> io::Result<()> {
    let count = u32::try_from(pfns.end - pfns.start).map_err(io::Error::other)?;
    let mut body = fields(&[count, 0]);
    for pfn in pfns.clone() {
        let tagged = u64::from(content::page_type(spec, pfn)) << 60 | pfn;
        body.extend(tagged.to_le_bytes());
    }
    // Those that are not there come last, and have no data.
    let with_data = spec.pages.clamp(pfns.start, pfns.end) - pfns.start;
    let data = body.len();
    body.resize(data + usize::try_from(with_data).map_err(io::Error::other)? * PAGE_SIZE, 0);
    memory.read_run(pfns.start, &mut body[data..])?;
    record(out, PAGE_DATA, &body)
}

fn p2m_frames(spec: &GuestSpec) -> Vec<u8> {
    // Both fit: there are at most PAGES_MAX pages.
    let last = u32::try_from(spec.pages_max() - 1).unwrap_or(u32::MAX);
    let mut body = fields(&[0, last]);
    let frames = content::HEAD_PAGES..spec.working_first();
    body.extend(frames.flat_map(u64::to_le_bytes));
    body
}

fn fields(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn padding(length: u32) -> usize {
    (length.wrapping_neg() % 8) as usize
}

/// Reads a stream up to its END record, and not an octet further. Each page must have been there at least once.
pub(crate) fn read(input: &mut dyn Read, sink: &mut dyn Sink) -> Result<(), StreamError> {
    let mut reader = Reader { input, within: "header" };
    let header: [u8; 16] = reader.array()?;
    let version_and_options = [LIBXL_VERSION.to_be_bytes(), [0; 4]].concat();
    reader.expect(header[..8] == *LIBXL_MAGIC, "no libxl stream")?;
    reader.expect(header[8..] == *version_and_options, "another version, or options")?;
    reader.empty_record("LIBXC_CONTEXT", LIBXL_LIBXC_CONTEXT)?;
    reader.image(sink)?;
    reader.empty_record("END of the stream", LIBXL_END)
}

struct Reader<'r> {
    input: &'r mut dyn Read,
    within: &'static str,
}

impl Reader<'_> {
    fn image(&mut self, sink: &mut dyn Sink) -> Result<(), StreamError> {
        self.within = "image header";
        let header: [u8; 24] = self.array()?;
        self.expect(header[..8] == IMAGE_MARKER.to_be_bytes(), "no marker")?;
        self.expect(header[8..12] == *IMAGE_ID, "no image")?;
        self.expect(header[12..16] == IMAGE_VERSION.to_be_bytes(), "another version")?;
        self.expect(header[16..18] == [0; 2], "options")?;
        self.within = "domain header";
        let [kind, shift, ..] = self.words::<4>()?;
        self.expect(kind == DOMAIN_PV, "no PV domain")?;
        self.expect(shift & 0xffff == u32::from(PAGE_SHIFT), "another page size")?;

        let mut missing: Option<Missing> = None;
        let mut static_data = false;
        let mut vcpus = 0;
        loop {
            self.within = "record header";
            let [kind, length] = self.words()?;
            self.expect(length <= BODY_MAX, "a record longer than any may be")?;
            match kind {
                END => break self.expect(length == 0, "an END with a body")?,
                STATIC_DATA_END => static_data = true,
                X86_PV_P2M_FRAMES => {
                    self.within = "X86_PV_P2M_FRAMES";
                    self.expect(static_data && missing.is_none(), "it is out of order")?;
                    let pages = self.p2m_frames(length)?;
                    let goes = sink.pages(pages).map_err(|source| StreamError::Keep { source })?;
                    self.expect(goes, "another number of pages than the configuration has")?;
                    missing = Some(Missing::new(pages));
                    continue;
                }
                PAGE_DATA => {
                    self.within = "PAGE_DATA";
                    let Some(missing) = &mut missing else {
                        return Err(self.unexpected("it is out of order"));
                    };
                    self.page_data(length, missing, sink)?;
                    continue;
                }
                X86_PV_VCPU_BASIC => {
                    self.within = "X86_PV_VCPU_BASIC";
                    self.expect(length >= 8, "it is too short")?;
                    self.expect(vcpus < VCPUS_MAX, "there are too many")?;
                    let [number, _] = self.words()?;
                    let mut context = self.body(length - 8)?;
                    context.truncate(length as usize - 8);
                    sink.vcpu(number, context).map_err(|source| StreamError::Keep { source })?;
                    vcpus += 1;
                    continue;
                }
                X86_PV_INFO | X86_PV_VCPU_EXTENDED | X86_PV_VCPU_XSAVE | SHARED_INFO
                | X86_TSC_INFO | X86_CPUID_POLICY | X86_MSR_POLICY => {}
                _ => self.expect(kind & OPTIONAL != 0, "an unknown record that is not optional")?,
            }
            self.within = "record body";
            self.skip(u64::from(length) + padding(length) as u64)?;
        }
        self.within = "END of the image";
        self.expect(vcpus > 0, "no virtual CPU came before it")?;
        self.expect(
            missing.is_some_and(|missing| missing.left == 0),
            "not all pages came before it",
        )
    }

    fn p2m_frames(&mut self, length: u32) -> Result<u64, StreamError> {
        self.expect(length >= 8, "it is too short")?;
        let [first, last] = self.words()?;
        let pages = u64::from(last) + 1;
        self.expect(first == 0 && pages <= PAGES_MAX, "pages beyond what there can be")?;
        let frames = pages.div_ceil(content::P2M_ENTRIES);
        self.expect(u64::from(length) == 8 + frames * 8, "its length is not that of its range")?;
        self.skip(frames * 8)?;
        Ok(pages)
    }

    fn page_data(
        &mut self,
        length: u32,
        missing: &mut Missing,
        sink: &mut dyn Sink,
    ) -> Result<(), StreamError> {
        self.expect(length >= 8, "it is too short")?;
        let [count, _] = self.words()?;
        self.expect(u64::from(count) <= u64::from(length) / 8, "more pages than it has room for")?;
        let mut tagged = Vec::new();
        for _ in 0..count {
            tagged.push(u64::from_le_bytes(self.array()?));
        }
        let with_data = |tagged: &&u64| (**tagged >> 60) as u8 & 0xf < TYPE_WITHOUT_DATA;
        let pages = tagged.iter().filter(with_data).count() as u64;
        let expected = 8 + u64::from(count) * 8 + pages * PAGE_SIZE as u64;
        self.expect(u64::from(length) == expected, "its length is not that of its pages")?;
        for tagged in &tagged {
            let pfn = tagged & PFN_MASK;
            self.expect(missing.take(pfn), "a page beyond the domain's")?;
            let page = if with_data(&tagged) { Some(self.array()?) } else { None };
            sink.page(pfn, (tagged >> 60) as u8, page.as_ref())
                .map_err(|source| StreamError::Keep { source })?;
        }
        Ok(())
    }

    fn empty_record(&mut self, within: &'static str, kind: u32) -> Result<(), StreamError> {
        self.within = within;
        let found = self.words()?;
        self.expect(found == [kind, 0], "another record")
    }

    fn expect(&self, holds: bool, problem: &'static str) -> Result<(), StreamError> {
        if holds { Ok(()) } else { Err(self.unexpected(problem)) }
    }

    fn unexpected(&self, problem: &'static str) -> StreamError {
        StreamError::Unexpected { within: self.within, problem }
    }

    fn failed(&self, source: io::Error) -> StreamError {
        match source.kind() {
            io::ErrorKind::UnexpectedEof => StreamError::Truncated { within: self.within },
            _ => StreamError::Read { source },
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        let mut octets = [0; N];
        self.input.read_exact(&mut octets).map_err(|source| self.failed(source))?;
        Ok(octets)
    }

    fn words<const N: usize>(&mut self) -> Result<[u32; N], StreamError> {
        let mut words = [0; N];
        for word in &mut words {
            *word = u32::from_le_bytes(self.array()?);
        }
        Ok(words)
    }

    /// A body with its padding. Memory grows with what comes, not with what is claimed.
    fn body(&mut self, length: u32) -> Result<Vec<u8>, StreamError> {
        let wanted = u64::from(length) + padding(length) as u64;
        let mut body = Vec::new();
        let read = (&mut *self.input).take(wanted).read_to_end(&mut body);
        read.map_err(|source| self.failed(source))?;
        if body.len() as u64 == wanted {
            Ok(body)
        } else {
            Err(StreamError::Truncated { within: self.within })
        }
    }

    fn skip(&mut self, octets: u64) -> Result<(), StreamError> {
        let skipped = io::copy(&mut (&mut *self.input).take(octets), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == octets => Ok(()),
            Ok(_) => Err(StreamError::Truncated { within: self.within }),
            Err(source) => Err(self.failed(source)),
        }
    }
}

/// Which pages have not come yet: one bit each, as many as [`PAGES_MAX`] allows; the list of frames has an eighth of that.
struct Missing {
    seen: Vec<u64>,
    pages: u64,
    left: u64,
}

impl Missing {
    fn new(pages: u64) -> Self {
        // At most PAGES_MAX / 64.
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or_default();
        Self { seen: vec![0; words], pages, left: pages }
    }

    /// Whether there is such a page.
    fn take(&mut self, pfn: u64) -> bool {
        if pfn >= self.pages {
            return false;
        }
        let bit = 1 << (pfn % 64);
        if let Some(word) = self.seen.get_mut((pfn / 64) as usize)
            && *word & bit == 0
        {
            *word |= bit;
            self.left -= 1;
        }
        true
    }
}
