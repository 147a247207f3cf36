//! Octets to records.

use std::fmt;
use std::io::{self, Read};

use crate::deviation::{Deviation, Deviations, LengthForm};
use crate::fields::{BodyError, Fields, aligned};
use crate::limits::{READ_AHEAD, RECORD_MAX};
use crate::peer::{ExtendedForm, Peer};
use crate::preamble::{PREAMBLE_LEN, Preamble, PreambleError, Version};
use crate::record::{Record, RecordType, Scratch, UnknownData, WatchExtendedData};

/// Octets of a record's type and length.
const HEADER_LEN: usize = 8;

/// Reads a stream record by record from any [`Read`], and holds one record at a time.
///
/// It reads up to the END record and not an octet further, so that a stream can be part of something longer. It does not
/// seek, and asks for a record at a time: put a [`std::io::BufReader`] around what has system calls behind it.
///
/// What deployed servers write otherwise than specified is understood: lengths that count the padding behind the fields, and
/// two misshapen forms of WATCH_DATA_EXTENDED. [`StreamReader::deviations`] tells what was found, [`StreamReader::peer`] who
/// writes so. [`ReadOptions::strict`] refuses all of it.
///
/// ```
/// use xenstore_migration::{Peer, ReadOptions, Record, StreamReader};
///
/// let stream: &[u8] = include_bytes!("../testdata/one-node.bin");
/// let mut reader = StreamReader::open(stream, ReadOptions::default())?;
/// while let Some(placed) = reader.next_record()? {
///     if let Record::Node(node) = placed.record {
///         println!("{}: {}", placed.place, String::from_utf8_lossy(node.path));
///     }
/// }
/// assert_eq!(reader.peer(), Some(Peer::Specification));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct StreamReader<R> {
    input: R,
    options: ReadOptions,
    preamble: Preamble,
    next: Next,
    /// Octets of the input that belong to records already given.
    position: u64,
    index: u64,
    body: Vec<u8>,
    scratch: Scratch,
    deviations: Deviations,
}

/// How a stream is read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct ReadOptions {
    /// What to do with records of a type that is not known.
    pub unknown: UnknownRecords,
    /// Refuse whatever is not as specified, even where its meaning is clear.
    pub strict: bool,
    /// Most octets of a record's body.
    pub record_max: usize,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self { unknown: UnknownRecords::Keep, strict: false, record_max: RECORD_MAX }
    }
}

impl ReadOptions {
    /// Refuses deviations from the specification.
    #[must_use]
    pub const fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Refuses records of unknown types.
    #[must_use]
    pub const fn known_only(mut self) -> Self {
        self.unknown = UnknownRecords::Refuse;
        self
    }

    /// Refuses longer records.
    #[must_use]
    pub const fn record_max(mut self, octets: usize) -> Self {
        self.record_max = octets;
        self
    }
}

/// What to do with records of a type that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownRecords {
    /// Give them as [`Record::Unknown`].
    Keep,
    /// Fail.
    Refuse,
}

/// A record, and where in the stream it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Where.
    pub place: Place,
    /// What it says; borrowed from the reader until the next one is asked for.
    pub record: Record<'a>,
}

/// Where in a stream a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// How many records come before it.
    pub index: u64,
    /// What it says it is; `None` if it was cut before that.
    pub record_type: Option<RecordType>,
    /// How many octets of the stream come before it, the preamble's included.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {}", self.index)?;
        if let Some(record_type) = self.record_type {
            write!(f, " ({record_type})")?;
        }
        write!(f, " at octet {}", self.offset)
    }
}

#[derive(Debug)]
enum Next {
    /// The header of the next record has been read.
    Header(Header),
    /// The input ends so many octets into it.
    Cut(usize),
    /// The input has failed before it was complete.
    Failed(io::Error),
    /// END has been read.
    Ended,
    /// An error has been given.
    Broken,
}

#[derive(Clone, Copy, Debug)]
struct Header {
    record_type: RecordType,
    len: u32,
}

