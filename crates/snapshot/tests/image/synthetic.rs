//! Streams that are made here, and what is done with them in most tests.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::stream::{
    CheckedReader, DomainHeader, GuestType, ImageHeader, ImageVersion, LibxcRecord, LibxcType,
    LibxlHeader, LibxlRecord, LibxlType, PAGE_LEN, PageEntry, PageType, Start, StreamError,
    StreamSummary, StreamWriter, XlHeader,
};
use snapshot::image::{ImageWriteError, Limits};

/// What a page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    Zero,
    /// The same octet everywhere.
    Octet(u8),
    /// Octets without a pattern that a codec finds.
    Noise(u64),
}

impl Fill {
    pub(crate) fn page(self) -> Vec<u8> {
        match self {
            Fill::Zero => vec![0; PAGE_LEN],
            Fill::Octet(octet) => vec![octet; PAGE_LEN],
            Fill::Noise(seed) => {
                let mut state = seed | 1;
                (0..PAGE_LEN)
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        state.to_be_bytes()[0]
                    })
                    .collect()
            }
        }
    }
}

/// A saved domain to be made.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) start: Start,
    pub(crate) kind: GuestType,
    pub(crate) version: ImageVersion,
    pub(crate) configuration: Vec<u8>,
    /// The batches of pages.
    pub(crate) batches: Vec<Vec<(u64, PageType, Fill)>>,
    /// Optional records of unknown types, with the length of their bodies: each before the batch of its index, or last.
    pub(crate) unknown: Vec<usize>,
    /// What the emulator of an HVM guest has in Xenstore, with a NUL behind each text.
    pub(crate) physmap: Vec<u8>,
}

impl Guest {
    /// A guest with these pages, in one batch.
    pub(crate) fn with(kind: GuestType, pages: &[(u64, PageType, Fill)]) -> Self {
        Self {
            start: Start::Xl,
            kind,
            version: ImageVersion::V3,
            configuration: b"{\"c_info\":{}}\0".to_vec(),
            batches: vec![pages.to_vec()],
            unknown: Vec::new(),
            physmap: b"physmap/1\x000x1000\x00".to_vec(),
        }
    }

    /// A guest of so many pages of all kinds, in batches of 1024.
    pub(crate) fn of_pages(kind: GuestType, pages: u64) -> Self {
        let page = |pfn| match pfn % 4 {
            0 | 1 => (pfn, PageType::NORMAL, Fill::Zero),
            2 => (pfn, PageType::NORMAL, Fill::Noise(pfn)),
            _ => (pfn, PageType::new(1).unwrap(), Fill::Octet(pfn.to_le_bytes()[0])),
        };
        let all: Vec<_> = (0..pages).map(page).collect();
        Self { batches: all.chunks(1024).map(<[_]>::to_vec).collect(), ..Self::with(kind, &[]) }
    }

