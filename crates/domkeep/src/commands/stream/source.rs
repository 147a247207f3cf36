//! A stream, from a file or from stdin.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use xenstore_migration::{Placed, ReadOptions, StreamReader};

use crate::exit::CommandError;

/// A stream that is being read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) reader: StreamReader<Counted>,
    /// Whether somebody may still be writing, so that one cannot ask for more than the stream without waiting for them.
    is_file: bool,
}

impl Source {
    /// Opens a file, or stdin for `-`, and reads the preamble.
    pub(super) fn open(path: &Path, options: ReadOptions) -> Result<Self, CommandError> {
        let failed =
            |action| move |source| CommandError::File { path: path.to_owned(), action, source };
        let (input, is_file): (Box<dyn Read>, bool) = if path.as_os_str() == "-" {
            (Box::new(io::stdin()), false)
        } else {
            let file = File::open(path).map_err(failed("opened"))?;
            let is_file = file.metadata().map_err(failed("read"))?.is_file();
            (Box::new(file), is_file)
        };
        let input = Counted { input: BufReader::new(input), octets: 0 };
        let reader = StreamReader::open(input, options)
            .map_err(|source| CommandError::StreamOpen { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader, is_file })
    }

    /// The next record; `None` after END.
    pub(super) fn next_record(&mut self) -> Result<Option<Placed<'_>>, CommandError> {
        let Self { path, reader, .. } = self;
        reader
            .next_record()
            .map_err(|source| CommandError::StreamRead { path: path.clone(), source })
    }

    /// After END: how many octets the stream has, and whether the file goes on behind them.
    pub(super) fn end(self) -> Result<End, CommandError> {
        let mut input = self.reader.into_inner();
        let octets = input.octets;
        // One cannot ask a pipe without waiting for whoever writes into it.
        let goes_on = self.is_file
            && input.read(&mut [0]).map_err(|source| CommandError::File {
                path: self.path,
                action: "read",
                source,
            })? > 0;
        Ok(End { octets, goes_on })
    }
}

/// What is known at the end of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// Octets of the stream, from its first to the last of END.
    pub(super) octets: u64,
    /// Whether the file has more.
    pub(super) goes_on: bool,
}

/// An input that counts what has been taken from it.
pub(super) struct Counted {
    input: BufReader<Box<dyn Read>>,
    octets: u64,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.octets += read as u64;
        Ok(read)
    }
}
