//! The header of a qcow2 image.
//!
//! The format is specified in QEMU's docs/interop/qcow2.rst. All numbers are big-endian:
//!
//! ```text
//!   0  "QFI\xfb"          4  version (2, 3)        8  backing file offset (u64)
//!  16  backing size       20 cluster bits         24  virtual size (u64)
//!  32  encryption         36 L1 entries           40  L1 table offset (u64)
//!  48  refcount table     56 its clusters         60  snapshots            64  snapshot table offset
//!  version 3:
//!  72  incompatible       80 compatible           88  autoclear features (u64 each)
//!  96  refcount order    100 header length       104  compression type (u8)
//!  header length (72 in version 2): extensions of type (u32), length (u32), content padded to 8; type 0 ends them
//! ```

const MAGIC: [u8; 4] = *b"QFI\xfb";
const LENGTH_V2: usize = 72;
const LENGTH_V3: usize = 104;

/// Cluster sizes of 512 octets to 2 MiB, as the format allows.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// The biggest cluster. All that a header says is in the first one.
pub(super) const CLUSTER_MAX: u64 = 1 << 21;
/// Longest name of a backing file that the format allows.
pub const BACKING_NAME_MAX: usize = 1023;
/// Longest name of a backing format: the longest that QEMU has is a dozen letters.
const BACKING_FORMAT_MAX: usize = 15;
/// Biggest image: what an offset of a file can tell.
const VIRTUAL_SIZE_MAX: u64 = i64::MAX as u64;
/// Biggest L1 table that QEMU opens, in octets.
const L1_MAX: u64 = 32 << 20;

const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;

const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const INCOMPATIBLE_KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2;

/// What the header of a qcow2 image says about it, checked for what the format allows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Qcow2Header {
    /// Version of the format: 2 or 3.
    pub version: u32,
    /// Octets in a cluster.
    pub cluster_size: u64,
    /// Octets that the guest sees.
    pub virtual_size: u64,
    /// The backing file as it is recorded.
    pub backing: Option<RecordedBacking>,
    /// Internal snapshots.
    pub snapshots: u32,
    /// The content is encrypted.
    pub encrypted: bool,
    /// Some program has found the image corrupt and marked it so.
    pub marked_corrupt: bool,
    /// The content is in another file.
    pub external_data: bool,
}

/// A backing file as an image records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedBacking {
    /// The octets of the name: not empty, at most [`BACKING_NAME_MAX`].
    pub name: Vec<u8>,
    /// The format, where it is recorded. Without it QEMU guesses, and a guest that wrote a header into a raw image chooses.
    pub format: Option<String>,
}

