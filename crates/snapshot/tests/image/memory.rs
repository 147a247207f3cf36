//! In how much memory images are written and read.

use std::io::{self, Read};
use std::process::Command;

use snapshot::image::Limits;
use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, PackedOptions, PackedReader};
use snapshot::image::passthrough;
use snapshot::image::stream::{
    DomainHeader, GuestType, ImageHeader, ImageVersion, LibxcType, PAGE_LEN, PageEntry, PageType,
    StreamWriter,
};

use crate::synthetic::libxc;

/// A stream that is made while it is read: a guest of any size in no memory.
struct Endless {
    next: u64,
    end: u64,
    piece: Vec<u8>,
    given: usize,
}

/// Pages of one batch, as libxc has.
const BATCH: u64 = 1024;

impl Endless {
    fn new(pages: u64) -> Self {
        let mut writer = StreamWriter::new(Vec::new());
        writer.image_header(ImageHeader { version: ImageVersion::V3 }).unwrap();
        let guest = GuestType::X86Hvm;
        writer.domain_header(DomainHeader { guest, xen_major: 4, xen_minor: 17 }).unwrap();
        libxc(&mut writer, LibxcType::STATIC_DATA_END, &[]);
        Self { next: 0, end: pages, piece: writer.into_inner(), given: 0 }
    }

    /// Every other page is zero, the others are all different.
    fn batch(&mut self) {
        let mut writer = StreamWriter::new(std::mem::take(&mut self.piece));
        let pfns = self.next..(self.next + BATCH).min(self.end);
        let entries: Vec<_> =
            pfns.clone().map(|pfn| PageEntry::new(pfn, PageType::NORMAL).unwrap()).collect();
        writer.page_batch(&entries).unwrap();
        let mut page = [0; PAGE_LEN];
        for pfn in pfns.clone() {
            page.fill(if pfn % 2 == 0 { 0 } else { 7 });
            if pfn % 2 != 0 {
                page[..8].copy_from_slice(&pfn.to_le_bytes());
            }
            writer.pages(&page).unwrap();
        }
        self.next = pfns.end;
        if self.next == self.end {
            libxc(&mut writer, LibxcType::END, &[]);
        }
        self.piece = writer.into_inner();
    }
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.given == self.piece.len() && self.next < self.end {
            self.piece.clear();
            self.given = 0;
            self.batch();
        }
        let read = (&self.piece[self.given..]).read(buffer)?;
        self.given += read;
        Ok(read)
    }
}

/// Pages of a guest of 384 MiB.
const LARGE: u64 = 384 * 256;

/// Most memory that the process had, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// What a process of its own does for the test below.
#[test]
#[ignore = "is run by the test below in a process of its own"]
fn images_of_a_large_guest() {
    let limits = Limits::default();
    let Ok(format) = std::env::var("IMAGE_FORMAT") else {
        println!("skipped: images_of_a_large_guest: IMAGE_FORMAT is not set");
        return;
    };
    let image = match format.as_str() {
        "mapped" => {
            let file = tempfile::tempfile().unwrap();
            let written = mapped::write(Endless::new(LARGE), file, &MappedOptions::default());
            let image = written.unwrap().mark_complete().unwrap().file;
            let reader = MappedReader::open(&image, limits).unwrap();
            reader.verify().unwrap();
            reader.write_stream(io::sink()).unwrap();
            image
        }
        "packed" => {
            let file = tempfile::tempfile().unwrap();
            let written = packed::write(Endless::new(LARGE), file, &PackedOptions::default());
            let image = written.unwrap().mark_complete().unwrap().file;
            let reader = PackedReader::open(&image, limits).unwrap();
            reader.verify().unwrap();
            reader.write_stream(io::sink()).unwrap();
            image
        }
        format => {
            assert_eq!(format, "passthrough");
            passthrough::copy(Endless::new(LARGE), io::sink(), limits).unwrap();
            tempfile::tempfile().unwrap()
        }
    };
    drop(image);
    println!("peak {} MiB", peak());
    assert!(peak() < 64, "{} MiB", peak());
}

#[test]
fn a_large_guest_takes_no_more_than_64_mib_in_any_format() {
    for format in ["mapped", "packed", "passthrough"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "memory::images_of_a_large_guest", "--ignored", "--nocapture"]);
        let output = command.env("IMAGE_FORMAT", format).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{format}: {text}");
    }
}
