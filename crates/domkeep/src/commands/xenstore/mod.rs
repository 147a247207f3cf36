//! `xenstore`: the embedded server, and a client of any.

mod nodes;
mod serve;
mod tree;
mod watch;

use crate::arguments::{Global, Xenstore};
use crate::exit::{CommandError, Exit};
use crate::output::Output;
use crate::places::Places;

pub(super) fn run(
    asked: Xenstore,
    global: &Global,
    places: &Places,
    output: &mut Output,
) -> Result<Exit, CommandError> {
    match asked {
        Xenstore::Serve { socket, load, save, metrics } => {
            let socket = socket.or_else(|| global.xenstore.clone());
            serve::run(socket, load.as_deref(), save.as_deref(), metrics.as_deref(), output)
        }
        Xenstore::Ls { perms, full, path } => {
            tree::run(tree::Style { perms, full }, &path, places, output)
        }
        Xenstore::Read { paths } => nodes::read(&paths, places, output),
        Xenstore::Write { pairs } => nodes::write(&pairs, places),
        Xenstore::Rm { paths } => nodes::rm(&paths, places),
        Xenstore::Watch { paths, count } => {
            watch::run(&paths, count, global.timeout, places, output)
        }
    }
}
