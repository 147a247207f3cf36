//! Packed images: frames that are found and decoded alone.

use std::io::Read;
use std::os::unix::fs::FileExt;

use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::stream::{GuestType, PageType};
use snapshot::image::{Area, CHUNK_LEN, ImageOpenError, ImageReadError, Limits};

use crate::synthetic::{Fill, Guest, from_packed, octets, packed};

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

/// A guest of these pages, and its image.
fn image_of(fills: &[Fill], codec: Codec) -> (Vec<u8>, Vec<u8>) {
    let pages: Vec<_> =
        (0..).zip(fills).map(|(pfn, fill)| (pfn, PageType::NORMAL, *fill)).collect();
    let stream = Guest::with(GuestType::X86Hvm, &pages).stream();
    let image = packed(&stream[..], codec).unwrap();
    assert!(from_packed(&image) == stream);
    (stream, octets(&image))
}

#[test]
fn a_page_of_noise_is_stored_once_in_a_frame() {
    for codec in [Codec::default(), Codec::Lz4] {
        let (_, once) = image_of(&[Fill::Noise(1), Fill::Octet(1), Fill::Zero], codec);
        let again = [Fill::Noise(1), Fill::Octet(1), Fill::Zero, Fill::Noise(1), Fill::Noise(1)];
        let (_, again) = image_of(&again, codec);
        assert!(again.len() < once.len() + 100, "{} after {}", again.len(), once.len());
        assert!(once.len() < 4096 + 4096 + 1000, "{}", once.len());
        // Two frames later it is not known any more.
        let mut far = vec![Fill::Noise(1); 1];
        far.extend(vec![Fill::Zero; 512]);
        far.push(Fill::Noise(1));
        let (_, far) = image_of(&far, codec);
        assert!(far.len() > once.len() + 4096, "{}", far.len());
    }
}

#[test]
fn pages_that_only_begin_alike_are_not_taken_for_the_same() {
    let noise = Fill::Noise(7).page();
    let mut other = noise.clone();
    other[4095] ^= 1;
    let mut stream = Guest::with(
        GuestType::X86Hvm,
        &[(0, PageType::NORMAL, Fill::Noise(7)), (1, PageType::NORMAL, Fill::Noise(7))],
    )
    .stream();
    let second = stream.windows(8).rposition(|octets| *octets == noise[..8]).unwrap();
    stream[second..second + 4096].copy_from_slice(&other);
    assert!(from_packed(&packed(&stream[..], Codec::default()).unwrap()) == stream);
}

#[test]
fn pages_of_every_kind_come_back_wherever_a_frame_ends() {
    let fills = [Fill::Zero, Fill::Noise(3), Fill::Octet(4), Fill::Noise(3), Fill::Noise(5)];
    for ahead in 0..9 {
        // The record ahead moves the pages against the frames, also by what is no multiple of a page.
        let pages: Vec<_> = (0..700)
            .map(|pfn| (pfn, PageType::NORMAL, fills[usize::try_from(pfn * 7 / 3 % 5).unwrap()]))
            .collect();
        let mut guest = Guest::with(GuestType::X86Pv, &pages);
        guest.unknown = vec![ahead * 520];
        let stream = guest.stream();
        for codec in [Codec::default(), Codec::Lz4] {
            assert!(from_packed(&packed(&stream[..], codec).unwrap()) == stream, "{ahead}");
        }
    }
}

#[test]
fn a_frame_of_nothing_but_noise_is_no_longer_than_it_was() {
    let noise: Vec<_> = (0..600).map(|pfn| Fill::Noise(pfn * 2)).collect();
    for codec in [Codec::default(), Codec::Lz4] {
        let (stream, image) = image_of(&noise, codec);
        let reader = PackedReader::open(&image, Limits::default()).unwrap();
        assert!(image.len() as u64 <= stream.len() as u64 + 4096 + 12 * reader.frames());
    }
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
