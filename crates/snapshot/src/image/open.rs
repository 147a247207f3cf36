//! What opening an image has to do whatever its format.

use super::error::ImageOpenError;
use super::header::{HEADER_LEN, ImageFormat, ImageInfo, ImageState, root_of};
use super::limits::READ_AHEAD;
use super::read_at::{ReadAt, read_exact_at};

/// Reads the header of a complete image of a format, and checks that the file is as long as it says.
pub(crate) fn open_header(
    file: &impl ReadAt,
    wanted: ImageFormat,
) -> Result<([u8; HEADER_LEN], ImageInfo), ImageOpenError> {
    let failed = |source| ImageOpenError::Io { offset: 0, source };
    let mut page = [0; HEADER_LEN];
    read_exact_at(file, &mut page, 0).map_err(failed)?;
    let info = ImageInfo::from_page(&page)?;
    let found = info.format();
    if found != wanted {
        return Err(ImageOpenError::Format { found, wanted });
    }
    if info.state != ImageState::Complete {
        return Err(ImageOpenError::Partial);
    }
    let has = file.size().map_err(failed)?;
    if has != info.file_len {
        return Err(ImageOpenError::Length { has, says: info.file_len });
    }
    Ok((page, info))
}

/// Reads the table of digests, which ends the file, and checks it and the header against the root digest.
pub(crate) fn read_table(
    file: &impl ReadAt,
    page: &[u8; HEADER_LEN],
    info: &ImageInfo,
    at: u64,
    len: u64,
) -> Result<Vec<u8>, ImageOpenError> {
    // The format's own limits bound it.
    let len = usize::try_from(len).map_err(|_| ImageOpenError::Layout)?;
    let mut table = Vec::new();
    while table.len() < len {
        let has = table.len();
        table.resize(len.min(has + READ_AHEAD), 0);
        let offset = at + has as u64;
        read_exact_at(file, &mut table[has..], offset)
            .map_err(|source| ImageOpenError::Io { offset, source })?;
    }
    if root_of(page, &table) != info.root {
        return Err(ImageOpenError::Root);
    }
    Ok(table)
}
