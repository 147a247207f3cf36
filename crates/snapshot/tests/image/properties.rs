//! Whatever a stream holds comes out of every format as it was, and pages are found where the stream had them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use snapshot::image::mapped::MappedReader;
use snapshot::image::packed::Codec;
use snapshot::image::passthrough;
use snapshot::image::stream::{GuestType, ImageVersion, PAGE_LEN, PageType, Start};
use snapshot::image::{ImageWriteError, Limits};

use crate::synthetic::{Fill, Guest, check, from_mapped, from_packed, mapped, packed};

fn fill() -> impl Strategy<Value = Fill> {
    prop_oneof![
        3 => Just(Fill::Zero),
        1 => any::<u8>().prop_map(Fill::Octet),
        1 => any::<u64>().prop_map(Fill::Noise),
    ]
}

fn page_type() -> impl Strategy<Value = PageType> {
    prop::sample::select(vec![0u8, 0, 0, 1, 2, 3, 4, 9, 10, 11, 12, 13, 14, 15])
        .prop_map(|number| PageType::new(number).unwrap())
}

/// Mostly in one piece, now and then far away.
fn pfn() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..700, 1 => 20_000u64..20_010]
}

fn guest() -> impl Strategy<Value = Guest> {
    let page = (pfn(), page_type(), fill());
    let batch = prop::collection::vec(page, 1..60);
    (
        prop::sample::select(vec![Start::Xl, Start::Libxl, Start::Libxc]),
        prop::sample::select(vec![GuestType::X86Pv, GuestType::X86Hvm]),
        prop::sample::select(vec![ImageVersion::V2, ImageVersion::V3]),
        prop::collection::vec(any::<u8>(), 0..5000),
        prop::collection::vec(batch, 1..6),
        prop::collection::vec(0usize..5000, 0..4),
    )
        .prop_map(|(start, kind, version, configuration, batches, unknown)| Guest {
            start,
            kind,
            version,
            configuration,
            batches,
            unknown,
            physmap: Vec::new(),
        })
}

/// Leaves out what is there twice.
fn once_each(mut guest: Guest) -> Guest {
    let mut seen = std::collections::BTreeSet::new();
    for batch in &mut guest.batches {
        batch.retain(|(pfn, ..)| seen.insert(*pfn));
    }
    guest.batches.retain(|batch| !batch.is_empty());
    guest
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_stream_of_pages_that_come_once_is_mapped_and_comes_back(guest in guest().prop_map(once_each)) {
        let stream = guest.stream();
        let summary = check(&stream).unwrap();
        prop_assert_eq!(summary.unknown_records, guest.unknown.len() as u64);
        let image = mapped(&stream[..]).unwrap();
        prop_assert!(from_mapped(&image) == stream);
        let mut reader = MappedReader::open(&image, Limits::default()).unwrap();
        let expected: BTreeMap<_, _> =
            guest.batches.iter().flatten().map(|(pfn, page_type, fill)| (*pfn, (*page_type, *fill))).collect();
        for pfn in (0..720).chain(19_990..20_020) {
            let mut page = [0xee; PAGE_LEN];
            let found = reader.page(pfn, &mut page).unwrap();
            prop_assert_eq!(found, expected.get(&pfn).map(|(page_type, _)| *page_type));
            if let Some((page_type, fill)) = expected.get(&pfn) {
                let content = if page_type.has_content() { fill.page() } else { Fill::Zero.page() };
                prop_assert!(page[..] == content);
            }
        }
    }

    #[test]
    fn a_stream_is_refused_as_mapped_exactly_if_a_page_comes_twice(guest in guest()) {
        let twice = once_each(guest.clone()).batches != guest.batches;
        match mapped(&guest.stream()[..]) {
            Ok(_) => prop_assert!(!twice),
            Err(ImageWriteError::Duplicate { .. }) => prop_assert!(twice),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn any_stream_is_packed_and_comes_back(guest in guest(), lz4 in any::<bool>()) {
        let stream = guest.stream();
        let codec = if lz4 { Codec::Lz4 } else { Codec::default() };
        prop_assert!(from_packed(&packed(&stream[..], codec).unwrap()) == stream);
        let mut copy = Vec::new();
        let (side, _) = passthrough::copy(&stream[..], &mut copy, Limits::default()).unwrap();
        prop_assert!(copy == stream);
        side.verify(&copy[..]).unwrap();
    }
}
