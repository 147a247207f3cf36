//! A document as a stream.

use std::io::Write;

use super::document;
use super::failure::DocumentError;
use super::given::Fields;
use crate::fields::EncodeError;
use crate::limits::DOCUMENT_MAX;
use crate::order::{AssumedKind, OrderChecker, StreamKind, Violation};
use crate::peer::Peer;
use crate::preamble::Preamble;
use crate::reader::UnknownRecords;
use crate::record::{ConnectionData, ConnectionSpec, Record, UnknownData};
use crate::writer::{StreamWriter, WriteFailure};

/// Makes a stream of a document, or of the lines that `domkeep stream inspect --json` prints: [`crate::json`] has their fields,
/// and says what comes back octet for octet.
///
/// ```
/// use xenstore_migration::json::{self, EncodeOptions};
/// use xenstore_migration::ReadOptions;
///
/// let stream: &[u8] = include_bytes!("../../testdata/one-node.bin");
/// let document = json::decode(stream, ReadOptions::default())?;
/// assert_eq!(json::encode(document.as_bytes(), EncodeOptions::default())?, stream);
///
/// let broken = document.replace("n0", "x0");
/// let error = json::encode(broken.as_bytes(), EncodeOptions::default()).unwrap_err();
/// assert!(error.to_string().starts_with("records[0].perms[0]: is no permission"), "{error}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// If it is no such document, or a record cannot be in such a stream where it stands.
pub fn encode(document: &[u8], options: EncodeOptions) -> Result<Vec<u8>, DocumentError> {
    encode_to(document, Vec::new(), options).map(|encoded| encoded.output)
}

/// As [`encode()`], to any [`Write`], each record with one call. After an error the stream has no END, so that no reader takes it
/// for whole.
///
/// # Errors
///
/// As [`encode()`], and if the output fails.
pub fn encode_to<W: Write>(
    document: &[u8],
    output: W,
    options: EncodeOptions,
) -> Result<Encoded<W>, DocumentError> {
    if document.len() > DOCUMENT_MAX {
        return Err(DocumentError::TooLong { octets: document.len() });
    }
    let (preamble, peer, form) = document::head(document)?;
    let writer = StreamWriter::create(output, preamble, peer)
        .map_err(|source| DocumentError::Create { source })?;
    let mut encoder =
        Encoder { writer, checking: Checking::new(preamble, peer, options), index: 0 };
    document::records(document, form, |fields| encoder.add(fields))?;
    encoder.finish()
}

/// How a document is encoded.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct EncodeOptions {
    /// What to do with records and connections of a kind that is not known.
    pub unknown: UnknownRecords,
    /// Whether the records have to go together.
    pub order: Order,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self { unknown: UnknownRecords::Keep, order: Order::Assumed }
    }
}

impl EncodeOptions {
    /// Refuses records of unknown types, and connections of unknown kinds.
    #[must_use]
    pub const fn known_only(mut self) -> Self {
        self.unknown = UnknownRecords::Refuse;
        self
    }

    /// Refuses what does not belong into a stream of this kind.
    #[must_use]
    pub const fn of_kind(mut self, kind: StreamKind) -> Self {
        self.order = Order::Of(kind);
        self
    }

    /// Writes whatever the records are, as those of a stream that is broken on purpose. Only what no record can say is refused.
    #[must_use]
    pub const fn unchecked(mut self) -> Self {
        self.order = Order::Unchecked;
        self
    }
}

/// Whether the records of a stream have to go together: [`OrderChecker`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As in a stream of the kind that it looks like: [`AssumedKind`].
    Assumed,
    /// As in a stream of this kind.
    Of(StreamKind),
    /// No.
    Unchecked,
}

/// A stream that was written.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Encoded<W> {
    /// How it begins.
    pub preamble: Preamble,
    /// For whom it is.
    pub peer: Peer,
    /// How many records it has before END.
    pub records: u64,
    /// Where it was written.
    pub output: W,
}

struct Encoder<W> {
    writer: StreamWriter<W>,
    checking: Checking,
    index: u64,
}

impl<W: Write> Encoder<W> {
    fn add(&mut self, fields: Fields) -> Result<(), DocumentError> {
        let at = format!("records[{}]", self.index);
        self.index += 1;
        let given = fields.build(self.writer.preamble().version).map_err(|(field, reason)| {
            DocumentError::Field { at: format!("{at}.{field}"), reason }
        })?;
        let record = given.record();
        self.checking.check(&at, &record)?;
        self.writer.write(&record).map_err(|source| match source.failure {
            WriteFailure::Record { source: reason } => {
                let at = field_of(&reason).map_or(at.clone(), |field| format!("{at}.{field}"));
                DocumentError::Record { at, reason }
            }
            _ => DocumentError::Write { source },
        })
    }

