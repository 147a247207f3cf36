//! Records to octets.

use std::io::{self, Write};

use crate::fields::{Body, EncodeError, aligned};
use crate::limits::RECORD_MAX;
use crate::peer::Peer;
use crate::preamble::{PREAMBLE_LEN, Preamble};
use crate::reader::Place;
use crate::record::{Record, RecordType};

/// Writes a stream record by record to any [`Write`], each with one call.
///
/// What is written follows the specification, or the form that a deployed server reads ([`Peer`]). The order of the records
/// is the caller's; [`crate::OrderChecker`] says whether it is one.
#[derive(Debug)]
pub struct StreamWriter<W> {
    output: W,
    preamble: Preamble,
    peer: Peer,
    position: u64,
    index: u64,
    record: Vec<u8>,
    broken: bool,
}

impl<W: Write> StreamWriter<W> {
    /// Writes the preamble.
    ///
    /// # Errors
    ///
    /// If the peer does not know the version, or the output fails.
    pub fn create(mut output: W, preamble: Preamble, peer: Peer) -> Result<Self, CreateError> {
        if !peer.knows(preamble.version) {
            return Err(CreateError::Version { peer, version: preamble.version.number() });
        }
        let octets = preamble.to_octets();
        output.write_all(&octets).map_err(|source| CreateError::Io { source })?;
        let position = PREAMBLE_LEN as u64;
        let record = Vec::new();
        Ok(Self { output, preamble, peer, position, index: 0, record, broken: false })
    }

    /// What was written first.
    pub fn preamble(&self) -> Preamble {
        self.preamble
    }

    /// For whom the stream is.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// If the record cannot be written in this stream: then nothing of it was, and others can follow. If the output
    /// fails, the stream is of no use any more.
    pub fn write(&mut self, record: &Record<'_>) -> Result<(), WriteError> {
        let record_type = record.record_type();
        self.encode(record)
            .map_err(|source| self.error(record_type, WriteFailure::Record { source }))?;
        self.send(record_type)
    }

    /// Writes END, flushes, and gives the output back.
    ///
    /// # Errors
    ///
    /// If the output fails.
    pub fn finish(mut self) -> Result<W, WriteError> {
        self.record.clear();
        self.record.extend_from_slice(&[0; 8]);
        self.send(RecordType::END)?;
        let flushed = self.output.flush();
        flushed.map_err(|source| self.error(RecordType::END, WriteFailure::Io { source }))?;
        Ok(self.output)
    }

    fn encode(&mut self, record: &Record<'_>) -> Result<(), EncodeError> {
        let order = self.preamble.byte_order;
        self.record.clear();
        self.record.extend_from_slice(&order.u32_octets(record.record_type().0));
        self.record.extend_from_slice(&[0; 4]);
        let mut body = Body::new(&mut self.record, self.preamble);
        let claimed = record.encode(&mut body, self.peer)?;
        let fields = body.len();
        body.align();
        let counted = if self.peer.counts_padding() { aligned(fields) } else { fields };
        let len = claimed.unwrap_or(counted);
        let too_long = EncodeError::TooLong { field: "the record", len, max: RECORD_MAX };
        if len > RECORD_MAX {
            return Err(too_long);
        }
        let octets = order.u32_octets(u32::try_from(len).map_err(|_| too_long)?);
        self.record[4..8].copy_from_slice(&octets);
        Ok(())
    }

    fn send(&mut self, record_type: RecordType) -> Result<(), WriteError> {
        if self.broken {
            return Err(self.error(record_type, WriteFailure::AfterError));
        }
        if let Err(source) = self.output.write_all(&self.record) {
            self.broken = true;
            return Err(self.error(record_type, WriteFailure::Io { source }));
        }
        self.position += self.record.len() as u64;
        self.index += 1;
        Ok(())
    }

    fn error(&self, record_type: RecordType, failure: WriteFailure) -> WriteError {
        let (index, offset) = (self.index, self.position);
        WriteError { place: Place { index, record_type: Some(record_type), offset }, failure }
    }
}

/// Why a stream was not begun to be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The peer would refuse all of it.
    #[error("{peer} does not know version {version} of the stream")]
    Version {
        /// For whom the stream was to be.
        peer: Peer,
        /// Which version.
        version: u32,
    },
    /// The output failed.
    #[error("the first octets of the stream cannot be written")]
    Io {
        /// How.
        source: io::Error,
    },
}

/// Why a record was not written.
#[derive(Debug, thiserror::Error)]
#[error("{place}")]
#[non_exhaustive]
pub struct WriteError {
    /// The record, and where it would have been.
    pub place: Place,
    /// What is wrong.
    #[source]
    pub failure: WriteFailure,
}

/// What is wrong with a record to be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFailure {
    /// It cannot be written in this stream. Nothing of it was.
    #[error(transparent)]
    Record {
        /// Why not.
        source: EncodeError,
    },
    /// The output failed.
    #[error("the stream cannot be written")]
    Io {
        /// How.
        source: io::Error,
    },
    /// The output has failed before.
    #[error("an earlier record could not be written")]
    AfterError,
}
