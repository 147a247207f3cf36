//! xenstore-migration streams as texts, and texts as streams.

use std::ffi::c_char;
use std::mem::MaybeUninit;

use xenstore_migration::ReadOptions;
use xenstore_migration::json::{EncodeOptions, decode, encode};

use crate::arguments::{empty, required, text, values};
use crate::boundary::call;
use crate::outcome::{give_text, give_values};
use crate::problem::{Error, Problem};
use crate::status::Status;

/// An xenstore-migration stream, of either version and byte order, as JSON: "version", "byte_order", "records", each with its "type"
/// and fields, "peer" and "deviations". docs/xenstore-migration.md has the fields.
///
/// `*json` is freed with free(). DK_STATUS_INVALID_DATA: it is no such stream, or does not end; the message says at which record and
/// octet.
///
/// # Safety
///
/// `stream` has `length` octets. `json` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_stream_decode(
    stream: *const u8,
    length: usize,
    json: Option<&mut MaybeUninit<*mut c_char>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_stream_decode", error, || {
        let place = empty(json, "json")?;
        // SAFETY: as this function's own contract.
        let stream = unsafe { values(stream, length, "stream") }?;
        let document = decode(stream, ReadOptions::default())
            .map_err(|error| Problem::of(Status::InvalidData, &error))?;
        give_text(place, &document)
    })
}

/// The stream that a JSON document describes: octet for octet that of which dk_stream_decode() made it.
///
/// `*stream` becomes `*length` octets, freed with free(). DK_STATUS_INVALID_DATA: it describes none; the message says where in the
/// document and why.
///
/// # Safety
///
/// `json` ends with a NUL. `stream` and `length` can be written; `error` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dk_stream_encode(
    json: *const c_char,
    stream: Option<&mut MaybeUninit<*mut u8>>,
    length: Option<&mut MaybeUninit<usize>>,
    error: Option<&mut MaybeUninit<*mut Error>>,
) -> Status {
    call("dk_stream_encode", error, || {
        let place = empty(stream, "stream")?;
        let length = required(length, "length")?.write(0);
        // SAFETY: as this function's own contract.
        let json = unsafe { text(json, "json") }?;
        let stream = encode(json.as_bytes(), EncodeOptions::default())
            .map_err(|error| Problem::of(Status::InvalidData, &error))?;
        give_values(place, length, &stream)
    })
}
