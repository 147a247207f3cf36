//! `snapshot transcode`: a memory image in another format.

use std::io::{self, BufWriter, Read, Stdout, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use snapshot::CompleteFile;
use snapshot::image::mapped::{self, MappedOptions};
use snapshot::image::packed::{self, Codec, PackedOptions, ZSTD_LEVEL_DEFAULT};
use snapshot::image::passthrough::{self, SideDigest};
use snapshot::image::{Digest, ImageWriteError, Limits, Unmarked};

use super::bar::Bar;
use super::error::SnapshotError;
use super::memory::{ReadFailure, Saved, Watch};
use super::{new_file, told};
use crate::arguments::{CodecChoice, FormatChoice, Packing, Transcode};
use crate::exit::{CommandError, Exit};
use crate::explain::printable;
use crate::output::Output;

/// Octets that are written at once.
const BUFFER_LEN: usize = 1 << 20;

/// What was written, for a program.
#[derive(Serialize)]
struct Transcoded {
    out: PathBuf,
    format: &'static str,
    file_octets: u64,
    stream_octets: u64,
    stream_digest: String,
    side_digest: Option<PathBuf>,
    /// Where in the input something begins that is not part of the stream.
    goes_on_at: Option<u64>,
}

pub(super) fn run(asked: &Transcode, output: &mut Output) -> Result<Exit, CommandError> {
    let to_stdout = asked.out.as_os_str() == "-";
    check(asked, to_stdout)?;
    if let Some(path) = &asked.side_digest {
        new_file::must_be_free(path)?;
    }
    let mut bar = Bar::new(output);
    bar.name("transcode");
    let watch = Watch { counter: bar.counter(), cancel: told::cancelled_by_signals()? };
    let transcoding = Transcoding { asked, watch: &watch };
    let mut saved = Saved::open(&asked.file, &watch)?;
    let digest = saved.stream_digest();
    let written = match asked.to {
        FormatChoice::Stream => transcoding.to_stream(&mut saved, to_stdout)?,
        FormatChoice::Mapped => {
            let options = MappedOptions::default();
            transcoding.to_image(&mut saved, |input, file| mapped::write(input, file, &options))?
        }
        FormatChoice::Packed => {
            let options = packed_options(asked.packing);
            transcoding.to_image(&mut saved, |input, file| packed::write(input, file, &options))?
        }
    };
    if digest.is_some_and(|digest| digest != written.digest) {
        let (file, out) = (asked.file.clone(), asked.out.clone());
        return Err(SnapshotError::OtherStream { file, out }.into());
    }
    let Written { mut unnamed, octets, stream_octets, digest, side } = written;
    unnamed.finish()?;
    if let (Some(path), Some(side)) = (&asked.side_digest, &side) {
        new_file::write(path, &side.to_octets())?;
    }
    let goes_on_at = match &mut saved {
        Saved::Stream(stream) => stream.goes_on()?,
        _ => None,
    };
    drop(bar);
    let told = Transcoded {
        out: asked.out.clone(),
        format: name(asked.to),
        file_octets: octets,
        stream_octets,
        stream_digest: digest.to_string(),
        side_digest: asked.side_digest.clone(),
        goes_on_at,
    };
    // Where the stream goes, nothing else does.
    let mut stderr = Output::stderr(output.is_json());
    let output = if to_stdout { &mut stderr } else { output };
    tell(&told, to_stdout, output)?;
    Ok(Exit::bad_news_if(goes_on_at.is_some()))
}

fn tell(told: &Transcoded, to_stdout: bool, output: &mut Output) -> Result<(), CommandError> {
    if output.is_json() {
        return output.document(told);
    }
    let mut text = String::new();
    if let Some(octet) = told.goes_on_at {
        text.push_str(&format!("what follows the stream at octet {octet} is left out\n"));
    }
    if !to_stdout {
        let Transcoded { out, format, file_octets, stream_octets, stream_digest, .. } = told;
        let out = printable(&out.display().to_string());
        text.push_str(&format!(
            "{out}: {format}, {file_octets} octets; the domain's stream has {stream_octets} octets, digest {stream_digest}\n"
        ));
    }
    output.text(text)
}

fn check(asked: &Transcode, to_stdout: bool) -> Result<(), SnapshotError> {
    check_options(asked.to, asked.packing, asked.side_digest.is_some())?;
    if to_stdout && asked.to != FormatChoice::Stream {
        return Err(SnapshotError::ImageToStdout);
    }
    Ok(())
}

/// Refuses options that a format does not have.
pub(super) fn check_options(
    of: FormatChoice,
    packing: Packing,
    side_digest: bool,
) -> Result<(), SnapshotError> {
    let Packing { codec, level, workers } = packing;
    let options = [
        ("--codec", codec.is_some(), FormatChoice::Packed),
        ("--level", level.is_some(), FormatChoice::Packed),
        ("--workers", workers.is_some(), FormatChoice::Packed),
        ("--side-digest", side_digest, FormatChoice::Stream),
    ];
    if let Some((option, _, format)) =
        options.into_iter().find(|(_, given, format)| *given && *format != of)
    {
        return Err(SnapshotError::OptionOfOther { option, format: name(format) });
    }
    if level.is_some() && codec == Some(CodecChoice::Lz4) {
        return Err(SnapshotError::LevelOfLz4);
    }
    Ok(())
}

/// How a packed image is to be compressed.
pub(super) fn codec(packing: Packing) -> Codec {
    match packing.codec {
        Some(CodecChoice::Lz4) => Codec::Lz4,
        Some(CodecChoice::Zstd) | None => {
            Codec::Zstd { level: packing.level.unwrap_or(ZSTD_LEVEL_DEFAULT) }
        }
    }
}

fn packed_options(packing: Packing) -> PackedOptions {
    let options = PackedOptions::default().codec(codec(packing));
    packing.workers.map_or(options, |workers| options.workers(workers.into()))
}

fn name(format: FormatChoice) -> &'static str {
    match format {
        FormatChoice::Stream => "stream",
        FormatChoice::Mapped => "mapped",
        FormatChoice::Packed => "packed",
    }
}

