//! The tables of `docs/memory-images.md` are what the code writes.

use std::path::Path;

use snapshot::image::packed::Codec;
use snapshot::image::stream::{GuestType, PageType};

use crate::synthetic::{Fill, Guest, octets, packed};

/// An image that is shipped.
fn shipped(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name)).unwrap()
}

/// Where a field is and how long it is, by the beginning of its row in the document.
fn field(text: &str, name: &str) -> (usize, usize) {
    let mut rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| ")?.split(" | ").collect();
        let [at, len, field] = cells[..] else { return None };
        field.starts_with(name).then(|| Some((at.parse().ok()?, len.parse().ok()?)))?
    });
    rows.next().unwrap_or_else(|| panic!("the document has no field {name}"))
}

fn number(image: &[u8], (at, len): (usize, usize)) -> u64 {
    let mut octets = [0; 8];
    octets[..len].copy_from_slice(&image[at..at + len]);
    u64::from_le_bytes(octets)
}

#[test]
fn every_field_is_where_the_document_has_it() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/memory-images.md");
    let text = std::fs::read_to_string(document).unwrap();
    let stream = shipped("pv.xl");
    for (format, image) in [
        (1, shipped("pv.xl.mapped")),
        (2, shipped("pv.xl.zstd")),
        (2, shipped("pv.xl.lz4")),
        (3, shipped("pv.xl.side")),
    ] {
        let says = |name: &str| number(&image, field(&text, name));
        assert_eq!(&image[..8], b"\x8eDomImg\n");
        let (state, len) = field(&text, "state");
        assert_eq!(&image[state..state + len], b"COMPLETE");
        assert_eq!((says("major version: 1"), says("minor version: 0")), (1, 0));
        assert_eq!(says("format"), format);
        assert_eq!((says("the stream starts"), says("byte order"), says("guest")), (1, 1, 1));
        assert_eq!((says("octets of a page"), says("octets of a chunk")), (4096, 1 << 20));
        assert_eq!(says("octets of the file"), image.len() as u64);
        assert_eq!(says("octets of the stream"), stream.len() as u64);

        let crc = crc32c::crc32c(&image[..8]);
        let crc = crc32c::crc32c_append(crc, &image[16..24]);
        let crc = crc32c::crc32c_append(crc, &image[28..4096]);
        assert_eq!(says("CRC32C of octets 0 to 7"), u64::from(crc));

        let mut hashed = b"domkeep stream 1".to_vec();
        hashed.extend((stream.len() as u64).to_le_bytes());
        hashed.extend(stream.chunks(1 << 20).flat_map(|chunk| crc32c::crc32c(chunk).to_le_bytes()));
        let (at, len) = field(&text, "digest of the stream");
        assert_eq!(&image[at..at + len], blake3::hash(&hashed).as_bytes());

        let table_at = match format {
            1 => {
                let end = says("one more than the highest");
                assert_eq!((end, says("pages that have content")), (6, 4));
                assert_eq!(says("how many of those are zero"), 1);
                let records = says("octets of the records");
                assert_eq!(records, stream.len() as u64 - 4 * 4096);
                4096 + end * 4096 + records + end.div_ceil(2)
            }
            2 => says("where the table begins"),
            _ => 4096,
        };
        let table = &image[usize::try_from(table_at).unwrap()..];
        let mut hashed = image[..4096].to_vec();
        for (name, len) in [("state", 8), ("CRC32C of octets 0 to 7", 4), ("root digest", 32)] {
            let (at, of) = field(&text, name);
            assert_eq!(of, len);
            hashed[at..at + of].fill(0);
        }
        hashed.extend_from_slice(table);
        let (at, len) = field(&text, "root digest");
        assert_eq!(&image[at..at + len], blake3::hash(&hashed).as_bytes());
        match format {
            2 => {
                let entry = |name| number(table, field(&text, name));
                let stored = entry("octets in the file; bit 31");
                assert_eq!(4096 + stored, table_at);
                let frame = &image[4096..4096 + usize::try_from(stored).unwrap()];
                assert_eq!(entry("CRC32C of what is in"), u64::from(crc32c::crc32c(frame)));
                assert_eq!(entry("CRC32C of what comes"), u64::from(crc32c::crc32c(&stream)));
            }
            3 => assert_eq!(table, crc32c::crc32c(&stream).to_le_bytes()),
            _ => {
                // Pages 0, 1, 2 ordinary, ordinary, pinned level 2; 3 is told of as not there, 4 not at all, 5 ordinary.
                let types = usize::try_from(table_at).unwrap() - 3;
                assert_eq!(&image[types..types + 3], [0x55, 0xfa, 0x50]);
                assert_eq!(table.len(), 3 * 4);
            }
        }
    }
}

#[test]
fn a_frame_in_pieces_is_as_the_document_has_it() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/memory-images.md");
    let text = std::fs::read_to_string(document).unwrap();
    let rows = [
        "a repeated page: where",
        "octets of zeros",
        "octets of what is plain",
        "octets of what is compressed",
    ];
    let kinds = rows.map(|row| {
        let line = text.lines().find(|line| line.starts_with("| ") && line.contains(row));
        let kind = line.and_then(|line| line.strip_prefix("| ")?.split(" | ").next()?.parse().ok());
        kind.unwrap_or_else(|| panic!("the document has no kind {row}"))
    });
    let [repeated, zero, plain, compressed]: [u32; 4] = kinds;

    let fills = [Fill::Noise(1), Fill::Zero, Fill::Octet(2), Fill::Noise(1)];
    let pages: Vec<_> = (0..).zip(fills).map(|(pfn, fill)| (pfn, PageType::NORMAL, fill)).collect();
    let stream = Guest::with(GuestType::X86Pv, &pages).stream();
    let image = octets(&packed(&stream[..], Codec::default()).unwrap());
    let table_at = usize::try_from(number(&image, field(&text, "where the table begins"))).unwrap();
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    assert_eq!(word(table_at) >> 30, 1);
    assert_eq!(4096 + (word(table_at) & ((1 << 30) - 1)) as usize, table_at);

    let pieces: Vec<_> = (0..word(4096) as usize).map(|index| word(4100 + index * 4)).collect();
    let of = |kind: u32| {
        let numbers = pieces.iter().filter(move |piece| **piece >> 30 == kind);
        numbers.map(|piece| (piece & ((1 << 30) - 1)) as usize).collect::<Vec<_>>()
    };
    assert_eq!((of(zero), of(plain)), (vec![4096], vec![4096]));
    let plain_at = 4100 + pieces.len() * 4;
    assert!(image[plain_at..plain_at + 4096] == Fill::Noise(1).page());
    let rest = zstd::bulk::decompress(&image[plain_at + 4096..table_at], 1 << 20).unwrap();
    assert_eq!(rest.len(), of(compressed).iter().sum::<usize>());
    let [source] = of(repeated)[..] else { panic!("{pieces:?}") };
    assert!(stream[source..source + 4096] == Fill::Noise(1).page());
}
