//! A stream in another version, byte order or form.

use std::io::{Read, Write};

use xenstore_proto::{DomId, Features};

use crate::fields::EncodeError;
use crate::peer::{ExtendedForm, Peer};
use crate::preamble::{Preamble, Version};
use crate::reader::{Place, Placed, ReadError, StreamReader};
use crate::record::{Record, RecordType, WatchData, WatchDepth, WatchExtendedData};
use crate::writer::{StreamWriter, WriteError, WriteFailure};

/// Says what becomes of a record in another stream, and what is lost on the way.
///
/// It holds nothing from one record to the next, so that a conversion takes no more memory than the longest record.
#[derive(Clone, Copy, Debug)]
pub struct Converter {
    from: Preamble,
    to: Preamble,
    peer: Peer,
}

/// A record as it is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Converted<'a> {
    /// `None` if nothing of it can be written.
    pub record: Option<Record<'a>>,
    /// What it said, and says no more; or does say, and nobody had said it.
    pub loss: Option<LossKind<'a>>,
}

impl Converter {
    /// From one stream to another.
    pub const fn new(from: Preamble, to: Preamble, peer: Peer) -> Self {
        Self { from, to, peer }
    }

    /// What becomes of a record.
    pub fn convert<'a>(&self, record: Record<'a>) -> Converted<'a> {
        let kept = Converted { record: Some(record), loss: None };
        match record {
            Record::WatchExtended(watch) => self.convert_watch(watch),
            Record::Domain(domain) => match (domain.features, self.to.version) {
                (Some(features), Version::V1) if features != Features::default() => {
                    let loss = LossKind::Features { domid: domain.domid, features };
                    Converted { loss: Some(loss), ..kept }
                }
                (None, Version::V2) => {
                    let loss = LossKind::FeaturesUntold { domid: domain.domid };
                    Converted { loss: Some(loss), ..kept }
                }
                _ => kept,
            },
            Record::Unknown(unknown) => {
                let record_type = unknown.record_type;
                if self.from.byte_order != self.to.byte_order && !unknown.body.is_empty() {
                    let loss = LossKind::UnknownByteOrder { record_type };
                    Converted { record: None, loss: Some(loss) }
                } else if self.peer.counts_padding() && unknown.body.is_empty() {
                    let loss = LossKind::UnknownEmpty { record_type, peer: self.peer };
                    Converted { record: None, loss: Some(loss) }
                } else {
                    kept
                }
            }
            _ => kept,
        }
    }

    fn convert_watch<'a>(&self, watch: WatchExtendedData<'a>) -> Converted<'a> {
        let WatchExtendedData { connection, depth, path, token } = watch;
        let plain = Record::Watch(WatchData { connection, path, token });
        let lost = LossKind::Depth { path, depth };
        let untold = Some(LossKind::DepthUntold { path });
        let as_plain = match depth {
            WatchDepth::Unlimited => Converted { record: Some(plain), loss: None },
            WatchDepth::Untold => Converted { record: Some(plain), loss: untold },
            WatchDepth::Levels(_) => Converted { record: Some(plain), loss: Some(lost) },
        };
        let extended = |depth, loss| {
            let record = WatchExtendedData { connection, depth, path, token };
            Converted { record: Some(Record::WatchExtended(record)), loss }
        };
        match (self.peer.extended_watch(), self.to.version, depth) {
            (Some(ExtendedForm::WithoutDepth), _, WatchDepth::Untold) => extended(depth, None),
            (Some(ExtendedForm::WithoutDepth), _, WatchDepth::Levels(_)) => {
                extended(WatchDepth::Untold, Some(lost))
            }
            (None, ..) | (_, Version::V1, _) => as_plain,
            (Some(ExtendedForm::WithoutDepth), ..) => as_plain,
            (Some(_), Version::V2, WatchDepth::Untold) => extended(WatchDepth::Unlimited, untold),
            (Some(_), Version::V2, _) => extended(depth, None),
        }
    }
}

/// Copies what is left of a stream into another, record by record, and tells `lose` of every loss.
///
/// The writer's END is left to the caller.
///
/// # Errors
///
/// If the stream cannot be read or written to its end.
pub fn convert<R: Read, W: Write>(
    reader: &mut StreamReader<R>,
    writer: &mut StreamWriter<W>,
    mut lose: impl FnMut(Loss<'_>),
) -> Result<(), ConvertError> {
    let converter = Converter::new(reader.preamble(), writer.preamble(), writer.peer());
    while let Some(Placed { place, record }) =
        reader.next_record().map_err(|source| ConvertError::Read { source })?
    {
        let converted = converter.convert(record);
        if let Some(kind) = converted.loss {
            lose(Loss { place, kind });
        }
        if let Some(record) = converted.record {
            writer.write(&record).map_err(|source| ConvertError::Write { place, source })?;
        }
    }
    Ok(())
}

/// What a record loses on the way, and where in the original it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {kind}")]
pub struct Loss<'a> {
    /// The record.
    pub place: Place,
    /// What it loses.
    pub kind: LossKind<'a>,
}

/// What a record loses on the way to another stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LossKind<'a> {
    /// A watch covers more than it did.
    #[error("the watch on {} loses its depth ({depth:?}) and covers all below its path", path.escape_ascii())]
    Depth {
        /// The watch's path.
        path: &'a [u8],
        /// The depth it had.
        depth: WatchDepth,
    },
    /// The stream did not say how far a watch goes.
    #[error("the depth of the watch on {} was lost before; it covers all below its path", path.escape_ascii())]
    DepthUntold {
        /// The watch's path.
        path: &'a [u8],
    },
    /// Version 1 does not say what a guest has been offered.
    #[error("domain {domid} loses its features, {:#x}", features.0)]
    Features {
        /// The domain.
        domid: DomId,
        /// What it had.
        features: Features,
    },
    /// Version 2 says what a guest has been offered, and version 1 did not.
    #[error("the features of domain {domid} were not told and become zero")]
    FeaturesUntold {
        /// The domain.
        domid: DomId,
    },
    /// A record of a type that is not known cannot be put into another byte order. It is left out.
    #[error(
        "the record of unknown {record_type} is left out: it cannot be put into another byte order"
    )]
    UnknownByteOrder {
        /// Its type.
        record_type: RecordType,
    },
    /// A record of a type that is not known, without a body, at which the peer would give up. It is left out.
    #[error("the empty record of unknown {record_type} is left out: {peer} would give up there")]
    UnknownEmpty {
        /// Its type.
        record_type: RecordType,
        /// For whom the stream is written.
        peer: Peer,
    },
}

/// Why a stream was not converted to its end.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// The original.
    #[error(transparent)]
    Read {
        /// What is wrong with it.
        source: ReadError,
    },
    /// The other stream.
    #[error("{place} cannot be converted")]
    Write {
        /// The record in the original.
        place: Place,
        /// Why not.
        source: WriteError,
    },
}

impl ConvertError {
    /// Whether the record itself cannot be written in the other stream, as opposed to a failure of the output.
    pub fn is_of_record(&self) -> Option<EncodeError> {
        match self {
            Self::Write {
                source: WriteError { failure: WriteFailure::Record { source }, .. },
                ..
            } => Some(*source),
            _ => None,
        }
    }
}