    pub(crate) fn stream(&self) -> Vec<u8> {
        let mut writer = StreamWriter::new(Vec::new());
        if self.start == Start::Xl {
            let optional = XlHeader::optional_of(&self.configuration);
            writer.xl_header(&XlHeader::new(&optional)).unwrap();
        }
        if self.start != Start::Libxc {
            writer.libxl_header(LibxlHeader { from_legacy: false }).unwrap();
            libxl(&mut writer, LibxlType::LIBXC_CONTEXT, &[]);
        }
        writer.image_header(ImageHeader { version: self.version }).unwrap();
        let guest = self.kind;
        writer.domain_header(DomainHeader { guest, xen_major: 4, xen_minor: 17 }).unwrap();
        let pv = guest == GuestType::X86Pv;
        if pv {
            libxc(&mut writer, LibxcType::X86_PV_INFO, &[8, 4, 0, 0, 0, 0, 0, 0]);
        }
        if self.version == ImageVersion::V3 {
            libxc(&mut writer, LibxcType::X86_CPUID_POLICY, &[7; 48]);
            libxc(&mut writer, LibxcType::STATIC_DATA_END, &[]);
        }
        if pv {
            let last = self.batches.iter().flatten().map(|page| page.0).max().unwrap_or(0);
            let mut frames = vec![0; 4];
            frames.extend(u32::try_from(last).unwrap().to_le_bytes());
            frames.extend([3; 8]);
            libxc(&mut writer, LibxcType::X86_PV_P2M_FRAMES, &frames);
        }
        let mut unknown = self.unknown.iter();
        for batch in &self.batches {
            if let Some(len) = unknown.next() {
                libxc(&mut writer, LibxcType(0x8000_0077), &vec![0xab; *len]);
            }
            let entries: Vec<PageEntry> = batch
                .iter()
                .map(|(pfn, page_type, _)| PageEntry::new(*pfn, *page_type).unwrap())
                .collect();
            writer.page_batch(&entries).unwrap();
            for (_, _, fill) in batch.iter().filter(|(_, page_type, _)| page_type.has_content()) {
                writer.pages(&fill.page()).unwrap();
            }
        }
        for len in unknown {
            libxc(&mut writer, LibxcType(0x8000_0078), &vec![0xcd; *len]);
        }
        libxc(&mut writer, LibxcType::X86_TSC_INFO, &[0; 24]);
        if pv {
            libxc(&mut writer, LibxcType::SHARED_INFO, &[9; PAGE_LEN]);
            libxc(&mut writer, LibxcType::X86_PV_VCPU_BASIC, &[0; 45]);
        } else {
            libxc(&mut writer, LibxcType::HVM_CONTEXT, &[5; 33]);
            libxc(
                &mut writer,
                LibxcType::HVM_PARAMS,
                &[[1, 0, 0, 0, 0, 0, 0, 0], [2; 8], [3; 8]].concat(),
            );
        }
        libxc(&mut writer, LibxcType::END, &[]);
        if self.start != Start::Libxc {
            if !pv {
                let emulator = [2, 0, 0, 0, 0, 0, 0, 0];
                let pairs = [&emulator[..], &self.physmap].concat();
                libxl(&mut writer, LibxlType::EMULATOR_XENSTORE_DATA, &pairs);
                let context = [&emulator[..], &[0x51; 77]].concat();
                libxl(&mut writer, LibxlType::EMULATOR_CONTEXT, &context);
            }
            libxl(&mut writer, LibxlType::END, &[]);
        }
        writer.into_inner()
    }
}

pub(crate) fn libxl(writer: &mut StreamWriter<Vec<u8>>, record_type: LibxlType, body: &[u8]) {
    writer.libxl_record(&LibxlRecord { record_type, body }).unwrap();
}

pub(crate) fn libxc(writer: &mut StreamWriter<Vec<u8>>, record_type: LibxcType, body: &[u8]) {
    writer.libxc_record(&LibxcRecord { record_type, body }).unwrap();
}

/// Reads a stream to its end.
pub(crate) fn check(stream: &[u8]) -> Result<StreamSummary, StreamError> {
    let mut reader = CheckedReader::new(stream, Limits::default());
    while reader.next_event()?.is_some() {}
    Ok(reader.summary())
}

/// A complete mapped image of a stream.
pub(crate) fn mapped(stream: impl Read) -> Result<File, ImageWriteError> {
    mapped::write(stream, tempfile::tempfile().unwrap(), &MappedOptions::default())?
        .mark_complete()
        .map(|complete| complete.file)
}

/// A complete packed image of a stream.
pub(crate) fn packed(stream: impl Read, codec: Codec) -> Result<File, ImageWriteError> {
    let options = PackedOptions::default().codec(codec);
    packed::write(stream, tempfile::tempfile().unwrap(), &options)?
        .mark_complete()
        .map(|complete| complete.file)
}

pub(crate) fn from_mapped(file: &File) -> Vec<u8> {
    let mut stream = Vec::new();
    let reader = MappedReader::open(file, Limits::default()).unwrap();
    reader.verify().unwrap();
    reader.write_stream(&mut stream).unwrap();
    stream
}

pub(crate) fn from_packed(file: &File) -> Vec<u8> {
    let mut stream = Vec::new();
    let reader = PackedReader::open(file, Limits::default()).unwrap();
    reader.verify().unwrap();
    reader.write_stream(&mut stream).unwrap();
    stream
}

/// All octets of a file.
pub(crate) fn octets(file: &File) -> Vec<u8> {
    let mut octets = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut octets, 0).unwrap();
    octets
}

/// The whole `xl save` file of a real guest, decompressed into a file; `None`, with a note, where there is none.
pub(crate) fn captured(test: &str) -> Option<File> {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/captures/pv1.save.zst");
    let compressed = match File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            println!("skipped: {test}: {}: {error}", path.display());
            return None;
        }
    };
    let mut file = tempfile::tempfile().unwrap();
    zstd::stream::copy_decode(compressed, &mut file).unwrap();
    file.rewind().unwrap();
    Some(file)
}
