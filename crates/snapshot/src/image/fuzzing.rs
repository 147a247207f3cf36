//! What the fuzz targets of memory images run; the tests replay their corpora through the same functions.

use super::header::{FORMAT_VERSION, HEADER_LEN, ImageInfo, Layout, complete, reseal, root_of};
use super::inspect::{Inspected, inspect};
use super::limits::Limits;
use super::mapped::{self, MappedReader};
use super::packed::PackedReader;
use super::passthrough::{self, SideDigest};
use super::stream::{CheckedReader, StreamWriter};

/// The limits that keep one input short.
fn limits() -> Limits {
    Limits::default().pfn_max((1 << 14) - 1).stream_max(1 << 26).record_max(1 << 20)
}

/// Reads octets as a stream, and checks that every octet of what is one is given once, and written again as it was.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn save_stream(data: &[u8]) {
    let mut reader = CheckedReader::new(data, limits());
    let mut writer = StreamWriter::new(Vec::new());
    let mut raw = 0;
    let whole = loop {
        match reader.next_event() {
            Ok(Some(event)) => {
                raw += event.raw.len();
                assert!(event.place.offset <= raw as u64, "an event is placed behind itself");
                assert!(writer.content(&event.content).is_ok(), "what was read can be written");
            }
            Ok(None) => break true,
            Err(error) => {
                assert!(error.place.offset <= data.len() as u64, "an error is behind the input");
                break false;
            }
        }
    };
    let written = writer.into_inner();
    assert_eq!(written.len(), raw);
    if !whole {
        return;
    }
    assert_eq!(reader.summary().len, raw as u64);
    assert_eq!(reader.into_inner().len(), data.len() - raw, "more was read than the stream has");
    assert!(written == data[..raw], "the stream is written otherwise");
    let copied = passthrough::copy(data, std::io::sink(), limits());
    let Ok((side, summary)) = copied else { unreachable!("the stream was read before") };
    assert!(side.verify(&data[..raw]).is_ok());
    assert!(SideDigest::from_octets(&side.to_octets(), limits()).is_ok_and(|again| again == side));
    match inspect(data) {
        Ok(Inspected::Stream(info)) => assert_eq!(Some(info.start), summary.start),
        other => unreachable!("the stream is inspected as {other:?}"),
    }
}

/// Reads octets as an image of every format, as they are and with a header whose digests are right.
///
/// # Panics
///
/// If a property does not hold: that is what a fuzzer looks for.
pub fn image_headers(data: &[u8]) {
    let _ = inspect(data);
    read(data);
    let mut image = data.to_vec();
    image.resize(image.len().max(HEADER_LEN), 0);
    if let Some(info) = seal(&mut image) {
        let Ok(Inspected::Image(inspected)) = inspect(&image) else {
            unreachable!("a sealed header is one")
        };
        assert_eq!(*inspected, info);
        read(&image);
    }
}

fn read(image: &[u8]) {
    if let Ok(mut reader) = MappedReader::open(image, limits()) {
        let whole = reader.verify().is_ok();
        let mut stream = Vec::new();
        let written = reader.write_stream(&mut stream).is_ok();
        assert!(!(whole && written) || stream.len() as u64 == reader.info().stream_len);
        for pfn in 0..8 {
            let _ = reader.page_type(pfn);
        }
    }
    if let Ok(reader) = PackedReader::open(image, limits()) {
        let _ = reader.verify();
        for index in 0..reader.frames().min(8) {
            let _ = reader.frame(index);
        }
    }
    if let Ok(side) = SideDigest::from_octets(image, limits()) {
        let written = side.to_octets();
        assert!(written == image || side.info().version != FORMAT_VERSION);
        assert!(SideDigest::from_octets(&written, limits()).is_ok());
    }
}

/// Makes the header of an image be complete and its digests right; what it says if it then is one.
fn seal(image: &mut [u8]) -> Option<ImageInfo> {
    let len = image.len() as u64;
    let (page, rest) = image.split_first_chunk_mut::<HEADER_LEN>()?;
    page[8..16].copy_from_slice(&complete());
    page[64..72].copy_from_slice(&len.to_le_bytes());
    reseal(page, None);
    let table_at = match ImageInfo::from_page(page).ok()?.layout {
        Layout::Mapped { pfn_end, records_len, .. } => mapped::table_at(pfn_end, records_len)?,
        Layout::Packed { table_at, .. } => table_at,
        Layout::SideDigest => HEADER_LEN as u64,
    };
    let table = usize::try_from(table_at).ok()?.checked_sub(HEADER_LEN)?;
    let root = root_of(page, rest.get(table..)?);
    reseal(page, Some(root));
    ImageInfo::from_page(page).ok()
}