impl Qcow2Header {
    /// Reads a header out of the first octets of an image.
    ///
    /// `octets` is the first cluster, or all of a file that is shorter.
    ///
    /// # Errors
    ///
    /// If these are not octets of a qcow2 image, or not such as the format allows.
    pub fn parse(octets: &[u8]) -> Result<Self, Qcow2HeaderError> {
        if octets.get(..4) != Some(&MAGIC) {
            return Err(Qcow2HeaderError::NoMagic);
        }
        let version = u32_at(octets, 4)?;
        let length = match version {
            2 => LENGTH_V2,
            3 => usize::try_from(u32_at(octets, 100)?).unwrap_or(usize::MAX),
            _ => return Err(Qcow2HeaderError::Version { version }),
        };
        let cluster_bits = u32_at(octets, 20)?;
        if !CLUSTER_BITS.contains(&cluster_bits) {
            return Err(Qcow2HeaderError::ClusterBits { cluster_bits });
        }
        let cluster_size = 1_u64 << cluster_bits;
        let first_cluster = usize::try_from(cluster_size).unwrap_or(usize::MAX).min(octets.len());
        let octets = &octets[..first_cluster];
        let unaligned = version == 3 && (length < LENGTH_V3 || !length.is_multiple_of(8));
        if unaligned || length > octets.len() {
            return Err(Qcow2HeaderError::Length { length });
        }
        let incompatible = if version == 3 { u64_at(octets, 72)? } else { 0 };
        if incompatible & !INCOMPATIBLE_KNOWN != 0 {
            return Err(Qcow2HeaderError::Features { unknown: incompatible & !INCOMPATIBLE_KNOWN });
        }
        if version == 3 && u32_at(octets, 96)? > 6 {
            return Err(Qcow2HeaderError::RefcountOrder);
        }
        let virtual_size = u64_at(octets, 24)?;
        check_tables(octets, virtual_size, cluster_bits, incompatible & EXTENDED_L2 != 0)?;
        let backing_offset = u64_at(octets, 8)?;
        let backing_size = usize::try_from(u32_at(octets, 16)?).unwrap_or(usize::MAX);
        let extensions_end = match usize::try_from(backing_offset) {
            Ok(0) => octets.len(),
            Ok(offset) if (length..octets.len()).contains(&offset) => offset,
            _ => return Err(Qcow2HeaderError::BackingName),
        };
        let format = backing_format(&octets[length..extensions_end])?;
        let backing = if backing_offset == 0 {
            if backing_size != 0 || format.is_some() {
                return Err(Qcow2HeaderError::BackingName);
            }
            None
        } else {
            if backing_size == 0 || backing_size > BACKING_NAME_MAX {
                return Err(Qcow2HeaderError::BackingName);
            }
            let name = octets[extensions_end..].get(..backing_size);
            let name = name.ok_or(Qcow2HeaderError::BackingName)?;
            if name.contains(&0) {
                return Err(Qcow2HeaderError::BackingName);
            }
            Some(RecordedBacking { name: name.to_vec(), format })
        };
        let encryption = u32_at(octets, 32)?;
        if encryption > 2 {
            return Err(Qcow2HeaderError::Encryption { encryption });
        }
        Ok(Self {
            version,
            cluster_size,
            virtual_size,
            backing,
            snapshots: u32_at(octets, 60)?,
            encrypted: encryption != 0,
            marked_corrupt: incompatible & CORRUPT != 0,
            external_data: incompatible & EXTERNAL_DATA != 0,
        })
    }
}

/// The tables that map the content have to be such as can map an image of this size.
fn check_tables(
    octets: &[u8],
    virtual_size: u64,
    cluster_bits: u32,
    extended_l2: bool,
) -> Result<(), Qcow2HeaderError> {
    if virtual_size > VIRTUAL_SIZE_MAX {
        return Err(Qcow2HeaderError::VirtualSize { virtual_size });
    }
    let l2_entry_bits = if extended_l2 { 4 } else { 3 };
    let mapped_by_an_l1_entry = 1_u64 << (2 * cluster_bits - l2_entry_bits);
    let entries = u64::from(u32_at(octets, 36)?);
    let needed = virtual_size.div_ceil(mapped_by_an_l1_entry);
    if entries < needed || entries * 8 > L1_MAX {
        return Err(Qcow2HeaderError::L1Entries { entries, needed });
    }
    let cluster_size = 1_u64 << cluster_bits;
    for (offset, table) in [(40, "L1"), (48, "refcount"), (64, "snapshot")] {
        let at = u64_at(octets, offset)?;
        if !at.is_multiple_of(cluster_size) || at > VIRTUAL_SIZE_MAX {
            return Err(Qcow2HeaderError::TableOffset { table, at });
        }
    }
    Ok(())
}

/// Finds the recorded backing format among the extensions.
fn backing_format(mut extensions: &[u8]) -> Result<Option<String>, Qcow2HeaderError> {
    let mut format = None;
    // What is left over at the end is shorter than an extension's head.
    while extensions.len() >= 8 {
        let kind = u32_at(extensions, 0)?;
        if kind == EXTENSION_END {
            break;
        }
        let length = usize::try_from(u32_at(extensions, 4)?).unwrap_or(usize::MAX);
        let content = extensions[8..].get(..length);
        let content = content.ok_or(Qcow2HeaderError::Extension { kind, length })?;
        if kind == EXTENSION_BACKING_FORMAT {
            let name = (1..=BACKING_FORMAT_MAX).contains(&length).then_some(content);
            let name = name.and_then(|name| std::str::from_utf8(name).ok());
            let name = name.filter(|name| name.bytes().all(|octet| octet.is_ascii_graphic()));
            // Two of them: which one counts would be the reader's choice.
            let (Some(name), None) = (name, &format) else {
                return Err(Qcow2HeaderError::BackingFormat);
            };
            format = Some(name.to_owned());
        }
        let padded = 8 + length.next_multiple_of(8);
        extensions = extensions.get(padded..).unwrap_or(&[]);
    }
    Ok(format)
}

