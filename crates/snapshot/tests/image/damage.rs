//! One flipped bit or one missing octet anywhere, in any format.

use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::{Codec, PackedReader};
use snapshot::image::passthrough::{self, SideDigest};
use snapshot::image::stream::{GuestType, PageType, Start};
use snapshot::image::{INSPECT_LEN, Inspected, Limits, inspect};

use crate::synthetic::{Fill, Guest, check, mapped, octets, packed};

/// Two pages, one of them zero, and one that is not there.
fn small(kind: GuestType) -> Vec<u8> {
    let pages = [
        (0, PageType::NORMAL, Fill::Octet(0x5a)),
        (1, PageType::NORMAL, Fill::Zero),
        (2, PageType::INVALID, Fill::Zero),
    ];
    Guest::with(kind, &pages).stream()
}

/// Whether a mapped image can be opened and is whole.
fn mapped_is_whole(image: &[u8]) -> bool {
    MappedReader::open(image, Limits::default()).is_ok_and(|image| image.verify().is_ok())
}

fn packed_is_whole(image: &[u8]) -> bool {
    PackedReader::open(image, Limits::default()).is_ok_and(|image| image.verify().is_ok())
}

fn side_is_whole(image: &[u8]) -> bool {
    SideDigest::from_octets(image, Limits::default()).is_ok()
}

fn is_refused_however_damaged(image: &mut Vec<u8>, is_whole: impl Fn(&[u8]) -> bool) {
    assert!(is_whole(image));
    for bit in 0..image.len() * 8 {
        image[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_whole(image), "bit {} of octet {} is not missed", bit % 8, bit / 8);
        image[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..image.len() {
        assert!(!is_whole(&image[..len]), "cut at {len}");
    }
    image.push(0);
    assert!(!is_whole(image), "an octet more");
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_mapped_image_is_refused() {
    let stream = small(GuestType::X86Pv);
    let mut image = octets(&mapped(&stream[..]).unwrap());
    is_refused_however_damaged(&mut image, mapped_is_whole);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_packed_image_is_refused() {
    for codec in [Codec::default(), Codec::Lz4] {
        let mut image = octets(&packed(&small(GuestType::X86Hvm)[..], codec).unwrap());
        assert!(image.len() < 8192);
        is_refused_however_damaged(&mut image, packed_is_whole);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_frame_in_pieces_is_refused() {
    let fills = [Fill::Noise(1), Fill::Zero, Fill::Octet(2), Fill::Noise(1)];
    let pages: Vec<_> = (0..).zip(fills).map(|(pfn, fill)| (pfn, PageType::NORMAL, fill)).collect();
    let stream = Guest::with(GuestType::X86Pv, &pages).stream();
    for codec in [Codec::default(), Codec::Lz4] {
        let mut image = octets(&packed(&stream[..], codec).unwrap());
        assert!((2 * 4096..3 * 4096).contains(&image.len()), "the page of noise is stored once");
        is_refused_however_damaged(&mut image, packed_is_whole);
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_side_digest_is_refused() {
    let (side, _) =
        passthrough::copy(&small(GuestType::X86Pv)[..], std::io::sink(), Limits::default())
            .unwrap();
    is_refused_however_damaged(&mut side.to_octets(), side_is_whole);
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_stream_is_refused_by_its_side_digest() {
    let mut stream = small(GuestType::X86Hvm);
    let (side, _) = passthrough::copy(&stream[..], std::io::sink(), Limits::default()).unwrap();
    is_refused_however_damaged(&mut stream, |stream| side.verify(stream).is_ok());
}

#[test]
fn every_cut_of_a_stream_is_an_error_that_says_where() {
    for start in [Start::Xl, Start::Libxl, Start::Libxc] {
        let pages = [(0, PageType::NORMAL, Fill::Octet(1)), (1, PageType::BROKEN, Fill::Zero)];
        let mut guest = Guest::with(GuestType::X86Hvm, &pages);
        guest.start = start;
        let stream = guest.stream();
        check(&stream).unwrap();
        for len in 0..stream.len() {
            let error = check(&stream[..len]).unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.starts_with("the stream is cut"), "{len}: {error}: {cause}");
            assert!(error.place.offset <= len as u64, "{error}");
        }
    }
}

#[test]
fn a_flipped_bit_in_a_header_is_seen_without_reading_the_rest() {
    let image = octets(&mapped(&small(GuestType::X86Pv)[..]).unwrap());
    let mut first = image[..INSPECT_LEN].to_vec();
    let whole = inspect(&first).unwrap();
    for bit in 0..INSPECT_LEN * 8 {
        first[bit / 8] ^= 1 << (bit % 8);
        assert!(!inspect(&first).is_ok_and(|other| other == whole), "bit {bit}");
        // What cannot be told apart is only how far the image has been written.
        if let Ok(Inspected::Image(info)) = inspect(&first) {
            panic!("bit {bit}: {info:?}");
        }
        first[bit / 8] ^= 1 << (bit % 8);
    }
}