impl Header {
    fn new(octets: [u8; HEADER_LEN], preamble: Preamble) -> Self {
        let [t0, t1, t2, t3, l0, l1, l2, l3] = octets;
        let number = |octets| preamble.byte_order.u32(octets);
        Self { record_type: RecordType(number([t0, t1, t2, t3])), len: number([l0, l1, l2, l3]) }
    }
}

impl<R: Read> StreamReader<R> {
    /// Reads the preamble.
    ///
    /// # Errors
    ///
    /// If the input does not begin with that of a stream of version 1 or 2.
    pub fn open(mut input: R, options: ReadOptions) -> Result<Self, OpenError> {
        let mut octets = [0; PREAMBLE_LEN];
        match fill(&mut input, &mut octets) {
            (PREAMBLE_LEN, _) => {}
            (has, Ok(())) => return Err(OpenError::Cut { has }),
            (_, Err(source)) => return Err(OpenError::Io { source }),
        }
        let preamble =
            Preamble::from_octets(&octets).map_err(|source| OpenError::Preamble { source })?;
        let mut reader = Self {
            input,
            options,
            preamble,
            next: Next::Broken,
            position: PREAMBLE_LEN as u64,
            index: 0,
            body: Vec::new(),
            scratch: Scratch::default(),
            deviations: Deviations::default(),
        };
        reader.read_header();
        Ok(reader)
    }

