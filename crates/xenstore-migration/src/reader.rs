//! Octets to records.

mod failure;

use std::fmt;
use std::io::{self, Read};

use crate::deviation::{Deviation, Deviations, LengthForm};
use crate::fields::{BodyError, Fields, aligned};
use crate::limits::{READ_AHEAD, RECORD_MAX};
use crate::peer::{ExtendedForm, Peer};
use crate::preamble::{PREAMBLE_LEN, Preamble, Version};
use crate::record::{Record, RecordType, Scratch, UnknownData, WatchExtendedData};

pub use failure::{OpenError, ReadError, ReadFailure};

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
        let mut place = Place { index: self.index, record_type: None, offset: self.position };
        let Next::Header(Header { record_type, len }) = self.next else {
            return self.end().map_err(|failure| ReadError::new(place, failure));
        };
        self.next = Next::Broken;
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

    /// What is behind the last record.
    fn end(&mut self) -> Result<Option<Placed<'_>>, ReadFailure> {
        match std::mem::replace(&mut self.next, Next::Broken) {
            Next::Ended => {
                self.next = Next::Ended;
                Ok(None)
            }
            Next::Cut(has) => Err(ReadFailure::Cut { needs: HEADER_LEN, has }),
            Next::Failed(source) => Err(ReadFailure::Io { source }),
            Next::Header(_) | Next::Broken => Err(ReadFailure::AfterError),
        }
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
        // Where an extended watch ends is known only when it has been read.
        let ahead = if record_type == RecordType::WATCH_DATA_EXTENDED { 0 } else { HEADER_LEN };
        let padded = aligned(len);
        let (mut has, mut wanted) = (0, 0);
        while wanted < padded + ahead {
            wanted = (padded + ahead).min(wanted + READ_AHEAD);
            self.make_room(has, wanted, padded + ahead);
            let (read, outcome) = fill(&mut self.input, &mut self.body[has..wanted]);
            has += read;
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
        if let Some(header) = self.body[padded..padded + ahead].first_chunk() {
            self.next = Next::Header(Header::new(*header, self.preamble));
        }
        self.body.truncate(padded);
        Ok(())
    }

    /// Makes the buffer so long, or leaves it longer, which saves filling it with zeros for every record.
    fn make_room(&mut self, has: usize, wanted: usize, most: usize) {
        if wanted > self.body.capacity() {
            // Twice as much as came, so that little is copied, and no more than the record has.
            let capacity = (2 * has).clamp(wanted, most);
            self.body.reserve_exact(capacity - self.body.len());
        }
        if wanted > self.body.len() {
            self.body.resize(wanted, 0);
        }
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
        let (body, padding) = body.split_at(len);
        let mut fields = Fields::new(body, *preamble);
        let decoded = Record::decode(record_type, &mut fields, scratch).map_err(Into::into);
        let decoded = decoded.and_then(|record| {
            let form = match &record {
                Record::Unknown(_) => LengthForm::of_unknown(len),
                _ => LengthForm::of(len, fields.at())?,
            };
            let unsaid = [&body[fields.at()..], padding];
            let dirty = fields.dirty_padding() || !unsaid.into_iter().all(is_zero);
            deviations.note_length(form, place)?;
            if dirty {
                deviations.note(Deviation::PaddingNotZero, place);
            }
            if matches!(record, Record::Unknown(UnknownData { body: [], .. })) {
                deviations.note_empty_unknown();
            }
            if options.strict {
                deviations.refuse()?;
            }
            Ok(record)
        });
        if decoded.is_err() {
            // There is no going on behind an error.
            *next = Next::Broken;
        }
        decoded
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
            if fields.dirty_padding() || !is_zero(unsaid) {
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

fn is_zero(octets: &[u8]) -> bool {
    octets.iter().all(|octet| *octet == 0)
}

/// A length as memory is counted; where that has fewer bits, more than there can be.
fn octets(len: u32) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
