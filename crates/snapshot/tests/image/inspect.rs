//! What a file is, from its first octets.

use snapshot::image::packed::Codec;
use snapshot::image::stream::{GuestType, ImageVersion, Start};
use snapshot::image::{INSPECT_LEN, ImageFormat, InspectError, Inspected, inspect};

use crate::synthetic::{Guest, mapped, octets, packed};

fn stream_of(start: Start, configuration: usize) -> Vec<u8> {
    let mut guest = Guest::of_pages(GuestType::X86Hvm, 40);
    guest.start = start;
    guest.configuration = vec![b' '; configuration];
    guest.stream()
}

#[test]
fn a_stream_tells_what_it_starts_with_and_which_guest_it_is() {
    for start in [Start::Xl, Start::Libxl, Start::Libxc] {
        let stream = stream_of(start, 300);
        let Inspected::Stream(info) = inspect(&stream[..INSPECT_LEN]).unwrap() else { panic!() };
        assert_eq!(info.start, start);
        assert_eq!(info.domain.unwrap().guest, GuestType::X86Hvm);
        assert_eq!(info.domain.unwrap().xen_minor, 17);
        assert_eq!(info.image.unwrap().version, ImageVersion::V3);
        assert_eq!(info.optional_len, (start == Start::Xl).then_some(304));
        assert_eq!(info.json, (start == Start::Xl).then_some(true));
    }
}

#[test]
fn a_configuration_longer_than_what_is_read_hides_only_what_is_behind_it() {
    let stream = stream_of(Start::Xl, 70_000);
    let Inspected::Stream(info) = inspect(&stream[..INSPECT_LEN]).unwrap() else { panic!() };
    assert_eq!((info.optional_len, info.json, info.domain), (Some(70_004), Some(true), None));
}

#[test]
fn an_image_tells_its_sizes_without_the_rest() {
    let stream = stream_of(Start::Xl, 300);
    let image = mapped(&stream[..]).unwrap();
    let first = octets(&image);
    let Inspected::Image(info) = inspect(&first[..INSPECT_LEN]).unwrap() else { panic!() };
    assert_eq!(info.format(), ImageFormat::Mapped);
    assert_eq!((info.file_len, info.stream_len), (first.len() as u64, stream.len() as u64));
    assert_eq!((info.start, info.guest), (Some(Start::Xl), Some(GuestType::X86Hvm)));
    assert_eq!(info.version.to_string(), "1.0");
    let first = octets(&packed(&stream[..], Codec::Lz4).unwrap());
    let Inspected::Image(info) = inspect(&first[..INSPECT_LEN]).unwrap() else { panic!() };
    assert_eq!((info.format(), info.file_len), (ImageFormat::Packed, first.len() as u64));
}

#[test]
fn what_is_neither_is_refused_and_what_is_cut_says_so() {
    assert!(matches!(inspect(b"not a saved domain"), Err(InspectError::Unknown)));
    assert!(matches!(inspect(b""), Err(InspectError::Stream { .. })));
    let image = octets(&mapped(&stream_of(Start::Xl, 3)[..]).unwrap());
    assert!(matches!(inspect(&image[..100]), Err(InspectError::Cut { has: 100 })));
}
