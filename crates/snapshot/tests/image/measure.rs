//! How fast images are written and read, and in how much memory: `cargo test --release -p snapshot --test image measure --
//! --ignored --nocapture --test-threads 1`. Nothing is asserted of speed.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::process::Command;
use std::time::Instant;

use snapshot::image::Limits;
use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::passthrough;
use snapshot::image::stream::{
    Content, DomainHeader, GuestType, ImageHeader, ImageVersion, LibxcType, PAGE_LEN, PageEntry,
    PageType, StreamReader, StreamWriter,
};

use crate::synthetic::{Guest, captured, libxc};

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
        command.args(["--exact", "measure::images_of_a_large_guest", "--ignored", "--nocapture"]);
        let output = command.env("IMAGE_FORMAT", format).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && text.contains("1 passed"), "{format}: {text}");
    }
}

/// Seconds of processor that this process and the children that it has waited for have had: other work on the machine
/// does not count.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1;
    let ticks = fields.split(' ').skip(11).take(4).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

/// A stream of 1 GiB in a file: real pages if there are any, half of them zero.
fn gibibyte() -> File {
    const PAGES: u64 = 1 << 18;
    let mut pages = Vec::new();
    if let Some(file) = captured("measure") {
        let mut reader = StreamReader::new(io::BufReader::new(file), Limits::default());
        while let Some(event) = reader.next_event().unwrap() {
            if let Content::Pages { octets, .. } = event.content {
                pages.extend_from_slice(octets);
            }
        }
    } else {
        let stream = Guest::of_pages(GuestType::X86Pv, 1024).stream();
        pages.extend_from_slice(&stream[stream.len() % PAGE_LEN..]);
    }
    let real: Vec<&[u8]> = pages.as_chunks::<PAGE_LEN>().0.iter().map(|page| &page[..]).collect();
    let used: Vec<&&[u8]> =
        real.iter().filter(|page| page.iter().any(|octet| *octet != 0)).collect();
    let zero = [0; PAGE_LEN];
    let file = tempfile::tempfile().unwrap();
    let mut writer = StreamWriter::new(Vec::new());
    writer.image_header(ImageHeader { version: ImageVersion::V3 }).unwrap();
    let guest = GuestType::X86Hvm;
    writer.domain_header(DomainHeader { guest, xen_major: 4, xen_minor: 17 }).unwrap();
    libxc(&mut writer, LibxcType::STATIC_DATA_END, &[]);
    let mut output = BufWriter::new(&file);
    output.write_all(&writer.into_inner()).unwrap();
    let mut writer = StreamWriter::new(&mut output);
    for first in (0..PAGES).step_by(1024) {
        let pfns = first..first + 1024;
        let entries: Vec<_> =
            pfns.clone().map(|pfn| PageEntry::new(pfn, PageType::NORMAL).unwrap()).collect();
        writer.page_batch(&entries).unwrap();
        for pfn in pfns {
            // Runs of 64 pages, as memory has.
            let place = usize::try_from(pfn).unwrap();
            let page = if pfn / 64 % 2 == 0 { &zero[..] } else { used[place % used.len()] };
            writer.pages(page).unwrap();
        }
    }
    let mut end = StreamWriter::new(Vec::new());
    libxc(&mut end, LibxcType::END, &[]);
    output.write_all(&end.into_inner()).unwrap();
    output.flush().unwrap();
    drop(output);
    file.sync_all().unwrap();
    file
}

#[test]
#[ignore = "measures"]
fn throughput() {
    let stream = gibibyte();
    let len = stream.metadata().unwrap().len() as f64;
    let input = || {
        let mut input = stream.try_clone().unwrap();
        input.rewind().unwrap();
        input
    };
    let say = |what: &str, (since, cpu_before): (Instant, f64)| {
        let (wall, cpu) = (since.elapsed().as_secs_f64(), cpu() - cpu_before);
        println!(
            "{what:40} {:6.2} GB/s, {:6.2} a second of processor",
            len / wall / 1e9,
            len / cpu / 1e9
        );
    };
    let now = || (Instant::now(), cpu());
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    for round in 0..2 {
        println!("round {round}");
        let since = now();
        let out = directory.path().join("dd");
        let mut dd = Command::new("dd");
        dd.stdin(input()).arg(format!("of={}", out.display())).args(["bs=1M", "conv=fsync"]);
        assert!(dd.stderr(std::process::Stdio::null()).status().unwrap().success());
        say("dd conv=fsync", since);
        std::fs::remove_file(out).unwrap();

        let since = now();
        let options = MappedOptions::default();
        let written = mapped::write(input(), tempfile::tempfile().unwrap(), &options).unwrap();
        say("mapped, without sync", since);
        written.file().sync_all().unwrap();
        let image = written.mark_complete().unwrap().file;
        image.sync_all().unwrap();
        say("mapped, synced twice", since);
        let since = now();
        let reader = MappedReader::open(&image, limits).unwrap();
        reader.verify().unwrap();
        say("mapped, verified from the page cache", since);
        let since = now();
        reader.write_stream(File::create("/dev/null").unwrap()).unwrap();
        say("mapped, written out to nowhere", since);

        for (name, codec) in [("zstd 1", Codec::default()), ("lz4", Codec::Lz4)] {
            let since = now();
            let options = PackedOptions::default().codec(codec);
            let written = packed::write(input(), tempfile::tempfile().unwrap(), &options).unwrap();
            say(&format!("packed {name}, without sync"), since);
            let image = written.mark_complete().unwrap().file;
            let since = now();
            let reader = PackedReader::open(&image, limits).unwrap();
            reader.verify().unwrap();
            say(&format!("packed {name}, verified"), since);
            println!("  {} MiB", image.metadata().unwrap().len() >> 20);
        }
        let since = now();
        passthrough::copy(input(), io::sink(), limits).unwrap();
        say("digests of a stream", since);
    }
}
