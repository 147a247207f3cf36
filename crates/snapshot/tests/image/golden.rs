//! Images that were written by version 1.0 of each format stay readable, and come out as the streams they were made of.

use std::path::{Path, PathBuf};

use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::PackedReader;
use snapshot::image::passthrough::SideDigest;
use snapshot::image::stream::{GuestType, Start};
use snapshot::image::{ImageState, Limits};

use crate::synthetic::{check, mapped, octets};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(testdata().join(name)).unwrap()
}

#[test]
fn shipped_streams_are_read_whole() {
    let pv = check(&shipped("pv.xl")).unwrap();
    assert_eq!((pv.start, pv.domain.unwrap().guest), (Some(Start::Xl), GuestType::X86Pv));
    assert_eq!((pv.pages, pv.empty_entries, pv.pfn_end), (4, 1, 6));
    let hvm = check(&shipped("hvm.libxl")).unwrap();
    assert_eq!((hvm.start, hvm.domain.unwrap().guest), (Some(Start::Libxl), GuestType::X86Hvm));
    assert_eq!((hvm.libxl_records, hvm.unknown_records), (4, 1));
}

#[test]
fn images_of_version_1_0_are_read() {
    for name in ["pv.xl", "hvm.libxl"] {
        let stream = shipped(name);
        let of = |format: &str| shipped(&format!("{name}.{format}"));
        let reader = MappedReader::open(of("mapped"), Limits::default()).unwrap();
        reader.verify().unwrap();
        assert_eq!(reader.info().version.to_string(), "1.0");
        assert_eq!(reader.info().state, ImageState::Complete);
        let mut out = Vec::new();
        reader.write_stream(&mut out).unwrap();
        assert!(out == stream, "{name}");
        for format in ["zstd", "lz4", "zstd-pieces", "lz4-pieces"] {
            let reader = PackedReader::open(of(format), Limits::default()).unwrap();
            reader.verify().unwrap();
            let mut out = Vec::new();
            reader.write_stream(&mut out).unwrap();
            assert!(out == stream, "{name} {format}");
        }
        let side = SideDigest::from_octets(&of("side"), Limits::default()).unwrap();
        side.verify(&stream[..]).unwrap();
        assert_eq!(side.stream_digest(), reader.info().stream_digest);
    }
}

#[test]
fn a_mapped_image_is_written_as_version_1_0_was() {
    for name in ["pv.xl", "hvm.libxl"] {
        let image = octets(&mapped(&shipped(name)[..]).unwrap());
        assert!(image == shipped(&format!("{name}.mapped")), "{name}");
    }
}
