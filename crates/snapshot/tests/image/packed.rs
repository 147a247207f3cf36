//! Packed images: frames that are found and decoded alone.

use std::io::Read;
use std::os::unix::fs::FileExt;

use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::stream::{GuestType, PageType};
use snapshot::image::{Area, CHUNK_LEN, ImageOpenError, ImageReadError, Limits};

use crate::synthetic::{Fill, Guest, from_packed, packed};

#[test]
fn any_frame_is_had_alone() {
    let stream = Guest::of_pages(GuestType::X86Pv, 3000).stream();
    for codec in [Codec::default(), Codec::Zstd { level: 9 }, Codec::Lz4] {
        let image = packed(&stream[..], codec).unwrap();
        let reader = PackedReader::open(&image, Limits::default()).unwrap();
        assert_eq!(reader.frames(), stream.len().div_ceil(CHUNK_LEN) as u64);
        for (index, expected) in stream.chunks(CHUNK_LEN).enumerate().rev() {
            assert!(reader.frame(index as u64).unwrap() == expected);
        }
        let error = reader.frame(reader.frames()).unwrap_err();
        assert!(matches!(error, ImageReadError::NoFrame { .. }), "{error}");
        let mut read = Vec::new();
        reader.stream().read_to_end(&mut read).unwrap();
        assert!(read == stream);
    }
}

#[test]
fn frames_of_zeros_take_no_room_and_noise_no_more_than_it_has() {
    let zeros: Vec<_> = (0..4096).map(|pfn| (pfn, PageType::NORMAL, Fill::Zero)).collect();
    let stream = Guest::with(GuestType::X86Hvm, &zeros).stream();
    let len = packed(&stream[..], Codec::Lz4).unwrap().metadata().unwrap().len();
    assert!(len < 50_000, "{len}");
    let noise: Vec<_> =
        (0..1024).map(|pfn| (pfn, PageType::NORMAL, Fill::Noise(pfn * 2))).collect();
    let stream = Guest::with(GuestType::X86Hvm, &noise).stream();
    let image = packed(&stream[..], Codec::Lz4).unwrap();
    assert!(image.metadata().unwrap().len() < stream.len() as u64 + 4096 + 100);
    assert!(from_packed(&image) == stream);
}

#[test]
fn a_live_migration_that_sends_pages_again_is_taken() {
    let mut guest = Guest::of_pages(GuestType::X86Hvm, 600);
    guest.batches.push((0..300).map(|pfn| (pfn, PageType::NORMAL, Fill::Octet(9))).collect());
    let stream = guest.stream();
    assert!(from_packed(&packed(&stream[..], Codec::default()).unwrap()) == stream);
}

#[test]
fn any_number_of_threads_writes_the_same_image() {
    let stream = Guest::of_pages(GuestType::X86Pv, 2500).stream();
    let root = |workers| {
        let options = PackedOptions::default().workers(workers);
        let written = packed::write(&stream[..], tempfile::tempfile().unwrap(), &options).unwrap();
        written.info().root
    };
    let one = root(1);
    assert!([0, 2, 3, 7].map(root).iter().all(|root| *root == one));
}

#[test]
fn a_damaged_frame_is_named_with_its_place_and_the_others_can_be_read() {
    let stream = Guest::of_pages(GuestType::X86Pv, 1500).stream();
    let image = packed(&stream[..], Codec::default()).unwrap();
    let reader = PackedReader::open(&image, Limits::default()).unwrap();
    let mut octet = [0];
    image.read_exact_at(&mut octet, 4096 + 1000).unwrap();
    image.write_all_at(&[octet[0] ^ 1], 4096 + 1000).unwrap();
    let error = reader.verify().unwrap_err();
    assert!(
        matches!(error, ImageReadError::Digest { area: Area::Frames, offset: 4096 }),
        "{error}"
    );
    reader.frame(1).unwrap();
    let mut written = Vec::new();
    assert!(reader.write_stream(&mut written).is_err());
    assert!(written.is_empty());
}

#[test]
fn a_longer_stream_than_the_limits_allow_is_not_opened() {
    let image = packed(&Guest::of_pages(GuestType::X86Pv, 10).stream()[..], Codec::Lz4).unwrap();
    let error = PackedReader::open(&image, Limits::default().stream_max(10_000)).unwrap_err();
    assert!(matches!(error, ImageOpenError::TooLarge { max: 10_000, .. }), "{error}");
}
