//! `stream`: xenstore-migration streams in files, out of Xenstore, and into it.

mod apply;
mod convert;
mod encode;
mod extract;
mod fields;
mod findings;
mod inspect;
mod report;
mod sink;
mod source;
mod verify;

use crate::arguments::Stream;
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: &Stream,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
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
        Stream::Encode { file, out, kind, unknown, unchecked } => {
            let options = encode::options(kind.map(Into::into), *unknown, *unchecked);
            encode::run(file, out, options, output)
        }
        Stream::Extract(asked) => extract::run(asked, places, output),
        Stream::Apply(asked) => apply::run(asked, places, output),
    }
}