    /// What the stream's first octets say.
    pub fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// The next record; `None` after END.
    ///
    /// # Errors
    ///
    /// If the stream is cut or does not say what a stream says. After that there is nothing more to be had from the reader.
    pub fn next_record(&mut self) -> Result<Option<Placed<'_>>, ReadError> {
        let next = std::mem::replace(&mut self.next, Next::Broken);
        let mut place = Place { index: self.index, record_type: None, offset: self.position };
        let Header { record_type, len } = match next {
            Next::Header(header) => header,
            Next::Ended => {
                self.next = Next::Ended;
                return Ok(None);
            }
            Next::Cut(has) => {
                let failure = ReadFailure::Cut { needs: HEADER_LEN, has };
                return Err(ReadError::new(place, failure));
            }
            Next::Failed(source) => {
                return Err(ReadError::new(place, ReadFailure::Io { source }));
            }
            Next::Broken => return Err(ReadError::new(place, ReadFailure::AfterError)),
        };
        place.record_type = Some(record_type);
        self.check_header(record_type, len).map_err(|failure| ReadError::new(place, failure))?;
        if record_type == RecordType::END {
            self.next = Next::Ended;
            self.position += HEADER_LEN as u64;
            return Ok(None);
        }
        // It is no more than record_max.
        let len = len as usize;
        self.read_body(record_type, len).map_err(|failure| ReadError::new(place, failure))?;
        self.index += 1;
        match self.decode(place, record_type, len) {
            Ok(record) => Ok(Some(Placed { place, record })),
            Err(failure) => Err(ReadError::new(place, failure)),
        }
    }

    /// What was found so far that is not as specified.
    pub fn deviations(&self) -> &Deviations {
        &self.deviations
    }

    /// In which form a writer writes the records read so far with the same octets; `None` if in none.
    pub fn peer(&self) -> Option<Peer> {
        self.deviations.peer(self.preamble.version)
    }

    /// The input, which stands behind END if all records have been read.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn check_header(&self, record_type: RecordType, len: u32) -> Result<(), ReadFailure> {
        if record_type == RecordType::END && len != 0 {
            let source = BodyError::Length { len: octets(len), fields: 0 };
            return Err(ReadFailure::Body { source });
        }
        // Where octets are counted in 32 bits, the padding could not be counted otherwise.
        let max = self.options.record_max.min(usize::MAX / 4);
        if octets(len) > max {
            return Err(ReadFailure::TooLong { len, max });
        }
        if record_type.name().is_none() && self.options.unknown == UnknownRecords::Refuse {
            return Err(ReadFailure::UnknownType);
        }
        Ok(())
    }

    /// Reads a body, the padding behind it, and the header of the next record.
    fn read_body(&mut self, record_type: RecordType, len: usize) -> Result<(), ReadFailure> {
        self.body.clear();
        // Where an extended watch ends is known only when it has been read.
        let ahead = if record_type == RecordType::WATCH_DATA_EXTENDED { 0 } else { HEADER_LEN };
        let padded = aligned(len);
        let mut wanted = 0;
        while wanted < padded + ahead {
            wanted = (padded + ahead).min(wanted + READ_AHEAD);
            let has = self.body.len();
            if wanted > self.body.capacity() {
                // Twice as much as came, so that little is copied, and no more than the record has.
                let capacity = (2 * has).clamp(wanted, padded + ahead);
                self.body.reserve_exact(capacity - has);
            }
            self.body.resize(wanted, 0);
            let (read, outcome) = fill(&mut self.input, &mut self.body[has..]);
            let has = has + read;
            if has == wanted {
                continue;
            }
            if has < padded {
                outcome.map_err(|source| ReadFailure::Io { source })?;
                return Err(ReadFailure::Cut { needs: HEADER_LEN + padded, has: HEADER_LEN + has });
            }
            // This record is whole: what is wrong is told when the next one is asked for.
            self.next = Next::unread(has - padded, outcome);
            self.body.truncate(padded);
            return Ok(());
        }
        if let Some(header) = self.body[padded..].first_chunk() {
            self.next = Next::Header(Header::new(*header, self.preamble));
            self.body.truncate(padded);
        }
        Ok(())
    }

    fn read_header(&mut self) {
        let mut header = [0; HEADER_LEN];
        self.next = match fill(&mut self.input, &mut header) {
            (HEADER_LEN, _) => Next::Header(Header::new(header, self.preamble)),
            (has, outcome) => Next::unread(has, outcome),
        };
    }

    fn decode(
        &mut self,
        place: Place,
        record_type: RecordType,
        len: usize,
    ) -> Result<Record<'_>, ReadFailure> {
        self.position += (HEADER_LEN + aligned(len)) as u64;
        if record_type == RecordType::WATCH_DATA_EXTENDED {
            return self.decode_extended_watch(place, len);
        }
        let Self { body, scratch, preamble, deviations, options, next, .. } = self;
        // There is no going on behind an error.
        let following = std::mem::replace(next, Next::Broken);
        let (body, padding) = body.split_at(len);
        let mut fields = Fields::new(body, *preamble);
        let decoded = Record::decode(record_type, &mut fields, scratch)?;
        let form = match &decoded {
            Record::Unknown(_) => LengthForm::of_unknown(len),
            _ => LengthForm::of(len, fields.at())?,
        };
        let unsaid = body[fields.at()..].iter().chain(padding);
        let dirty = fields.dirty_padding() || unsaid.copied().any(|octet| octet != 0);
        deviations.note_length(form, place)?;
        if dirty {
            deviations.note(Deviation::PaddingNotZero, place);
        }
        if matches!(decoded, Record::Unknown(UnknownData { body: [], .. })) {
            deviations.note_empty_unknown();
        }
        if options.strict {
            deviations.refuse()?;
        }
        *next = following;
        Ok(decoded)
    }

    fn decode_extended_watch(
        &mut self,
        place: Place,
        len: usize,
    ) -> Result<Record<'_>, ReadFailure> {
        // The borrow ends before what follows the record is read, and begins again behind it.
        let (form, taken) = {
            let mut fields = Fields::new(&self.body[..len], self.preamble);
            let found = WatchExtendedData::form(&mut fields)?;
            if found.form == ExtendedForm::Specified {
                if self.preamble.version < Version::V2 {
                    return Err(BodyError::Version.into());
                }
                let form = LengthForm::of(len, found.fields)?;
                self.deviations.note_length(form, place)?;
                self.deviations.note_specified_watch();
            } else {
                if self.preamble.version < Version::V2 {
                    self.deviations.note(Deviation::ExtendedWatchInVersion1, place);
                }
                self.deviations.note_length(LengthForm::CountsPadding, place)?;
                self.deviations.note(Deviation::of(found.form), place);
            }
            let unsaid = &self.body[found.fields.min(found.taken)..aligned(found.taken)];
            if fields.dirty_padding() || unsaid.iter().any(|octet| *octet != 0) {
                self.deviations.note(Deviation::PaddingNotZero, place);
            }
            (found.form, aligned(found.taken))
        };
        if self.options.strict {
            self.deviations.refuse()?;
        }
        match self.body.get(taken..).and_then(<[u8]>::first_chunk) {
            Some(header) => {
                self.next = Next::Header(Header::new(*header, self.preamble));
                self.position -= HEADER_LEN as u64;
            }
            None => self.read_header(),
        }
        let mut fields = Fields::new(&self.body[..len], self.preamble);
        Ok(Record::WatchExtended(WatchExtendedData::decode_as(form, &mut fields)?))
    }
}

