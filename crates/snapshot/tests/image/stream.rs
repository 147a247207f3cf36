//! Framing, and what no saved domain is.

use std::error::Error as _;
use std::io::{self, Read};

use snapshot::image::Limits;
use snapshot::image::stream::{
    BodyError, CheckedReader, Content, DomainHeader, GuestType, ImageHeader, ImageVersion,
    LibxcRecord, LibxcType, LibxlHeader, LibxlType, PAGE_LEN, PageEntry, PageType, Part, Start,
    StreamError, StreamFailure, StreamReader, StreamWriter,
};

use crate::synthetic::{Fill, Guest, check, libxc, libxl};

/// A libxc image of these records behind its headers.
fn image(
    guest: GuestType,
    version: ImageVersion,
    records: &[(LibxcType, &[u8])],
) -> Result<(), StreamError> {
    let mut writer = StreamWriter::new(Vec::new());
    writer.image_header(ImageHeader { version }).unwrap();
    writer.domain_header(DomainHeader { guest, xen_major: 4, xen_minor: 17 }).unwrap();
    for (record_type, body) in records {
        libxc(&mut writer, *record_type, body);
    }
    check(&writer.into_inner()).map(drop)
}

const PV: GuestType = GuestType::X86Pv;
const HVM: GuestType = GuestType::X86Hvm;
const INFO: (LibxcType, &[u8]) = (LibxcType::X86_PV_INFO, &[8, 4, 0, 0, 0, 0, 0, 0]);
const STATIC: (LibxcType, &[u8]) = (LibxcType::STATIC_DATA_END, &[]);
const FRAMES: (LibxcType, &[u8]) =
    (LibxcType::X86_PV_P2M_FRAMES, &[0, 0, 0, 0, 9, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]);
const SHARED: (LibxcType, &[u8]) = (LibxcType::SHARED_INFO, &[0; PAGE_LEN]);
const END: (LibxcType, &[u8]) = (LibxcType::END, &[]);

/// The body of a PAGE_DATA record of one page without content.
fn one_page(pfn: u64) -> Vec<u8> {
    let entry = PageEntry::new(pfn, PageType::INVALID).unwrap();
    [&[1, 0, 0, 0, 0, 0, 0, 0][..], &entry.bits().to_le_bytes()].concat()
}

#[track_caller]
fn is_refused(result: Result<(), StreamError>, at: u64, why: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), why);
    let Part::LibxcRecord { index, record_type: Some(_) } = error.place.part else {
        panic!("{error}")
    };
    assert_eq!(index, at, "{error}");
}

#[test]
fn records_in_an_order_that_libxc_does_not_take_are_refused() {
    let page = one_page(3);
    let data = (LibxcType::PAGE_DATA, &page[..]);
    let v3 = ImageVersion::V3;
    image(PV, v3, &[INFO, STATIC, FRAMES, data, SHARED, END]).unwrap();
    image(PV, ImageVersion::V2, &[INFO, FRAMES, data, SHARED, END]).unwrap();
    image(HVM, v3, &[STATIC, data, END]).unwrap();
    let before = |name| format!("{name} has to come before it");
    is_refused(image(PV, v3, &[STATIC, FRAMES]), 1, &before("X86_PV_INFO"));
    is_refused(image(PV, v3, &[INFO, FRAMES]), 1, &before("STATIC_DATA_END"));
    is_refused(image(PV, v3, &[INFO, STATIC, data]), 2, &before("X86_PV_P2M_FRAMES"));
    is_refused(image(HVM, v3, &[data]), 0, &before("STATIC_DATA_END"));
    is_refused(image(PV, v3, &[INFO, STATIC, FRAMES, END]), 3, &before("PAGE_DATA"));
    is_refused(image(PV, v3, &[INFO, STATIC, FRAMES, data, END]), 4, &before("SHARED_INFO"));
    is_refused(image(PV, v3, &[INFO, INFO]), 1, "there is such a record already");
    is_refused(image(HVM, v3, &[STATIC, STATIC]), 1, "there is such a record already");
    is_refused(image(PV, v3, &[INFO, STATIC, FRAMES, FRAMES]), 3, "there is such a record already");
    let policy = (LibxcType::X86_CPUID_POLICY, &[0; 24][..]);
    is_refused(image(HVM, v3, &[STATIC, policy]), 1, "it has to come before STATIC_DATA_END");
}