fn u32_at(octets: &[u8], at: usize) -> Result<u32, Qcow2HeaderError> {
    octets_at(octets, at).map(u32::from_be_bytes)
}

fn u64_at(octets: &[u8], at: usize) -> Result<u64, Qcow2HeaderError> {
    octets_at(octets, at).map(u64::from_be_bytes)
}

fn octets_at<const N: usize>(octets: &[u8], at: usize) -> Result<[u8; N], Qcow2HeaderError> {
    let field = octets.get(at..).and_then(|rest| rest.first_chunk());
    field.copied().ok_or(Qcow2HeaderError::Short { octets: octets.len() })
}

/// Why a header cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2HeaderError {
    /// Another format, or no image.
    #[error("it does not begin as a qcow2 image does")]
    NoMagic,
    /// The file ends within the header.
    #[error("it ends after {octets} octets, within the header")]
    Short {
        /// Octets there are.
        octets: usize,
    },
    /// A version other than 2 and 3.
    #[error("version {version} of qcow2 is not known")]
    Version {
        /// The version.
        version: u32,
    },
    /// A header length that the format does not allow, or beyond the first cluster.
    #[error("a header of {length} octets cannot be")]
    Length {
        /// The length.
        length: usize,
    },
    /// A cluster size that the format does not allow.
    #[error("clusters of 2^{cluster_bits} octets cannot be")]
    ClusterBits {
        /// Binary logarithm of the size.
        cluster_bits: u32,
    },
    /// Features without which the image cannot be understood.
    #[error("it needs features that are not known ({unknown:#x})")]
    Features {
        /// Their bits.
        unknown: u64,
    },
    /// A size that no file offset can tell.
    #[error("a virtual size of {virtual_size} octets cannot be")]
    VirtualSize {
        /// The size.
        virtual_size: u64,
    },
    /// An L1 table that does not fit the virtual size.
    #[error("an L1 table of {entries} entries, where the image needs {needed}")]
    L1Entries {
        /// Entries there are.
        entries: u64,
        /// Entries that the virtual size needs.
        needed: u64,
    },
    /// A table that does not begin with a cluster.
    #[error("the {table} table cannot be at {at:#x}")]
    TableOffset {
        /// Which table.
        table: &'static str,
        /// Its offset in the file.
        at: u64,
    },
    /// A width of reference counts that the format does not allow.
    #[error("reference counts are wider than 64 bits")]
    RefcountOrder,
    /// A kind of encryption that the format does not have.
    #[error("encryption {encryption} is not known")]
    Encryption {
        /// The number of the kind.
        encryption: u32,
    },
    /// The name of the backing file is out of place, too long, or half missing.
    #[error("the name of the backing file is malformed")]
    BackingName,
    /// The recorded backing format is no name, or there are two.
    #[error("the backing format is malformed")]
    BackingFormat,
    /// An extension that is longer than the place it has.
    #[error("header extension {kind:#x} of {length} octets does not fit")]
    Extension {
        /// Its type.
        kind: u32,
        /// Its length.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header as qemu-img 10 writes it, without a backing file if `backing` is empty.
    fn header(backing: &[u8], format: &[u8]) -> Vec<u8> {
        let mut octets = vec![0; 1024];
        octets[..4].copy_from_slice(&MAGIC);
        octets[7] = 3;
        octets[23] = 16;
        octets[24..32].copy_from_slice(&(64_u64 << 20).to_be_bytes());
        octets[39] = 1;
        octets[45] = 3;
        octets[53] = 1;
        octets[59] = 1;
        octets[99] = 4;
        octets[103] = 112;
        let mut at = 112;
        if !format.is_empty() {
            octets[at..at + 4].copy_from_slice(&EXTENSION_BACKING_FORMAT.to_be_bytes());
            octets[at + 7] = u8::try_from(format.len()).unwrap();
            octets[at + 8..at + 8 + format.len()].copy_from_slice(format);
            at += 8 + format.len().next_multiple_of(8);
        }
        if !backing.is_empty() {
            at += 8; // the extension that ends them
            octets[8..16].copy_from_slice(&(at as u64).to_be_bytes());
            octets[16..20].copy_from_slice(&u32::try_from(backing.len()).unwrap().to_be_bytes());
            octets[at..at + backing.len()].copy_from_slice(backing);
        }
        octets
    }

    #[test]
    fn the_recorded_backing_file_is_read_with_its_format() {
        let parsed = Qcow2Header::parse(&header(b"/images/base", b"raw")).unwrap();
        assert_eq!(parsed.virtual_size, 64 << 20);
        let backing = parsed.backing.unwrap();
        assert_eq!(backing.name, b"/images/base");
        assert_eq!(backing.format.as_deref(), Some("raw"));
        let parsed = Qcow2Header::parse(&header(b"/images/base", b"")).unwrap();
        assert_eq!(parsed.backing.unwrap().format, None);
        assert_eq!(Qcow2Header::parse(&header(b"", b"")).unwrap().backing, None);
    }

    #[test]
    fn a_second_backing_format_is_refused() {
        let mut octets = header(b"/b", b"qcow2");
        let second: Vec<u8> = octets[112..128].to_vec();
        octets[128..144].copy_from_slice(&second);
        octets[8..16].copy_from_slice(&160_u64.to_be_bytes());
        octets[160..162].copy_from_slice(b"/b");
        assert_eq!(Qcow2Header::parse(&octets), Err(Qcow2HeaderError::BackingFormat));
    }

    #[test]
    fn a_backing_file_within_the_header_or_beyond_the_cluster_is_refused() {
        for offset in [1_u64, 100, 1023, 65_536, u64::MAX] {
            let mut octets = header(b"/images/base", b"raw");
            octets[8..16].copy_from_slice(&offset.to_be_bytes());
            assert_eq!(Qcow2Header::parse(&octets), Err(Qcow2HeaderError::BackingName));
        }
    }

    #[test]
    fn features_that_nobody_knows_are_refused() {
        let mut octets = header(b"", b"");
        octets[79] = 0x20;
        assert_eq!(Qcow2Header::parse(&octets), Err(Qcow2HeaderError::Features { unknown: 0x20 }));
    }

    proptest! {
        #[test]
        fn any_octets_are_a_header_or_an_error(octets: Vec<u8>) {
            let _ = Qcow2Header::parse(&octets);
        }

        #[test]
        fn a_changed_header_is_a_header_or_an_error(
            changes in prop::collection::vec((0_usize..200, any::<u8>()), 0..12),
            kept in 0_usize..=1024,
        ) {
            let mut octets = header(b"/images/base", b"qcow2");
            for (at, octet) in changes {
                octets[at] = octet;
            }
            if let Ok(parsed) = Qcow2Header::parse(&octets[..kept]) {
                prop_assert!(parsed.cluster_size.is_power_of_two());
                prop_assert!(parsed.virtual_size <= VIRTUAL_SIZE_MAX);
                if let Some(backing) = parsed.backing {
                    prop_assert!((1..=BACKING_NAME_MAX).contains(&backing.name.len()));
                }
            }
        }

        #[test]
        fn what_is_recorded_is_what_is_read(name in "/[a-z/]{0,200}", format in "(raw|qcow2|)") {
            let parsed = Qcow2Header::parse(&header(name.as_bytes(), format.as_bytes())).unwrap();
            let backing = parsed.backing.unwrap();
            prop_assert_eq!(backing.name, name.as_bytes());
            prop_assert_eq!(backing.format.unwrap_or_default(), format);
        }
    }
}
