//! What all formats have in common.

use std::error::Error as _;
use std::fs::File;
use std::io::{self, Read};

use snapshot::image::mapped::{self, MappedOptions, MappedReader};
use snapshot::image::packed::{self, Codec, PackedOptions, PackedReader};
use snapshot::image::passthrough;
use snapshot::image::stream::{GuestType, Start};
use snapshot::image::{
    ImageFormat, ImageOpenError, ImageState, ImageWriteError, Inspected, Limits, inspect,
};
use uuid::Uuid;

use crate::synthetic::{Guest, check, from_mapped, from_packed, mapped, octets, packed};

fn streams() -> Vec<Vec<u8>> {
    let mut streams = Vec::new();
    for kind in [GuestType::X86Pv, GuestType::X86Hvm] {
        for start in [Start::Xl, Start::Libxl, Start::Libxc] {
            let mut guest = Guest::of_pages(kind, 1500);
            guest.start = start;
            streams.push(guest.stream());
        }
    }
    streams
}

#[test]
fn whatever_a_stream_starts_with_it_comes_out_of_every_format_as_it_was() {
    for stream in streams() {
        check(&stream).unwrap();
        assert!(from_mapped(&mapped(&stream[..]).unwrap()) == stream);
        assert!(from_packed(&packed(&stream[..], Codec::default()).unwrap()) == stream);
        assert!(from_packed(&packed(&stream[..], Codec::Lz4).unwrap()) == stream);
        let mut copy = Vec::new();
        passthrough::copy(&stream[..], &mut copy, Limits::default()).unwrap();
        assert!(copy == stream);
    }
}

#[test]
fn nothing_behind_the_end_of_a_stream_is_read() {
    for stream in streams() {
        let mut longer = stream.clone();
        longer.extend(b"the next message on the socket");
        let mut input = &longer[..];
        mapped(&mut input).unwrap();
        assert_eq!(input, b"the next message on the socket");
        let mut input = &longer[..];
        packed(&mut input, Codec::default()).unwrap();
        assert_eq!(input, b"the next message on the socket");
        let mut input = &longer[..];
        passthrough::copy(&mut input, io::sink(), Limits::default()).unwrap();
        assert_eq!(input, b"the next message on the socket");
    }
}

#[test]
fn an_image_is_partial_until_it_is_marked() {
    let stream = Guest::of_pages(GuestType::X86Pv, 300).stream();
    let uuid = Uuid::from_u128(0x1234);
    let file = tempfile::tempfile().unwrap();
    let seen = file.try_clone().unwrap();
    let options = MappedOptions::default().uuid(uuid);
    let written = mapped::write(&stream[..], file, &options).unwrap();
    let error = MappedReader::open(&seen, Limits::default()).unwrap_err();
    assert!(matches!(error, ImageOpenError::Partial), "{error}");
    let Ok(Inspected::Image(info)) = inspect(&octets(&seen)[..4096]) else { panic!() };
    assert_eq!((info.state, info.format()), (ImageState::Partial, ImageFormat::Mapped));
    written.file().sync_all().unwrap();
    let complete = written.mark_complete().unwrap();
    complete.file.sync_all().unwrap();
    let reader = MappedReader::open(&seen, Limits::default()).unwrap();
    assert_eq!(reader.info(), &complete.info);
    assert_eq!(reader.info().uuid, Some(uuid));
    assert_eq!(reader.info().state, ImageState::Complete);
    assert_eq!(reader.info().stream_len, stream.len() as u64);

    let file = tempfile::tempfile().unwrap();
    let seen = file.try_clone().unwrap();
    let options = PackedOptions::default().uuid(uuid);
    let written = packed::write(&stream[..], file, &options).unwrap();
    let error = PackedReader::open(&seen, Limits::default()).unwrap_err();
    assert!(matches!(error, ImageOpenError::Partial), "{error}");
    let complete = written.mark_complete().unwrap();
    assert_eq!(PackedReader::open(&seen, Limits::default()).unwrap().info(), &complete.info);
}

#[test]
fn an_image_of_a_stream_that_was_cut_stays_partial() {
    let stream = Guest::of_pages(GuestType::X86Pv, 600).stream();
    let file = tempfile::tempfile().unwrap();
    let seen = file.try_clone().unwrap();
    let cut = &stream[..stream.len() - 1];
    let error = mapped::write(cut, file, &MappedOptions::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::Stream { .. }), "{error}");
    assert!(matches!(
        MappedReader::open(&seen, Limits::default()).unwrap_err(),
        ImageOpenError::Partial
    ));
    let file = tempfile::tempfile().unwrap();
    let seen = file.try_clone().unwrap();
    let error = packed::write(cut, file, &PackedOptions::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::Stream { .. }), "{error}");
    assert!(matches!(
        PackedReader::open(&seen, Limits::default()).unwrap_err(),
        ImageOpenError::Partial
    ));
}

#[test]
fn a_file_with_something_in_it_is_not_written_into() {
    let stream = Guest::of_pages(GuestType::X86Pv, 3).stream();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1).unwrap();
    let again = file.try_clone().unwrap();
    let error = mapped::write(&stream[..], file, &MappedOptions::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::NotEmpty { len: 1 }));
    let error = packed::write(&stream[..], again, &PackedOptions::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::NotEmpty { len: 1 }));
}

#[test]
fn one_format_is_not_taken_for_another() {
    let stream = Guest::of_pages(GuestType::X86Pv, 3).stream();
    let image = mapped(&stream[..]).unwrap();
    let error = PackedReader::open(&image, Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the image is a mapped image, not a packed image");
    let image = packed(&stream[..], Codec::Lz4).unwrap();
    let error = MappedReader::open(&image, Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the image is a packed image, not a mapped image");
}

/// Fails after some octets, as a caller that cancels does.
struct Cancelled<'a>(&'a [u8]);

impl Read for Cancelled<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(io::ErrorKind::TimedOut, "cancelled")),
            read => Ok(read),
        }
    }
}

#[test]
fn an_input_that_fails_ends_the_writing_with_its_own_error() {
    let stream = Guest::of_pages(GuestType::X86Hvm, 700).stream();
    for len in [0, 10, 500, 100_000, 1_000_000] {
        let input = || Cancelled(&stream[..len]);
        let options = PackedOptions::default();
        let errors = [
            mapped(input()).unwrap_err(),
            packed::write(input(), tempfile::tempfile().unwrap(), &options).unwrap_err(),
            passthrough::copy(input(), io::sink(), Limits::default()).unwrap_err(),
        ];
        for error in errors {
            let cause = error.source().unwrap().source().unwrap().source().unwrap();
            assert_eq!(cause.to_string(), "cancelled", "{len}");
        }
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_with_the_place() {
    let stream = Guest::of_pages(GuestType::X86Hvm, 700).stream();
    let read_only = || File::open("/dev/null").unwrap();
    let error = mapped::write(&stream[..], read_only(), &MappedOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "the image cannot be written at octet 0");
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let error = passthrough::copy(&stream[..], full(), Limits::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::Output { offset: 0, .. }), "{error}");
    let error = packed::write(&stream[..], full(), &PackedOptions::default()).unwrap_err();
    assert!(matches!(error, ImageWriteError::Output { .. }), "{error}");
}
