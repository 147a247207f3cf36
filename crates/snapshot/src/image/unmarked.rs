//! An image that has been written and is not yet complete.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::error::ImageWriteError;
use super::header::{ImageInfo, ImageState, STATE_AT, complete};
use super::stream::StreamSummary;

/// An image that has been written, all but the mark that it is complete.
///
/// The mark may become durable only after everything else has. So the caller syncs, marks, and syncs again:
///
/// ```no_run
/// # use std::fs::File;
/// # use snapshot::image::mapped;
/// # fn save(input: File, file: File) -> Result<(), Box<dyn std::error::Error>> {
/// let written = mapped::write(input, file, &mapped::MappedOptions::default())?;
/// written.file().sync_all()?;
/// let complete = written.mark_complete()?;
/// complete.file.sync_all()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the image is not complete before mark_complete"]
pub struct Unmarked {
    file: File,
    info: ImageInfo,
    stream: StreamSummary,
}

/// An image that is marked as complete. The mark is not synced yet.
#[derive(Debug)]
#[non_exhaustive]
pub struct Complete {
    /// The file.
    pub file: File,
    /// What its header says.
    pub info: ImageInfo,
    /// What was in the stream.
    pub stream: StreamSummary,
}

impl Unmarked {
    pub(crate) fn new(file: File, info: ImageInfo, stream: StreamSummary) -> Self {
        Self { file, info, stream }
    }

    /// The file, to be synced.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What the header says.
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// What was in the stream.
    pub fn stream(&self) -> &StreamSummary {
        &self.stream
    }

    /// Marks the image as complete.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn mark_complete(self) -> Result<Complete, ImageWriteError> {
        let Self { file, mut info, stream } = self;
        file.write_all_at(&complete(), STATE_AT)
            .map_err(|source| ImageWriteError::Output { offset: STATE_AT, source })?;
        info.state = ImageState::Complete;
        Ok(Complete { file, info, stream })
    }
}
