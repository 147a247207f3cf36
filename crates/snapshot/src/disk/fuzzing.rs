//! What the fuzz targets of disks run; the tests replay their corpora through the same functions.

use serde_json::Value;

use super::image::{BACKING_NAME_MAX, Qcow2Header};
use super::qmp::{BlockJob, Greeting, LineDecoder, Message, QmpNode};

/// Reads octets as the header of an image, and checks that it says nothing that the format does not allow.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn qcow2_header(data: &[u8]) {
    let Ok(header) = Qcow2Header::parse(data) else { return };
    assert!(matches!(header.version, 2 | 3), "a version that is not known");
    assert!(header.cluster_size.is_power_of_two(), "a cluster size that cannot be");
    assert!((512..=2 << 20).contains(&header.cluster_size), "a cluster size that cannot be");
    assert!(i64::try_from(header.virtual_size).is_ok(), "a size that no offset can tell");
    if let Some(backing) = &header.backing {
        assert!((1..=BACKING_NAME_MAX).contains(&backing.name.len()), "a name that cannot be");
        assert!(!backing.name.contains(&0), "a name that no path can be");
        let format = backing.format.as_deref().unwrap_or("none");
        assert!(!format.is_empty() && format.bytes().all(|octet| octet.is_ascii_graphic()));
    }
    let cluster = usize::try_from(header.cluster_size).unwrap_or(usize::MAX);
    let first = &data[..data.len().min(cluster)];
    assert_eq!(Qcow2Header::parse(first), Ok(header), "a header goes on behind the first cluster");
}

/// Reads octets as what QEMU sends: the first octet tells in what pieces the others come.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn qmp(data: &[u8]) {
    let Some((piece, octets)) = data.split_first() else { return };
    let lines = lines(octets, usize::from(*piece) + 1);
    assert_eq!(lines, self::lines(octets, octets.len().max(1)), "lines depend on how they come");
    for line in &lines {
        assert!(!line.is_empty() && !line.contains(&b'\n'), "no line");
        let greeting = serde_json::from_slice::<Greeting>(line);
        let _ = greeting.map(|greeting| greeting.qmp.version.qemu);
        if let Ok(Message::Return { value, .. }) = Message::parse(line) {
            parse_nodes(value);
        }
    }
}

fn parse_nodes(value: Value) {
    let _ = serde_json::from_value::<Vec<BlockJob>>(value.clone());
    let nodes = serde_json::from_value::<Vec<QmpNode>>(value).unwrap_or_default();
    for node in nodes {
        super::overlay::path_of(&node.image);
    }
}

fn lines(octets: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut decoder = LineDecoder::default();
    let mut lines = Vec::new();
    for piece in octets.chunks(piece) {
        decoder.push(piece);
        while let Ok(Some(line)) = decoder.next_line() {
            lines.push(line);
        }
    }
    lines
}