#[test]
fn records_of_the_other_kind_of_guest_and_of_checkpoints_are_refused() {
    let v3 = ImageVersion::V3;
    is_refused(image(HVM, v3, &[INFO]), 0, "an x86 HVM guest has no such record");
    let context = (LibxcType::HVM_CONTEXT, &[][..]);
    is_refused(image(PV, v3, &[context]), 0, "an x86 PV guest has no such record");
    let checkpoint = "the record belongs to checkpoints, which no saved domain has";
    is_refused(image(HVM, v3, &[(LibxcType::CHECKPOINT, &[])]), 0, checkpoint);
    let list = (LibxcType::CHECKPOINT_DIRTY_PFN_LIST, &[0; 8][..]);
    is_refused(image(HVM, v3, &[list]), 0, checkpoint);
}

#[test]
fn a_page_beyond_the_guests_memory_is_refused() {
    let v3 = ImageVersion::V3;
    let (last, beyond) = (one_page(9), one_page(10));
    let records = |page| [INFO, STATIC, FRAMES, (LibxcType::PAGE_DATA, page), SHARED, END];
    image(PV, v3, &records(&last)).unwrap();
    let why = "page 0xa is beyond the last one, 0x9";
    is_refused(image(PV, v3, &records(&beyond)), 3, why);
    let far = one_page(1 << 28);
    let why = "page 0x10000000 is beyond the last one, 0xfffffff";
    is_refused(image(HVM, v3, &[STATIC, (LibxcType::PAGE_DATA, &far)]), 1, why);
}

#[test]
fn bodies_that_are_not_what_their_types_say_are_refused() {
    let v3 = ImageVersion::V3;
    let refuse = |record_type, body: &[u8], why: &str| {
        is_refused(image(HVM, v3, &[STATIC, (record_type, body)]), 1, why);
    };
    refuse(LibxcType::X86_TSC_INFO, &[0; 23], "the body has 23 octets, not 24");
    refuse(LibxcType::X86_TSC_INFO, &[1; 24], "reserved octets of the body are not zero");
    refuse(
        LibxcType::HVM_PARAMS,
        &[2, 0, 0, 0, 0, 0, 0, 0],
        "the body has 8 octets, which is not what 2 entries have",
    );
    refuse(LibxcType::END, &[0], "the body has 1 octets, not 0");
    refuse(LibxcType::PAGE_DATA, &[0; 8], "the record has no pages");
    refuse(LibxcType::PAGE_DATA, &[0; 7], "the body has 7 octets, and needs at least 8");
    let mut page = one_page(3);
    page[15] = 0x50;
    let why = "entry 0, 0x5000000000000003, has reserved bits or a type that is not in use";
    refuse(LibxcType::PAGE_DATA, &page, why);
    page[15] = 0;
    let why = "the body has 16 octets, which is not what 1 entries have";
    refuse(LibxcType::PAGE_DATA, &page, why);
    let vcpu = (LibxcType::X86_PV_VCPU_XSAVE, &[0; 7][..]);
    let why = "the body has 7 octets, and needs at least 8";
    is_refused(image(PV, v3, &[INFO, STATIC, vcpu]), 2, why);
    let info = (LibxcType::X86_PV_INFO, &[4, 4, 0, 0, 0, 0, 0, 0][..]);
    let why = "no PV guest has addresses of 4 octets and 4 levels of page tables";
    is_refused(image(PV, v3, &[info]), 0, why);
}