    fn finish(self) -> Result<Encoded<W>, DocumentError> {
        self.checking.finish()?;
        let (preamble, peer, records) = (self.writer.preamble(), self.writer.peer(), self.index);
        let output = self.writer.finish().map_err(|source| DocumentError::Write { source })?;
        Ok(Encoded { preamble, peer, records, output })
    }
}

/// The field of a record that a failure is about, by its name in the JSON.
fn field_of(error: &EncodeError) -> Option<&'static str> {
    Some(match error {
        EncodeError::TooLong { field, .. } | EncodeError::Nul { field } => match *field {
            "path" | "wpath" => "path",
            "token" => "token",
            "value" => "value",
            "perms" => "perms",
            "in-data" => "input",
            "out-data" => "output",
            "per-domain quotas" => "per_domain",
            "global quotas" => "global",
            "quotas" => "quotas",
            _ => return None,
        },
        EncodeError::OutputRest { .. } => "output_rest",
        EncodeError::Depth { .. } => "depth",
        EncodeError::WatchPath { .. } => "path",
        EncodeError::Version | EncodeError::KnownType | EncodeError::Peer { .. } => "type",
        EncodeError::NoDescriptor => return None,
    })
}

/// Records that are being checked against each other.
struct Checking {
    peer: Peer,
    unknown: UnknownRecords,
    assumed: AssumedKind,
    /// What the stream may be, [`StreamKind::Domain`] last, as long as nothing says otherwise.
    candidates: Vec<Candidate>,
}

struct Candidate {
    kind: StreamKind,
    checker: OrderChecker,
    /// The first thing that is wrong, if it is that.
    wrong: Option<DocumentError>,
}

impl Checking {
    fn new(preamble: Preamble, peer: Peer, options: EncodeOptions) -> Self {
        let kinds = match options.order {
            Order::Assumed => &[StreamKind::LiveUpdate, StreamKind::Domain][..],
            Order::Of(StreamKind::LiveUpdate) => &[StreamKind::LiveUpdate],
            Order::Of(StreamKind::Domain) => &[StreamKind::Domain],
            Order::Unchecked => &[],
        };
        let candidate = |kind: &StreamKind| {
            let checker = OrderChecker::new(preamble, *kind);
            Candidate { kind: *kind, checker, wrong: None }
        };
        let candidates = kinds.iter().map(candidate).collect();
        Self { peer, unknown: options.unknown, assumed: AssumedKind::default(), candidates }
    }

    /// Fails as soon as it is known what the stream is.
    fn check(&mut self, at: &str, record: &Record<'_>) -> Result<(), DocumentError> {
        if let (UnknownRecords::Refuse, Some(reason)) = (self.unknown, unknown_kind(record)) {
            return Err(DocumentError::Order { at: at.to_owned(), reason });
        }
        self.assumed.see(record);
        if self.candidates.len() > 1 && self.assumed.kind() == StreamKind::LiveUpdate {
            self.candidates.retain(|candidate| candidate.kind == StreamKind::LiveUpdate);
        }
        for candidate in &mut self.candidates {
            if candidate.wrong.is_none() {
                let mut found = candidate.checker.check(record).into_iter();
                let reason = found.find(|found| !is_taken(found, self.peer));
                candidate.wrong =
                    reason.map(|reason| DocumentError::Order { at: at.to_owned(), reason });
            }
        }
        if self.candidates.len() > 1 { Ok(()) } else { self.wrong() }
    }

    fn finish(mut self) -> Result<(), DocumentError> {
        self.wrong()
    }

    fn wrong(&mut self) -> Result<(), DocumentError> {
        let wrong = self.candidates.last_mut().and_then(|candidate| candidate.wrong.take());
        wrong.map_or(Ok(()), Err)
    }
}

fn unknown_kind(record: &Record<'_>) -> Option<Violation> {
    match *record {
        Record::Unknown(UnknownData { record_type, .. }) => {
            Some(Violation::UnknownType { record_type })
        }
        Record::Connection(ConnectionData {
            spec: ConnectionSpec::Unknown { kind, .. }, ..
        }) => Some(Violation::ConnectionKind { kind }),
        _ => None,
    }
}

/// Whether something not as specified is kept all the same: kinds that are yet to come, unless they have been refused, and the
/// form of a server that was named.
fn is_taken(violation: &Violation, peer: Peer) -> bool {
    match violation {
        Violation::UnknownType { .. } | Violation::ConnectionKind { .. } => true,
        Violation::DepthUntold | Violation::LaterVersion { .. } => peer == Peer::C2026Written,
        _ => false,
    }
}
