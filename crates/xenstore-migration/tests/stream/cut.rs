//! Streams that end, or whose input fails, where they should not.

use std::io::{self, Read};

use xenstore_migration::{
    OpenError, ReadError, ReadFailure, ReadOptions, Record, StreamReader, WatchDepth,
};

use crate::{captured, rich};

/// Gives the octets and then fails.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::Error::other("unplugged"));
        }
        self.0.read(buffer)
    }
}

/// Where each record begins, that of END last, and whether an extended watch before it may claim its header: the form without
/// a depth has a length that counts four octets too many.
fn places(stream: &[u8]) -> Vec<(u64, bool)> {
    let mut reader = StreamReader::open(stream, ReadOptions::default()).unwrap();
    let mut places = Vec::new();
    let mut claimed = false;
    while let Some(placed) = reader.next_record().unwrap() {
        places.push((placed.place.offset, claimed));
        claimed = matches!(placed.record, Record::WatchExtended(watch) if watch.depth == WatchDepth::Untold);
    }
    places.push((stream.len() as u64 - 8, claimed));
    places
}

/// How many records are read before the error, and the error.
fn broken_off(input: impl Read) -> Result<(usize, ReadError), OpenError> {
    let mut reader = StreamReader::open(input, ReadOptions::default())?;
    let mut count = 0;
    loop {
        match reader.next_record() {
            Ok(Some(_)) => count += 1,
            Ok(None) => unreachable!("a cut stream was read to its end"),
            Err(error) => {
                let again = reader.next_record().unwrap_err();
                assert!(matches!(again.failure, ReadFailure::AfterError));
                return Ok((count, error));
            }
        }
    }
}

fn check_cuts(stream: &[u8]) {
    let places = places(stream);
    for len in 0..stream.len() {
        check_cut(broken_off(&stream[..len]), len, &places);
    }
}

fn check_failures(stream: &[u8]) {
    let places = places(stream);
    for len in 0..stream.len() {
        check_cut(broken_off(Failing(&stream[..len])), len, &places);
    }
}

/// That what is known of an input of so many octets is right.
fn check_cut(found: Result<(usize, ReadError), OpenError>, len: usize, places: &[(u64, bool)]) {
    let (given, error) = match found {
        Ok(found) => found,
        Err(OpenError::Cut { has }) => return assert_eq!((has, len < 16), (len, true)),
        Err(error) => return assert!(matches!(error, OpenError::Io { .. }) && len < 16),
    };
    let begun = places.iter().rposition(|(offset, _)| *offset <= len as u64).unwrap();
    let is_place = |index: usize| {
        let place = (error.place.index, error.place.offset);
        given == index && place == (index as u64, places[index].0)
    };
    let claimed = places[begun].1 && len as u64 - places[begun].0 < 8;
    assert!(
        is_place(begun) || claimed && is_place(begun - 1),
        "cut at {len}, read {given} of {begun} records, then {error}: {}",
        error.failure
    );
    match error.failure {
        ReadFailure::Cut { needs, has } => {
            assert_eq!(error.place.offset + has as u64, len as u64);
            assert!(has < needs);
        }
        ReadFailure::Io { source } => assert_eq!(source.to_string(), "unplugged"),
        other => unreachable!("cut at {len}: {other}"),
    }
}

#[test]
fn a_stream_that_is_cut_anywhere_is_an_error_at_the_record_that_is_cut() {
    rich::streams().iter().for_each(|rich| check_cuts(&rich.stream));
}

#[test]
fn an_input_that_fails_anywhere_is_an_error_at_the_record_that_is_incomplete() {
    rich::streams().iter().for_each(|rich| check_failures(&rich.stream));
}

#[test]
fn a_capture_that_is_cut_anywhere_is_an_error_at_the_record_that_is_cut() {
    const TEST: &str = "a_capture_that_is_cut_anywhere_is_an_error_at_the_record_that_is_cut";
    for (name, _) in captured::STREAMS {
        if let Some(stream) = captured::captured(TEST, &format!("migration/{name}")) {
            check_cuts(&stream);
        }
    }
}