#[test]
fn unknown_optional_records_are_kept_and_unknown_mandatory_ones_refused() {
    let page = one_page(0);
    let data = (LibxcType::PAGE_DATA, &page[..]);
    let optional = (LibxcType(0x8000_0012), &b"seven o"[..]);
    image(HVM, ImageVersion::V3, &[STATIC, optional, data, optional, END]).unwrap();
    let mandatory = (LibxcType(0x13), &[][..]);
    let why = "the type of the record is not known, and it is not optional";
    is_refused(image(HVM, ImageVersion::V3, &[STATIC, mandatory]), 1, why);
    let mut writer = StreamWriter::new(Vec::new());
    writer.libxl_header(LibxlHeader { from_legacy: true }).unwrap();
    libxl(&mut writer, LibxlType(0x8000_0000), b"?");
    libxl(&mut writer, LibxlType(6), b"?");
    let error = check(&writer.into_inner()).unwrap_err();
    assert_eq!(error.to_string(), "libxl record 1 (type 0x6) at octet 32");
    assert!(matches!(error.failure, StreamFailure::UnknownMandatory));
}

#[test]
fn a_stream_of_libxl_without_an_image_is_refused() {
    let mut writer = StreamWriter::new(Vec::new());
    writer.libxl_header(LibxlHeader { from_legacy: false }).unwrap();
    libxl(&mut writer, LibxlType::END, &[]);
    let error = check(&writer.into_inner()).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "LIBXC_CONTEXT has to come before it");
}

#[test]
fn padding_that_is_not_zero_is_refused() {
    let mut guest = Guest::of_pages(HVM, 3);
    guest.start = Start::Libxc;
    guest.unknown = vec![3];
    let mut stream = guest.stream();
    let at = stream.iter().position(|octet| *octet == 0xab).unwrap();
    stream[at + 3] = 1;
    assert!(matches!(check(&stream).unwrap_err().failure, StreamFailure::Padding));
}

#[test]
fn headers_of_other_versions_and_byte_orders_are_refused_by_name() {
    let stream = Guest::of_pages(PV, 3).stream();
    let libxl_at = 48 + 4 + 14;
    let image_at = libxl_at + 16 + 8;
    let cases: [(usize, u8, &str); 12] = [
        (5, b'x', "the first octets are those of no saved domain"),
        (31, 0, "the first 32 octets are not those of an xl save file"),
        (32, 7, "the byte-order mark is 0x01020307"),
        (36, 7, "mandatory flags 0x7 have bits set that are not known"),
        (36, 1, "the file holds a stream of Xen 4.5 or older"),
        (48, 13, "the configuration has 13 octets, and there are 14"),
        (libxl_at + 11, 1, "the libxl stream has version 1, not 2"),
        (libxl_at + 15, 1, "the libxl stream is big-endian"),
        (image_at + 15, 4, "the libxc image has version 4, neither 2 nor 3"),
        (image_at + 17, 1, "the libxc image is big-endian"),
        (image_at + 24, 3, "the domain is of type 3, neither 1 (PV) nor 2 (HVM)"),
        (image_at + 28, 16, "the domain has pages of 2^16 octets, not of 4096"),
    ];
    for (at, octet, why) in cases {
        let mut stream = stream.clone();
        stream[at] = octet;
        let error = check(&stream).unwrap_err();
        assert_eq!(error.source().unwrap().to_string(), why);
    }
    let mut swapped = stream;
    swapped[32..36].reverse();
    let error = check(&swapped).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "the file was saved on a big-endian machine");
}

/// Gives what there is, and then says what was asked for.
struct Asked<'a> {
    octets: &'a [u8],
    most: usize,
}

impl Read for Asked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.most = self.most.max(buffer.len());
        self.octets.read(buffer)
    }
}

