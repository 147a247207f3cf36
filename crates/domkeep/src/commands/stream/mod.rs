//! `stream`: xenstore-migration streams in files.

mod convert;
mod fields;
mod findings;
mod inspect;
mod sink;
mod source;
mod verify;

use crate::arguments::Stream;
use crate::exit::{CommandError, Exit};
use crate::output::Output;

pub(super) fn run(asked: &Stream, output: &mut Output) -> Result<Exit, CommandError> {
    match asked {
        Stream::Inspect { file } => inspect::run(file, output),
        Stream::Verify { file, kind, peer, strict } => {
            let asked = verify::Asked {
                kind: kind.map(Into::into),
                peer: peer.map(Into::into),
                strict: *strict,
            };
            verify::run(file, asked, output)
        }
        Stream::Convert { file, out, form, unknown } => {
            convert::run(file, out, *form, *unknown, output)
        }
    }
}