impl Next {
    /// A header of which only so many octets are there.
    fn unread(has: usize, outcome: io::Result<()>) -> Self {
        outcome.map_or_else(Self::Failed, |()| Self::Cut(has))
    }
}

/// Reads until `buffer` is full or the input ends or fails, and gives how much was read.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> (usize, io::Result<()>) {
    let mut has = 0;
    while has < buffer.len() {
        match input.read(&mut buffer[has..]) {
            Ok(0) => break,
            Ok(read) => has += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (has, Err(error)),
        }
    }
    (has, Ok(()))
}

/// A length as memory is counted; where that has fewer bits, more than there can be.
fn octets(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// Why a stream was not begun to be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The input ends within the preamble.
    #[error("the stream ends at octet {has}, within its first {PREAMBLE_LEN} octets")]
    Cut {
        /// How many octets there are.
        has: usize,
    },
    /// The first octets are not those of a stream.
    #[error(transparent)]
    Preamble {
        /// Why not.
        source: PreambleError,
    },
    /// The input failed.
    #[error("the first octets of the stream cannot be read")]
    Io {
        /// How.
        source: io::Error,
    },
}

/// Why a stream was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
#[non_exhaustive]
pub struct ReadError {
    /// The record that was being read.
    pub place: Place,
    /// What is wrong.
    #[source]
    pub failure: ReadFailure,
}

impl ReadError {
    fn new(place: Place, failure: ReadFailure) -> Self {
        Self { place, failure }
    }
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFailure {
    /// The stream ends before its END record.
    #[error("the stream is cut: of {needs} octets, {has} are there")]
    Cut {
        /// Octets of the record, or of its header if that was cut.
        needs: usize,
        /// How many of them there are.
        has: usize,
    },
    /// The input failed.
    #[error("the stream cannot be read")]
    Io {
        /// How.
        source: io::Error,
    },
    /// Longer than the reader takes.
    #[error("the record has {len} octets, and no more than {max} are read")]
    TooLong {
        /// What its length field says.
        len: u32,
        /// [`ReadOptions::record_max`]
        max: usize,
    },
    /// A record of a type that is not known, and those are refused.
    #[error("the type of the record is not known")]
    UnknownType,
    /// The fields do not make sense.
    #[error(transparent)]
    Body {
        /// Why not.
        #[from]
        source: BodyError,
    },
    /// Some lengths of the stream count padding and some do not, so that one of them is wrong.
    #[error("the length {} padding, unlike that of {other}", if *counts { "does not count" } else { "counts" })]
    MixedLengths {
        /// Whether those before do.
        counts: bool,
        /// The first record that shows it.
        other: Place,
    },
    /// Something is not as specified, and that is refused.
    #[error("not as specified: {deviation}")]
    Deviation {
        /// What.
        deviation: Deviation,
    },
    /// The reader has failed before.
    #[error("an earlier record could not be read")]
    AfterError,
}