#[test]
fn a_length_that_is_not_there_makes_the_reader_hold_no_more() {
    let mut writer = StreamWriter::new(Vec::new());
    writer.libxl_header(LibxlHeader { from_legacy: false }).unwrap();
    let mut stream = writer.into_inner();
    for (len, refused_at_once) in [(u32::MAX, true), (32 << 20, false), ((32 << 20) + 1, true)] {
        stream.truncate(16);
        stream.extend([3u32.to_le_bytes(), len.to_le_bytes()].concat());
        let mut input = Asked { octets: &stream, most: 0 };
        let mut reader = StreamReader::new(&mut input, Limits::default());
        reader.next_event().unwrap();
        let error = reader.next_event().unwrap_err();
        let at_once = matches!(error.failure, StreamFailure::TooLong { .. });
        assert_eq!(at_once, refused_at_once, "{error}");
        assert!(input.most <= 64 << 10, "{}", input.most);
    }
}

#[test]
fn a_batch_of_more_pages_than_are_taken_is_refused_before_it_is_read() {
    let mut body = one_page(0);
    body[..4].copy_from_slice(&0x10001u32.to_le_bytes());
    let result = image(HVM, ImageVersion::V3, &[STATIC, (LibxcType::PAGE_DATA, &body)]);
    is_refused(result, 1, "the record has 65537 pages, and no more than 65536 are taken");
}

#[test]
fn after_an_error_there_is_nothing_more_to_be_had() {
    let mut stream = Guest::of_pages(PV, 30).stream();
    let at = stream.len() - 8;
    stream[at] = 9;
    let mut reader = CheckedReader::new(&stream[..], Limits::default());
    while let Ok(event) = reader.next_event() {
        assert!(event.is_some());
    }
    for _ in 0..3 {
        let error = reader.next_event().unwrap_err();
        assert!(matches!(error.failure, StreamFailure::AfterError), "{error}");
    }
}

#[test]
fn a_configuration_is_had_as_it_was_written() {
    let mut guest = Guest::of_pages(PV, 1);
    guest.configuration = b"{\n}\n\0".to_vec();
    let stream = guest.stream();
    let mut reader = StreamReader::new(&stream[..], Limits::default());
    let event = reader.next_event().unwrap().unwrap();
    let Content::XlHeader(header) = event.content else { panic!() };
    assert_eq!(header.configuration().unwrap(), Some(&b"{\n}\n\0"[..]));
    assert!(header.is_json());
}

#[test]
fn pages_are_given_at_most_a_mebibyte_at_a_time() {
    let pages: Vec<_> = (0..1000).map(|pfn| (pfn, PageType::NORMAL, Fill::Zero)).collect();
    let stream = Guest::with(HVM, &pages).stream();
    let mut reader = StreamReader::new(&stream[..], Limits::default());
    let mut given = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        if let Content::Pages { pfns, octets } = event.content {
            assert_eq!(octets.len(), pfns.len() * PAGE_LEN);
            assert!(octets.len() <= 1 << 20);
            given.extend_from_slice(pfns);
        }
    }
    assert!(given.into_iter().eq(0..1000));
}

#[test]
fn what_records_say_is_had_from_their_bodies() {
    use snapshot::image::stream::LibxcBody;
    let record = |record_type, body| LibxcRecord { record_type, body }.decode();
    assert_eq!(
        record(LibxcType::X86_PV_INFO, &[4, 3, 0, 0, 0, 0, 0, 0]),
        Ok(LibxcBody::X86PvInfo { width: 4, levels: 3 })
    );
    assert_eq!(
        record(FRAMES.0, FRAMES.1),
        Ok(LibxcBody::X86PvP2mFrames { start: 0, end: 9, frames: &[1; 8] })
    );
    assert_eq!(
        record(LibxcType::X86_PV_VCPU_MSRS, &[2, 0, 0, 0, 0, 0, 0, 0]),
        Ok(LibxcBody::X86PvVcpu { vcpu: 2, context: &[] })
    );
    assert_eq!(
        record(LibxcType::X86_MSR_POLICY, &[0; 17]),
        Err(BodyError::Multiple { len: 17, of: 16 })
    );
}
