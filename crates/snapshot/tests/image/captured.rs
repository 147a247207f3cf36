//! A real `xl save` file through all formats.

use std::fs::File;
use std::io::{self, Read, Seek, Write};

use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::{Codec, PackedReader};
use snapshot::image::passthrough::{self, SideDigest};
use snapshot::image::stream::{CheckedReader, GuestType, PAGE_LEN, Start, StreamWriter};
use snapshot::image::{Layout, Limits};

use crate::synthetic::{captured, mapped, packed};

/// Compares what is written with what a file has, and holds neither.
struct SameAs {
    file: File,
    at: u64,
}

impl SameAs {
    fn new(file: &File) -> Self {
        let mut file = file.try_clone().unwrap();
        file.rewind().unwrap();
        Self { file, at: 0 }
    }

    fn at_end(mut self) {
        assert_eq!(self.file.read(&mut [0]).unwrap(), 0, "only {} octets came out", self.at);
    }
}

impl Write for SameAs {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let mut expected = vec![0; octets.len()];
        self.file.read_exact(&mut expected).unwrap();
        assert!(octets == expected, "other octets from {} on", self.at);
        self.at += octets.len() as u64;
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn again(file: &File) -> File {
    let mut file = file.try_clone().unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn a_real_file_is_read_whole_and_written_piece_by_piece_as_it_was() {
    let test = "a_real_file_is_read_whole_and_written_piece_by_piece_as_it_was";
    let Some(file) = captured(test) else { return };
    let mut octets = Vec::new();
    again(&file).read_to_end(&mut octets).unwrap();
    let mut same = SameAs::new(&file);
    let mut writer = StreamWriter::new(&mut same);
    let mut reader = CheckedReader::new(&octets[..], Limits::default());
    while let Some(event) = reader.next_event().unwrap() {
        writer.content(&event.content).unwrap();
    }
    let summary = reader.summary();
    assert_eq!(summary.start, Some(Start::Xl));
    assert_eq!(summary.len, 151_533_978);
    assert_eq!(summary.configuration_len, 1038);
    assert_eq!(summary.domain.unwrap().guest, GuestType::X86Pv);
    assert_eq!((summary.libxl_records, summary.libxc_records, summary.unknown_records), (2, 75, 0));
    assert_eq!(reader.into_inner(), b"");
    same.at_end();
}

#[test]
fn a_real_file_comes_out_of_a_mapped_image_as_it_was() {
    let Some(file) = captured("a_real_file_comes_out_of_a_mapped_image_as_it_was") else { return };
    let image = mapped(&file).unwrap();
    let reader = MappedReader::open(&image, Limits::default()).unwrap();
    let Layout::Mapped { pages, zero_pages, .. } = reader.info().layout else { panic!() };
    assert!(zero_pages > pages / 3, "{zero_pages} of {pages} pages are zero");
    let summary = reader.verify().unwrap();
    assert_eq!(summary.pages, pages);
    let mut same = SameAs::new(&file);
    reader.write_stream(&mut same).unwrap();
    same.at_end();
    // Zero pages take no room.
    use std::os::unix::fs::MetadataExt;
    let stored = image.metadata().unwrap().blocks() * 512;
    assert!(stored < summary.len - zero_pages * PAGE_LEN as u64 + (4 << 20), "{stored} octets");
}

fn comes_out_of_packed(test: &str, codec: Codec, at_most: u64) {
    let Some(file) = captured(test) else { return };
    let image = packed(&file, codec).unwrap();
    let stored = image.metadata().unwrap().len();
    assert!(stored < at_most, "{stored} octets");
    let reader = PackedReader::open(&image, Limits::default()).unwrap();
    assert_eq!(reader.codec(), codec);
    reader.verify().unwrap();
    let mut same = SameAs::new(&file);
    reader.write_stream(&mut same).unwrap();
    same.at_end();
}

#[test]
fn a_real_file_comes_out_of_zstd_frames_as_it_was() {
    let test = "a_real_file_comes_out_of_zstd_frames_as_it_was";
    comes_out_of_packed(test, Codec::default(), 20 << 20);
}

#[test]
fn a_real_file_comes_out_of_lz4_frames_as_it_was() {
    let test = "a_real_file_comes_out_of_lz4_frames_as_it_was";
    comes_out_of_packed(test, Codec::Lz4, 30 << 20);
}

#[test]
fn a_real_file_has_the_same_digest_in_every_format() {
    let Some(file) = captured("a_real_file_has_the_same_digest_in_every_format") else { return };
    let (side, summary) = passthrough::copy(&file, io::sink(), Limits::default()).unwrap();
    let side = SideDigest::from_octets(&side.to_octets(), Limits::default()).unwrap();
    side.verify(again(&file)).unwrap();
    assert_eq!(side.info().stream_len, summary.len);
    let image = mapped(again(&file)).unwrap();
    let image = MappedReader::open(&image, Limits::default()).unwrap();
    assert_eq!(image.info().stream_digest, side.stream_digest());
    let image = packed(again(&file), Codec::Lz4).unwrap();
    let image = PackedReader::open(&image, Limits::default()).unwrap();
    assert_eq!(image.info().stream_digest, side.stream_digest());
}
