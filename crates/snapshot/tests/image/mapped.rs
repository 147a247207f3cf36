//! Mapped images: pages at fixed places.

use std::os::unix::fs::{FileExt, MetadataExt};

use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::stream::{GuestType, PAGE_LEN, PageType};
use snapshot::image::{Area, ImageOpenError, ImageReadError, ImageWriteError, Limits};

use crate::synthetic::{Fill, Guest, from_mapped, mapped};

#[test]
fn a_page_is_found_by_its_number() {
    let pages = [
        (3, PageType::NORMAL, Fill::Octet(3)),
        (700, PageType::new(4).unwrap(), Fill::Octet(70)),
        (701, PageType::INVALID, Fill::Zero),
        (702, PageType::new(9).unwrap(), Fill::Zero),
    ];
    let stream = Guest::with(GuestType::X86Hvm, &pages).stream();
    let image = mapped(&stream[..]).unwrap();
    let mut reader = MappedReader::open(&image, Limits::default()).unwrap();
    let mut page = [0xff; PAGE_LEN];
    for (pfn, page_type, fill) in pages {
        assert_eq!(reader.page(pfn, &mut page).unwrap(), Some(page_type));
        assert!(page[..] == fill.page());
        let mut in_place = [0xff; PAGE_LEN];
        image.read_exact_at(&mut in_place, reader.page_offset(pfn).unwrap()).unwrap();
        assert!(in_place == page);
        assert_eq!(reader.page_offset(pfn).unwrap(), 4096 + pfn * 4096);
    }
    for pfn in [0, 2, 4, 699, 703, u64::MAX] {
        assert_eq!(reader.page_type(pfn).unwrap(), None, "{pfn}");
        assert_eq!(reader.page(pfn, &mut page).unwrap(), None, "{pfn}");
    }
}

#[test]
fn zero_pages_are_holes_and_a_hole_that_was_filled_is_seen() {
    let pages: Vec<_> = (0..2048).map(|pfn| (pfn, PageType::NORMAL, Fill::Zero)).collect();
    let stream = Guest::with(GuestType::X86Hvm, &pages).stream();
    let image = mapped(&stream[..]).unwrap();
    assert!(image.metadata().unwrap().blocks() * 512 < 1 << 20);
    let reader = MappedReader::open(&image, Limits::default()).unwrap();
    reader.verify().unwrap();
    image.write_all_at(&[1], 4096 + (5 << 20) + 77).unwrap();
    let error = reader.verify().unwrap_err();
    let at = 4096 + (5 << 20);
    assert!(
        matches!(error, ImageReadError::Digest { area: Area::Pages, offset } if offset == at),
        "{error}"
    );
    assert!(reader.write_stream(std::io::sink()).is_err());
}

#[test]
fn pages_in_any_order_come_out_in_that_order() {
    // Back and forth between mebibytes, and the last one first.
    let order = [900, 1, 300, 2, 299, 899, 0, 301, 898];
    let pages: Vec<_> =
        order.iter().map(|pfn| (*pfn, PageType::NORMAL, Fill::Noise(*pfn))).collect();
    let mut guest = Guest::with(GuestType::X86Hvm, &pages);
    guest.batches = pages.chunks(2).map(<[_]>::to_vec).collect();
    let stream = guest.stream();
    assert!(from_mapped(&mapped(&stream[..]).unwrap()) == stream);
}

#[test]
fn a_page_that_is_sent_twice_is_refused_by_name() {
    let mut guest = Guest::of_pages(GuestType::X86Hvm, 20);
    guest.batches.push(vec![(7, PageType::NORMAL, Fill::Octet(1))]);
    let stream = guest.stream();
    let error = mapped(&stream[..]).unwrap_err();
    assert!(matches!(error, ImageWriteError::Duplicate { pfn: 7, .. }), "{error}");
    assert!(error.to_string().starts_with("libxc record 3 (PAGE_DATA) at octet"), "{error}");
}

#[test]
fn records_too_many_to_be_held_are_put_aside_and_come_back() {
    // Twelve MiB of records behind one page.
    let mut guest = Guest::of_pages(GuestType::X86Pv, 1030);
    guest.unknown = vec![1_500_001; 8];
    let stream = guest.stream();
    let image = mapped(&stream[..]).unwrap();
    assert!(from_mapped(&image) == stream);
    // And nothing of it is left where it was.
    assert!(image.metadata().unwrap().len() < (1030 * 4096) + (13 << 20));
}

#[test]
fn an_image_larger_than_the_limits_is_neither_written_nor_opened() {
    let stream = Guest::of_pages(GuestType::X86Hvm, 100).stream();
    let small = Limits::default().pfn_max(98);
    let options = MappedOptions::default().limits(small);
    let error = mapped::write(&stream[..], tempfile::tempfile().unwrap(), &options).unwrap_err();
    assert!(matches!(error, ImageWriteError::Stream { .. }), "{error}");
    let image = mapped(&stream[..]).unwrap();
    let error = MappedReader::open(&image, small).unwrap_err();
    assert!(matches!(error, ImageOpenError::TooLarge { has: 100, max: 98, .. }), "{error}");
    let error = MappedReader::open(&image, Limits::default().stream_max(1000)).unwrap_err();
    assert!(matches!(error, ImageOpenError::TooLarge { max: 1000, .. }), "{error}");
}