struct Transcoding<'a> {
    asked: &'a Transcode,
    watch: &'a Watch,
}

/// What has been written, and has no name yet.
struct Written {
    unnamed: Unnamed,
    octets: u64,
    stream_octets: u64,
    digest: Digest,
    side: Option<SideDigest>,
}

enum Unnamed {
    Stdout,
    File(Option<CompleteFile>),
}

impl Unnamed {
    fn finish(&mut self) -> Result<(), CommandError> {
        if let Self::File(file) = self
            && let Some(file) = file.take()
        {
            file.finish()?;
        }
        Ok(())
    }
}

impl Transcoding<'_> {
    fn to_stream(&self, saved: &mut Saved, to_stdout: bool) -> Result<Written, CommandError> {
        let mut sink = if to_stdout {
            Sink::Stdout(io::stdout())
        } else {
            Sink::File(CompleteFile::create(&self.asked.out)?)
        };
        let copied = saved.read(|input| {
            let output = BufWriter::with_capacity(BUFFER_LEN, &mut sink);
            passthrough::copy(input, output, Limits::default())
        });
        let (side, _) = copied.map_err(|failure| self.failed(failure))?;
        let octets = side.info().stream_len;
        Ok(Written {
            unnamed: match sink {
                Sink::Stdout(_) => Unnamed::Stdout,
                Sink::File(file) => Unnamed::File(Some(file)),
            },
            octets,
            stream_octets: octets,
            digest: side.stream_digest(),
            side: Some(side),
        })
    }

    /// Everything is durable before the image says that it is complete.
    fn to_image(
        &self,
        saved: &mut Saved,
        write: impl FnOnce(&mut dyn Read, std::fs::File) -> Result<Unmarked, ImageWriteError>,
    ) -> Result<Written, CommandError> {
        let named = CompleteFile::create(&self.asked.out)?;
        let file = new_file::reopened(&named)?;
        let written =
            saved.read(|input| write(input, file)).map_err(|failure| self.failed(failure))?;
        let synced = written.file().sync_all();
        synced.map_err(|source| new_file::unwritten(&self.asked.out, source))?;
        let complete =
            written.mark_complete().map_err(|error| self.failed(ReadFailure::To(error)))?;
        Ok(Written {
            unnamed: Unnamed::File(Some(named)),
            octets: complete.info.file_len,
            stream_octets: complete.info.stream_len,
            digest: complete.info.stream_digest,
            side: None,
        })
    }

    fn failed(&self, failure: ReadFailure) -> CommandError {
        if self.watch.cancel.is_cancelled() {
            return SnapshotError::Cancelled.into();
        }
        let (file, out) = (self.asked.file.clone(), self.asked.out.clone());
        match failure {
            ReadFailure::From(source) => SnapshotError::ImageRead { path: file, source }.into(),
            ReadFailure::To(ImageWriteError::Stream { source }) => {
                // An image that cannot be read fails as the stream that comes out of it.
                let source = ImageWriteError::Stream { source };
                SnapshotError::NoDomain { path: file, source }.into()
            }
            ReadFailure::To(ImageWriteError::Output { source, .. }) if out == Path::new("-") => {
                CommandError::Output(source)
            }
            ReadFailure::To(source) => SnapshotError::ImageWrite { path: out, source }.into(),
            ReadFailure::Pipe(source) => CommandError::Thread(source),
        }
    }
}

enum Sink {
    Stdout(Stdout),
    File(CompleteFile),
}

impl Write for Sink {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(octets),
            Self::File(file) => file.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            Self::File(file) => file.flush(),
        }
    }
}
