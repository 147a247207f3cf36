//! Where a stream is written: a new file, or stdout.

use std::io::{self, BufWriter, Stdout, Write};
use std::path::Path;

use snapshot::CompleteFile;
use xenstore_migration::json::DocumentError;
use xenstore_migration::{ConvertError, CreateError, WriteError, WriteFailure};

use crate::exit::CommandError;

/// A new file that is complete or absent, or stdout for `-`; with how much was written.
pub(super) struct Sink {
    to: To,
    octets: u64,
}

enum To {
    Stdout(BufWriter<Stdout>),
    File(BufWriter<CompleteFile>),
}

impl Sink {
    pub(super) fn create(path: &Path) -> Result<Self, CommandError> {
        let to = if path.as_os_str() == "-" {
            To::Stdout(BufWriter::new(io::stdout()))
        } else {
            To::File(BufWriter::new(CompleteFile::create(path)?))
        };
        Ok(Self { to, octets: 0 })
    }

    pub(super) fn is_stdout(&self) -> bool {
        matches!(self.to, To::Stdout(_))
    }

    /// Gives the file its name, and says how many octets it has.
    pub(super) fn finish(self) -> Result<u64, CommandError> {
        match self.to {
            To::Stdout(mut stdout) => stdout.flush().map_err(CommandError::Output)?,
            To::File(file) => {
                let unwritten = |error: io::IntoInnerError<BufWriter<CompleteFile>>| {
                    let (source, file) = error.into_parts();
                    let path = file.get_ref().path().to_owned();
                    CommandError::File { path, action: "written", source }
                };
                file.into_inner().map_err(unwritten)?.finish()?;
            }
        }
        Ok(self.octets)
    }

    /// That the preamble was not written.
    pub(super) fn begin_error(out: &Path, error: CreateError) -> CommandError {
        match error {
            CreateError::Io { source } => io_error(out, source),
            source => CommandError::StreamCreate { path: out.to_owned(), source },
        }
    }

    /// That a record was not written.
    pub(super) fn write_error(out: &Path, error: WriteError) -> CommandError {
        match error.failure {
            WriteFailure::Io { source } => io_error(out, source),
            _ => CommandError::StreamWrite { path: out.to_owned(), source: error },
        }
    }

    /// That a document was not made a stream.
    pub(super) fn encode_error(file: &Path, out: &Path, error: DocumentError) -> CommandError {
        match error {
            DocumentError::Create { source: CreateError::Io { source } }
            | DocumentError::Write {
                source: WriteError { failure: WriteFailure::Io { source }, .. },
            } => io_error(out, source),
            source => CommandError::StreamEncode { path: file.to_owned(), source },
        }
    }

    /// That a record was not converted.
    pub(super) fn convert_error(file: &Path, out: &Path, error: ConvertError) -> CommandError {
        match error {
            ConvertError::Write {
                source: WriteError { failure: WriteFailure::Io { source }, .. },
                ..
            } => io_error(out, source),
            source => CommandError::StreamConvert { path: file.to_owned(), source },
        }
    }
}

fn io_error(out: &Path, source: io::Error) -> CommandError {
    if out.as_os_str() == "-" {
        CommandError::Output(source)
    } else {
        CommandError::File { path: out.to_owned(), action: "written", source }
    }
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = match &mut self.to {
            To::Stdout(stdout) => stdout.write(octets),
            To::File(file) => file.write(octets),
        }?;
        self.octets += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.to {
            To::Stdout(stdout) => stdout.flush(),
            To::File(file) => file.flush(),
        }
    }
}
